"""What a process tells of itself, and what the queues of all tenants hold."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from gateway.service import depths
from gateway.service.depths import OTHERS, Depths
from gateway.store.indexes import IndexStore
from gateway.store.queue import QueueStore
from tests.support.links import connect
from tests.support.running import RunningGateway, RunningStore, run_gateway, wait_until

pytestmark = pytest.mark.anyio

PATIENCE_S = 30.0


def sample(name: str, **labels: str) -> float:
    """Return a metric's value in this process, 0 where it has none yet."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_a_process_tells_what_it_takes(api: RunningGateway) -> None:
    """Memory, processor, files, links to the store and readiness are measured by the process itself."""
    await wait_until(lambda: sample("gateway_processes_ready") == 1, timeout_s=PATIENCE_S)
    assert sample("gateway_process_resident_bytes") > 10_000_000
    assert sample("gateway_process_cpu_seconds_total") > 0
    assert 0 < sample("gateway_process_open_files_max") < sample("gateway_process_open_files_limit")
    assert sample("gateway_store_connections", link="writes") == 1
    assert abs(sample("gateway_store_clock_ahead_seconds")) < 5


async def test_open_files_are_counted(api: RunningGateway) -> None:
    """Those that were opened since the last look, too."""
    await wait_until(lambda: sample("gateway_processes_ready") == 1, timeout_s=PATIENCE_S)
    before = sample("gateway_process_open_files_max")
    with ExitStack() as opened:
        for _ in range(200):
            opened.enter_context(open(os.devnull, "rb"))  # noqa: ASYNC230 - nothing is read
        # Whatever else this process had open may have been closed meanwhile.
        await wait_until(lambda: sample("gateway_process_open_files_max") > before + 150, timeout_s=PATIENCE_S)


async def test_a_pause_of_the_event_loop_is_told(api: RunningGateway) -> None:
    """Whatever keeps the loop from everybody shows with how long it did."""
    time.sleep(0.4)  # noqa: ASYNC251 - this is the pause
    await wait_until(lambda: sample("gateway_loop_pause_max_seconds") > 0.2, timeout_s=PATIENCE_S)


async def test_queues_of_one_name_are_one_and_those_without_a_label_share_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Labels stay few however many queues there are; the first in turn tells how long the queue has waited."""
    monkeypatch.setattr(depths, "NAMED", 1)
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        own = RunningStore(Path(folder))
        await asyncio.to_thread(own.start)
        try:
            for _tenant in range(2):
                async with run_gateway(own.url) as gateway:
                    await queue_runs(gateway, "vitals-a", 2)
                    await queue_runs(gateway, "vitals-b", 1)
            async with connect(own.url) as link:
                measured = Depths(IndexStore(link, link, feed_entries=100), QueueStore(link))
                await measured.measure(now_us=time.time_ns() // 1_000 + 60_000_000)
            assert sample("gateway_queue_waiting", queue="vitals-a") == 4
            assert sample("gateway_queue_waiting", queue=OTHERS) == 2
            assert 60 <= sample("gateway_queue_oldest_seconds", queue="vitals-a") < 60 + PATIENCE_S * 4
            assert sample("gateway_queue_held", queue="vitals-a") == 0
        finally:
            await asyncio.to_thread(own.stop)


async def queue_runs(gateway: RunningGateway, queue: str, count: int) -> None:
    """Create queued runs."""
    answer = await gateway.client.put(f"/v1/agents/{queue}", json={"queue": queue})
    assert answer.status_code in (200, 201), answer.text
    for _ in range(count):
        answer = await gateway.client.post("/v1/runs", json={"agent_id": queue, "mode": "queued"})
        assert answer.status_code == 201, answer.text
