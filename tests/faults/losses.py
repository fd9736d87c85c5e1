"""Stores that forget what they acknowledged, run out of room, or tell another time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.faults.bench import GATEWAY_CLOCK, STORE_CLOCK, Bench, put_clock
from tests.faults.crew import Crew
from tests.faults.deaths import busiest, frozen
from tests.support.copies import Copies, cut_short
from tests.support.readers import SseReader
from tests.support.running import wait_until
from tests.support.transcripts import Transcript

EVENTS = 40
LOST_BYTES = 20_000
STORE_ENDED = "the embedded store ended"
MIB = 1024 * 1024
CLOCK_STEPS_S = (90, -90, 7200, -7200)
SLOW_READERS = 30
ROOM_MIB = 96
DEATHS_S = 90.0
"""How long three deaths of a store may take that is started again with pauses, on a busy machine."""

BALLAST_PIECE = 64 * 1024


async def restore_copy(bench: Bench, crew: Crew) -> None:
    """Kill the store and start it with an older copy of its files."""
    copies = Copies(bench.the_store.folder)
    await crew.grows(EVENTS)
    copies.take()
    await crew.grows(EVENTS)
    await crew.catches_up()
    bench.the_store.kill()
    copies.restore()
    copies.forget()
    await bench.start_store()
    await crew.grows(EVENTS)


async def restore_under_frozen_worker(bench: Bench, crew: Crew) -> None:
    """Have the store fall back, and its log grow past where it was, while a worker is frozen: it wakes up with events
    in memory that never were."""
    copies = Copies(bench.the_store.folder)
    await crew.grows(EVENTS)
    copies.take()
    await crew.grows(EVENTS)
    await crew.catches_up()
    with frozen(busiest(bench)):
        bench.the_store.kill()
        copies.restore()
        copies.forget()
        await bench.start_store()
        await crew.grows(3 * EVENTS)
    await crew.grows(EVENTS)


async def truncate_file(bench: Bench, crew: Crew) -> None:
    """Kill the store and start it without the last bytes of its append-only file."""
    await crew.grows(EVENTS)
    await crew.catches_up()
    bench.the_store.kill()
    cut_short(bench.the_store.folder, random.randrange(LOST_BYTES // 4, LOST_BYTES))
    await bench.start_store()
    await crew.grows(EVENTS)


async def fill_memory(bench: Bench, crew: Crew) -> None:
    """Give the store no more memory than it has, until appends are refused; then let it have more."""
    assert bench.the_store.ask("CONFIG SET maxmemory 1").startswith("+OK")
    try:
        await crew.suffers(len(crew.writers))
        await is_told_why(crew)
        await stays_ready(bench)
    finally:
        bench.the_store.ask("CONFIG SET maxmemory 0")
    await crew.grows(EVENTS)


async def is_told_why(crew: Crew) -> None:
    """Wait until every writer was told that nothing is written, by a 503."""
    told = ("not_written", 503)
    await wait_until(lambda: all(told in writer.failures for writer in crew.writers), timeout_s=30)


async def fill_disk(bench: Bench, crew: Crew) -> None:
    """Fill the disk under the store's files until appends fail, and free it again; no worker dies of it.

    A store that the gateway started ends over and over for as long as the disk is full.
    """
    ended = bench.the_gateway.log.count(STORE_ENDED)
    workers = {worker.pid for worker in bench.the_gateway.serving_workers()}
    with full(bench.folder / "disk"):
        await crew.suffers(len(crew.writers))
        if bench.store is not None:
            await is_told_why(crew)
            await stays_ready(bench)
        else:
            await wait_until(lambda: bench.the_gateway.log.count(STORE_ENDED) > ended + 2, timeout_s=DEATHS_S)
    await crew.grows(EVENTS)
    assert workers == {worker.pid for worker in bench.the_gateway.serving_workers()}


async def stays_ready(bench: Bench) -> None:
    """A gateway whose store takes no writes is ready: logs can be read."""
    async with bench.direct.client(5) as client:
        assert (await client.get("/readyz")).status_code == 200


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Leave no room on a disk during the block."""
    ballast = disk / "ballast"
    try:
        with ballast.open("wb", buffering=0) as out:
            for piece in (BALLAST_PIECE, 1):
                try:
                    while out.write(b"x" * piece):
                        pass
                except OSError:
                    continue
        yield
    finally:
        ballast.unlink()


async def step_clocks(bench: Bench, crew: Crew) -> None:
    """Put the store's clock, then the gateway's, forward and back, by 90 s and by two hours."""
    for clock in (STORE_CLOCK, GATEWAY_CLOCK):
        offset_s = 0
        for step_s in CLOCK_STEPS_S:
            offset_s += step_s
            put_clock(bench.folder / clock, offset_s)
            await crew.grows(EVENTS)


async def crowd_memory(bench: Bench, crew: Crew) -> None:
    """Allow each worker 96 MiB more than it has, and let thirty readers sleep through everything."""
    before = [(worker, worker.memory_info().vms) for worker in bench.the_gateway.serving_workers()]
    for worker, vms in before:
        worker.rlimit(psutil.RLIMIT_AS, (vms + ROOM_MIB * MIB, psutil.RLIM_INFINITY))
    sleepers = [
        SseReader(
            bench.client_hop.url,
            bench.direct.key,
            crew.run_id,
            silence_s=60,
            small_buffer=True,
            transcript=Transcript(strict=False),
        )
        for _ in range(SLOW_READERS)
    ]
    for reader in sleepers:
        crew.add_reader(reader)
        await reader.transcript.reaches(1)
        reader.awake.clear()
    await crew.grows(10 * EVENTS)
    for reader in sleepers:
        reader.awake.set()
    await crew.catches_up()
    lived = {worker.pid for worker in bench.the_gateway.serving_workers()}
    assert {worker.pid for worker, _ in before} <= lived, "a worker ran out of memory"
    for worker, _ in before:
        worker.rlimit(psutil.RLIMIT_AS, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))
