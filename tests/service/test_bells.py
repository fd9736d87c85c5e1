"""Waiting for work: nobody looks before what comes next can be heard."""

from __future__ import annotations

import asyncio

import pytest
from ulid import ULID

from gateway.hub.tail import Tail
from gateway.service.bells import Bells
from gateway.store import keys
from gateway.store.clock import StoreClock
from tests.hub.logs import open_link
from tests.support.running import RunningStore, wait_until

pytestmark = pytest.mark.anyio


async def test_everybody_waits_until_the_queue_is_heard(store: RunningStore) -> None:
    """Also whoever comes second, while the first one's subscription is not confirmed yet."""
    queue = str(ULID())
    async with open_link(store.url) as link:
        tail = Tail(store.url, link, StoreClock(), process_id=str(ULID()), probe_s=1.0)
        bells = Bells(tail, most_claims=100)
        heard: list[int] = []

        async def listen(number: int) -> None:
            async with bells.listen("t", [queue]) as bell:
                heard.append(number)
                await bell.wait(30, asyncio.Event())

        waiting = [asyncio.create_task(listen(number)) for number in (1, 2)]
        for _ in range(20):
            await asyncio.sleep(0)
        assert heard == []
        # Only now does the connection exist that can confirm it.
        serving = asyncio.create_task(tail.run())
        await wait_until(lambda: len(heard) == 2)
        for _ in waiting:
            await link.call("SPUBLISH", keys.queue_channel("t", queue), "1")
        async with asyncio.timeout(30):
            await asyncio.gather(*waiting)
        serving.cancel()
        await asyncio.wait([serving])
