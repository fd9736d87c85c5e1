"""What the demo agent is asked to do when nobody else asks: a run of its own now and then."""

from __future__ import annotations

import asyncio

from gateway.client import Client, Event, Run
from gateway.client.worker import Worker
from gateway.commands.demo.agent import NAME
from gateway.commands.demo.library import open_library, pick_topic
from gateway.commands.demo.research import FAIL_ONCE

AT_ONCE = 4
UNHEEDED = 5
CALM = 5
"""After `UNHEEDED` runs in a row that nobody answered, the next ones come that many times as seldom."""
FAILING = 3
"""Each so manyth run fails once on purpose, the first one too: a retry is to be seen."""
STEERED = ("run.input_received", "run.paused", "run.cancel_requested", "run.restarted")


async def create_run(client: Client, *, fail_once: bool = False) -> Run:
    """Queue a run that asks where the library speaks of one of its topics."""
    topic = await asyncio.to_thread(lambda: pick_topic(open_library()))
    wish = {"topic": topic} if topic else {}
    return await client.runs.create(
        NAME,
        mode="queued",
        title=f"Where is “{topic}” spoken of?" if topic else "Search the library",
        input={**wish, FAIL_ONCE: True} if fail_once else wish,
    )


async def keep_asking(client: Client, worker: Worker, interval_s: float) -> None:
    """Create a run every `interval_s` seconds, until cancelled; none while the worker has enough to do."""
    unheeded, asked = 0, 0
    while True:
        run = None
        if worker.running < AT_ONCE:
            run = await create_run(client, fail_once=asked % FAILING == 0)
            asked += 1
        await asyncio.sleep(interval_s * (CALM if unheeded >= UNHEEDED else 1))
        unheeded = unheeded + 1 if run is not None and not await _was_heeded(client, run.id) else 0


async def _was_heeded(client: Client, run_id: str) -> bool:
    """Return whether a person, or a program of theirs, has steered a run or answered it."""
    steered = client.runs.log(run_id, types=STEERED)
    actors = [event.data.get("actor") or {} async for event in steered if isinstance(event, Event)]
    return any(actor.get("kind") != "system" for actor in actors)
