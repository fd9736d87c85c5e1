"""Readers that keep their connection and stop reading from it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest

from tests.scenarios.claims import check_all
from tests.support.processes import GatewayProcess, serving
from tests.support.readers import ClientReader, Reader, SseReader, WebSocketReader
from tests.support.writers import Writer, create_run

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
EVENT_BYTES = 1024
BATCH = 200
WARM_EVENTS = 4_000
SAMPLE_S = 0.02
KEEPALIVE_S = 60  # a WebSocket that answers no ping is closed


class Memory:
    """The most memory that a process has held while the block ran, in bytes."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._task: asyncio.Task[None] | None = None
        self.most_bytes = 0

    @property
    def now_bytes(self) -> int:
        """What it holds now."""
        rss: int = self._process.memory_info().rss
        return rss

    async def __aenter__(self) -> Memory:
        self._task = asyncio.create_task(self._sample())
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _sample(self) -> None:
        while True:
            self.most_bytes = max(self.most_bytes, self.now_bytes)
            await asyncio.sleep(SAMPLE_S)


async def test_readers_that_sleep_through_a_run_cost_little_and_miss_nothing(data_dir: Path) -> None:
    """Twenty readers that do not read for 20,000 events cost bounded memory and slow nobody; awake, they get all."""
    async with serving(data_dir, keepalive_s=KEEPALIVE_S) as gateway:
        await sleep_through(gateway, sleepers=20, events=20_000, allowed_bytes=30 * MIB)


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_many_readers_that_sleep_for_long(data_dir: Path) -> None:
    """The same with more of both: what sleepers cost does not grow with the log."""
    async with serving(data_dir, keepalive_s=KEEPALIVE_S) as gateway:
        await sleep_through(gateway, sleepers=30, events=60_000, allowed_bytes=30 * MIB)


async def sleep_through(gateway: GatewayProcess, *, sleepers: int, events: int, allowed_bytes: int) -> None:
    """Write a run that some read and others sleep through, then wake these."""
    async with gateway.client() as client:
        run_id = await create_run(client)
        writer = Writer(client, run_id, "w", padding_bytes=EVENT_BYTES)
        awake: list[Reader] = [
            SseReader(gateway.url, gateway.key, run_id),
            WebSocketReader(gateway.url, gateway.key, run_id),
            ClientReader(gateway.url, gateway.key, run_id),
        ]
        kinds = (SseReader, WebSocketReader)
        asleep = [
            kinds[index % 2](gateway.url, gateway.key, run_id, silence_s=120, small_buffer=True)
            for index in range(sleepers)
        ]
        async with asyncio.timeout(1500), asyncio.TaskGroup() as tasks:
            for reader in awake:
                tasks.create_task(reader.run())
            await write(writer, WARM_EVENTS, awake)
            memory = Memory(gateway.pid)
            baseline_bytes = memory.now_bytes
            async with memory:
                for reader in asleep:
                    tasks.create_task(reader.run())
                    await reader.transcript.reaches(1)
                    reader.awake.clear()
                await write(writer, events - WARM_EVENTS, awake)
                await writer.complete()
            slept_through = [reader.transcript.seqs[-1] for reader in asleep]
            for reader in asleep:
                reader.awake.set()
        transcripts = [reader.transcript for reader in (*awake, *asleep)]
        assert await check_all(client, run_id, [writer], transcripts) > events
    assert max(slept_through) < WARM_EVENTS
    grown_bytes = memory.most_bytes - baseline_bytes
    print(
        f"baseline {baseline_bytes / MIB:.0f} MiB, grown by {grown_bytes / MIB:.1f} MiB, "
        f"slept from {sorted(slept_through)}, connections {sum(reader.attempts for reader in asleep)}"
    )
    assert grown_bytes < allowed_bytes


async def write(writer: Writer, events: int, awake: list[Reader]) -> None:
    """Append events; whoever is awake has each batch before the one after the next is written."""
    for _ in range(events // BATCH):
        before = max(writer.acknowledged, default=0)
        await writer.append(BATCH)
        await asyncio.gather(*(reader.transcript.reaches(before, timeout_s=5) for reader in awake if before))
