"""A worker that the gateway cannot reach: it stops by its own clock."""

from __future__ import annotations

import asyncio

import pytest

from gateway.client import Client
from gateway.client.worker import Agent, Run
from tests.client.waits import SOON
from tests.client.worker.bench import queue_run, read_texts, working
from tests.support.proxy import Cut, lay_proxy
from tests.support.running import RunningGateway, wait_until

pytestmark = pytest.mark.anyio


async def test_a_worker_that_is_cut_off_stops_when_its_lease_must_have_ended(
    gateway: RunningGateway, client: Client
) -> None:
    """Although nobody can tell it: another may have the run, and this one neither goes on nor writes."""
    agent, begun, stopped = Agent("cut-off"), asyncio.Event(), asyncio.Event()

    @agent.run
    async def handle(run: Run) -> None:
        await run.say("begun")
        await run.flush()
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
            await run.say("late")

    async with (
        lay_proxy(gateway.port) as proxy,
        Client(proxy.url, key=gateway.key, backoff=SOON) as far,
        working(far, agent, drain_s=0),
    ):
        run_id = await queue_run(client, agent)
        async with asyncio.timeout(30):
            await begun.wait()
        proxy.refuse()
        proxy.cut_all(Cut.RESET)
        await wait_until(stopped.is_set)
        await proxy.accept()
    assert await read_texts(client, run_id) == ["begun"]
