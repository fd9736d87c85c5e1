"""Workers at work in a test, and what their runs' logs say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gateway.client import Client, Event, Run
from gateway.client.worker import Agent, Worker
from tests.support.running import wait_until

PATIENCE_S = 20.0


@asynccontextmanager
async def working(client: Client, *agents: Agent, **options: Any) -> AsyncIterator[Worker]:
    """Run a worker for as long as the block lasts, and stop it in order."""
    worker = Worker(client, agents, **options)
    task = asyncio.create_task(worker.run())
    try:
        async with asyncio.timeout(60):
            await _began(worker, task)
            yield worker
    finally:
        worker.stop()
        await asyncio.wait_for(task, 60)


async def _began(worker: Worker, task: asyncio.Task[None]) -> None:
    ready = asyncio.create_task(worker.ready.wait())
    await asyncio.wait({ready, task}, return_when=asyncio.FIRST_COMPLETED)
    assert not task.done(), task.exception()


async def queue_run(client: Client, agent: Agent, **fields: Any) -> str:
    """Create a run for a worker and return its id."""
    return (await client.runs.create(agent.name, mode="queued", **fields)).id


async def end_of(client: Client, run_id: str) -> Run:
    """Return a run once it has ended."""
    run = await client.runs.wait(run_id, timeout_s=PATIENCE_S)
    assert run.ended, run.status
    return run


async def until_status(client: Client, run_id: str, status: str) -> Run:
    """Return a run once it stands in `status`."""

    async def stands() -> bool:
        return (await client.runs.get(run_id)).status == status

    await wait_until(stands, timeout_s=PATIENCE_S)
    return await client.runs.get(run_id)


async def read_log(client: Client, run_id: str) -> list[Event]:
    """Return a run's events, which must be dense."""
    events = [item async for item in client.runs.log(run_id) if isinstance(item, Event)]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    return events


async def read_types(client: Client, run_id: str, *, own: bool = True) -> list[str]:
    """Return the types of a run's events, of those only that a worker wrote where `own`."""
    types = [event.type for event in await read_log(client, run_id)]
    return types[types.index("run.started") + 1 :] if own else types


async def read_texts(client: Client, run_id: str) -> list[str]:
    """Return what was said."""
    return [event.data["content"] for event in await read_log(client, run_id) if event.type == "message.delta"]
