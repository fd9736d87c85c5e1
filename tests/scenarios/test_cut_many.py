"""Connections that carry several runs, cut again and again while the runs are written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.scenarios.claims import check_dense, check_written
from tests.scenarios.many_readers import FeedReader, ManyReader, ManySocket, ManySse
from tests.support.processes import serving
from tests.support.proxy import Cut, Dooms, Proxy, lay_proxy
from tests.support.readers import SseReader
from tests.support.running import wait_until
from tests.support.transcripts import read_log
from tests.support.writers import Writer, create_run

pytestmark = pytest.mark.anyio

RUNS = 5
LATER_RUNS = 3
EVENTS = 1_500
BATCH = 25
CUTS = 40
SILENCE_S = 0.6
KEEPALIVE_S = 0.15
THREAD = "a-thread"

Make = Callable[[Proxy, str, list[str]], ManyReader]


def make_stream(proxy: Proxy, key: str, run_ids: list[str]) -> ManyReader:
    """Return a reader of named runs over one SSE stream."""
    path = "/v1/stream?" + "&".join(f"run={run_id}" for run_id in run_ids)
    return ManySse(proxy.url, key, path, wanted=len(run_ids), silence_s=SILENCE_S)


def make_thread(proxy: Proxy, key: str, run_ids: list[str]) -> ManyReader:
    """Return a reader of a thread's stream, which gets runs that are created later, too."""
    path = f"/v1/threads/{THREAD}/stream"
    return ManySse(proxy.url, key, path, wanted=len(run_ids) + LATER_RUNS, silence_s=SILENCE_S)


def make_socket(proxy: Proxy, key: str, run_ids: list[str]) -> ManyReader:
    """Return a reader of all runs over one WebSocket."""
    return ManySocket(proxy.url, key, run_ids, silence_s=SILENCE_S)


@pytest.mark.parametrize("make", [make_stream, make_thread, make_socket], ids=["stream", "thread", "ws"])
async def test_a_connection_of_many_runs_survives_every_cut(data_dir: Path, make: Make) -> None:
    """Whatever connection several runs share, each of them is read exactly once, in order, to its end."""
    dooms = Dooms(11, cuts=CUTS, most_bytes=60_000, most_s=0.2)
    async with (
        serving(data_dir, keepalive_s=KEEPALIVE_S) as gateway,
        gateway.client() as client,
        lay_proxy(gateway.port, choose=dooms) as proxy,
    ):
        run_ids = [await create_run(client, thread_id=THREAD) for _ in range(RUNS)]
        reader = make(proxy, gateway.key, run_ids)
        async with asyncio.timeout(90), asyncio.TaskGroup() as tasks:
            tasks.create_task(reader.run())
            async with asyncio.TaskGroup() as writing:
                for run_id in run_ids:
                    writing.create_task(write(client, proxy, run_id, CUTS // 2))
            if make is make_thread:
                run_ids += [await create_run(client, thread_id=THREAD) for _ in range(LATER_RUNS)]
            async with asyncio.TaskGroup() as writing:
                for run_id in run_ids:
                    writing.create_task(write(client, proxy, run_id, CUTS, end=True))
        assert set(reader.transcripts) == set(run_ids)
        for run_id in run_ids:
            log = await read_log(client, run_id)
            check_dense(log)
            assert [(seen.seq, seen.mark) for seen in reader.transcripts[run_id].seen] == log
    assert proxy.cuts.total() == CUTS
    print(f"cuts {dict(proxy.cuts)}, connections {proxy.connections}")


async def write(client: httpx.AsyncClient, proxy: Proxy, run_id: str, cuts: int, *, end: bool = False) -> None:
    """Append events, so that the last is written about when `cuts` cuts have been made."""
    writer = Writer(client, run_id, f"{run_id}/{cuts}")
    for written in range(0, EVENTS // 2, BATCH):
        await proxy.wait_cuts(cuts - CUTS // 2 + written * CUTS // EVENTS - 2)
        await writer.append(BATCH)
    await proxy.wait_cuts(cuts)
    check_written(await read_log(client, run_id), writer)
    if end:
        await writer.complete()


async def test_the_feed_survives_every_cut(data_dir: Path) -> None:
    """Every change of every run's status comes once and in order, however often the feed is cut."""
    dooms = Dooms(12, cuts=CUTS, most_bytes=4_000, most_s=0.15)
    async with (
        serving(data_dir, keepalive_s=KEEPALIVE_S) as gateway,
        gateway.client() as client,
        lay_proxy(gateway.port, choose=dooms) as proxy,
        asyncio.timeout(90),
        asyncio.TaskGroup() as tasks,
    ):
        reader = FeedReader(proxy.url, gateway.key, silence_s=SILENCE_S)
        reading = tasks.create_task(reader.run())
        run_ids: list[str] = []
        while proxy.cuts.total() < CUTS:
            run_ids.append(await create_run(client))
            writer = Writer(client, run_ids[-1], "w")
            await writer.append(1)
            await writer.complete()
        whole = ["queued", "running", "completed"]
        await wait_until(lambda: [reader.changes.get(run_id) for run_id in run_ids] == [whole] * len(run_ids))
        reading.cancel()
        assert reader.seqs == list(range(1, len(reader.seqs) + 1))
        print(f"{len(run_ids)} runs, cuts {dict(proxy.cuts)}, connections {proxy.connections}")


async def test_all_readers_come_back_at_once(data_dir: Path) -> None:
    """When a balancer dies under two hundred readers and comes back, all of them resume exactly."""
    async with (
        serving(data_dir, keepalive_s=KEEPALIVE_S) as gateway,
        gateway.client() as client,
        lay_proxy(gateway.port) as proxy,
        asyncio.timeout(60),
    ):
        run_id = await create_run(client)
        writer = Writer(client, run_id, "w")
        readers = [SseReader(proxy.url, gateway.key, run_id) for _ in range(200)]
        async with asyncio.TaskGroup() as tasks:
            for reader in readers:
                tasks.create_task(reader.run())
            for how in (Cut.RESET, Cut.FIN):
                await writer.append(100)
                head = max(writer.acknowledged)
                await asyncio.gather(*(reader.transcript.reaches(head) for reader in readers))
                proxy.refuse()
                proxy.cut_all(how)
                await writer.append(100)
                await proxy.accept()
            await writer.complete()
        log = await read_log(client, run_id)
        check_written(log, writer)
        for reader in readers:
            assert [(seen.seq, seen.mark) for seen in reader.transcript.seen] == log
