"""A cluster of three primaries: runs in all slots, wherever these are and while they move."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from ulid import ULID

from tests.support.clusters import Cluster, run_cluster, slot_of_run
from tests.support.native import accepted
from tests.support.readers import SseReader
from tests.support.running import RunningGateway, run_gateway
from tests.support.transcripts import Transcript, read_log

pytestmark = pytest.mark.anyio

RUNS = 24


@pytest.fixture(scope="module")
async def cluster(anyio_backend: object) -> AsyncIterator[Cluster]:
    """Three primaries without replicas."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        async with run_cluster(Path(folder)) as cluster:
            yield cluster


@pytest.fixture
async def gateways(cluster: Cluster) -> AsyncIterator[list[RunningGateway]]:
    """Two gateways over it, of one tenant."""
    tenant = f"t{ULID()}"
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(run_gateway(cluster.url, tenant=tenant)) for _ in range(2)]


async def test_runs_of_all_nodes_are_written_at_one_gateway_and_read_live_at_another(
    cluster: Cluster, gateways: list[RunningGateway]
) -> None:
    """Whatever node has a run: its log is dense, and each event reaches readers elsewhere as it is written."""
    here, there = gateways
    runs = [(await here.create_run())["id"] for _ in range(RUNS)]
    assert {(await cluster.owner(slot_of_run(run))).port for run in runs} == {node.port for node in cluster.primaries}
    readers = [SseReader(there.url, there.key, run, transcript=Transcript()) for run in runs]
    async with asyncio.TaskGroup() as reading:
        for reader in readers:
            reading.create_task(reader.run())
        for number in range(5):
            for run in runs:
                accepted(await here.append(run, ("log", {"level": "info", "message": str(number)})))
        for reader in readers:
            await reader.transcript.reaches(8, timeout_s=2)
        for run in runs:
            accepted(await here.append(run, ("run.completed", {"output": None})))
    for run, reader in zip(runs, readers, strict=True):
        log = await read_log(here.client, run)
        assert [seq for seq, _ in log] == list(range(1, len(log) + 1))
        assert reader.transcript.seqs == [seq for seq, _ in log]
    listed = accepted(await there.client.get("/v1/runs", params={"status": "completed", "limit": 100}))["data"]
    assert {run["id"] for run in listed} == set(runs)
