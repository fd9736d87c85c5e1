"""A batch whose gateway is killed while it is created: repeated under its key, it is whole and nothing is twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.client import Client, NewRun
from tests.support.processes import serving
from tests.support.running import wait_until

pytestmark = pytest.mark.anyio

RUNS = 1_000


async def test_a_batch_that_was_cut_is_finished_by_its_repeat(data_dir: Path) -> None:
    """All are there, once, in their order, in the list and in the queue."""
    wanted: list[NewRun] = [
        {"agent_id": "batcher", "mode": "queued", "queue": "batch", "input": n} for n in range(RUNS)
    ]
    async with serving(data_dir) as gateway, Client(gateway.url, key=gateway.key, repeat_s=60) as client:
        creating = asyncio.create_task(client.runs.create_batch(wanted, idempotency_key="cut"))

        async def has_begun() -> bool:
            return bool((await client.request("GET", "/v1/runs", params={"agent_id": "batcher"}))["data"])

        await wait_until(has_begun)
        await gateway.kill()
        await gateway.start()
        batch = await creating
        assert [run.input for run in batch.runs] == list(range(RUNS))
        listed = [run.id async for run in client.runs.list(agent_id="batcher", page_runs=100)]
        assert listed == [run.id for run in batch.runs][::-1]

        async def is_queued() -> bool:
            # What a change left undone when it was cut is done a moment later.
            queues = (await client.request("GET", "/v1/queues"))["data"]
            return [queue["waiting"] for queue in queues if queue["name"] == "batch"] == [RUNS]

        await wait_until(is_queued, timeout_s=60)
        claimed: list[int] = []
        while claims := await client.work.claim(["batch"], max=100, wait_s=0.1):
            claimed += [claim.run.input for claim in claims]
        assert claimed == list(range(RUNS))
