"""Waits that end early when the process is about to stop."""

from __future__ import annotations

import asyncio

import pytest

from gateway.edge.waits import Waits
from gateway.errors import Draining

pytestmark = pytest.mark.anyio


async def hold(waits: Waits, wait_s: float) -> None:
    """Wait for what never comes."""
    async with waits.at_most(wait_s):
        await asyncio.Event().wait()


async def test_every_wait_ends_when_the_process_does() -> None:
    """Those under way, and those that begin afterwards."""
    waits = Waits()
    held = [asyncio.create_task(hold(waits, 60)) for _ in range(3)]
    await asyncio.sleep(0)
    waits.end()
    for each in (*held, asyncio.create_task(hold(waits, 60))):
        with pytest.raises(Draining):
            await each


async def test_a_deadline_that_comes_in_the_same_turn_stops_nobody_from_stopping() -> None:
    """It cannot be moved any more, and need not be."""
    waits, loop = Waits(), asyncio.get_running_loop()
    held = asyncio.create_task(hold(waits, 0))
    ended: asyncio.Future[None] = loop.create_future()

    def end() -> None:
        waits.end()
        ended.set_result(None)

    # The wait's own callback, which is made when it begins, runs before this one, and its task after both.
    loop.call_soon(loop.call_soon, end)
    await asyncio.wait_for(ended, 10)
    with pytest.raises((TimeoutError, Draining)):
        await held
