"""Processes that die or freeze: of the gateway, the store, and whoever writes and reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import psutil

from tests.faults.bench import Bench
from tests.faults.crew import Crew
from tests.faults.members import Member
from tests.faults.network import cut_answers, cut_requests
from tests.support.running import wait_until

EVENTS = 40
LINES = 30
WORKERS_S = 30.0


@contextmanager
def frozen(process: psutil.Process) -> Iterator[None]:
    """Keep a process from running during the block."""
    process.suspend()
    try:
        yield
    finally:
        process.resume()


async def kill_worker(bench: Bench, crew: Crew) -> None:
    """SIGKILL the worker with the most connections; its supervisor starts another."""
    busiest(bench).kill()
    await crew.grows(EVENTS)
    await all_workers(bench)


async def freeze_worker(bench: Bench, crew: Crew) -> None:
    """SIGSTOP the worker with the most connections until appends fail and others go on; then let it go on."""
    with frozen(busiest(bench)):
        await crew.suffers()
        await crew.grows(EVENTS)
    await crew.grows(EVENTS)


async def drain(bench: Bench, crew: Crew) -> None:
    """SIGTERM the gateway, which drains, and start it again."""
    await bench.the_gateway.stop()
    await bench.the_gateway.start()
    await crew.grows(EVENTS)


async def kill_supervisor(bench: Bench, crew: Crew) -> None:
    """SIGKILL the parent of all workers, and start the gateway again."""
    await bench.the_gateway.kill()
    await bench.the_gateway.start()
    await crew.grows(EVENTS)


async def freeze_supervisor(bench: Bench, crew: Crew) -> None:
    """SIGSTOP the parent and kill one of its workers: the other serves alone until the parent goes on."""
    with frozen(psutil.Process(bench.the_gateway.pid)):
        busiest(bench).kill()
        await crew.grows(EVENTS)
    await all_workers(bench)
    await crew.grows(EVENTS)


async def kill_store(bench: Bench, crew: Crew) -> None:
    """SIGKILL the store until appends fail, and start it again with all that it had."""
    bench.the_store.kill()
    try:
        await crew.suffers()
    finally:
        await bench.start_store()
    await crew.grows(EVENTS)


async def freeze_store(bench: Bench, crew: Crew) -> None:
    """SIGSTOP the store until appends fail; then it does what it was asked, and what it is asked again."""
    with frozen(psutil.Process(bench.the_store.pid)):
        await crew.suffers(len(crew.writers))
    await crew.grows(EVENTS)


async def kill_writer(bench: Bench, crew: Crew) -> None:
    """SIGKILL a writer in mid-append, three times; it goes on from what it had noted."""
    async with joined(bench, crew, "writer") as writer:
        for _ in range(3):
            await writer.advances(LINES)
            await writer.kill()
            writer.start()


async def freeze_writer(bench: Bench, crew: Crew) -> None:
    """SIGSTOP a writer while others write on."""
    async with joined(bench, crew, "writer") as writer:
        with frozen(writer.process):
            await crew.grows(EVENTS)


async def kill_reader(bench: Bench, crew: Crew) -> None:
    """SIGKILL a reader, three times; it goes on from the last event that it had noted."""
    async with joined(bench, crew, "reader") as reader:
        for _ in range(3):
            await reader.advances(LINES)
            await reader.kill()
            reader.start()


async def freeze_reader(bench: Bench, crew: Crew) -> None:
    """SIGSTOP a reader while writers write on; awake, it gets all that it missed."""
    async with joined(bench, crew, "reader") as reader:
        with frozen(reader.process):
            await crew.grows(EVENTS)


@asynccontextmanager
async def joined(bench: Bench, crew: Crew, role: str) -> AsyncIterator[Member]:
    """Have a process join the crew, at work before and after the block."""
    path = bench.folder / f"{role}{crew.run_id}.jsonl"
    member = Member(role, bench.client_hop.url, bench.direct.key, crew.run_id, path)
    crew.members.append(member)
    member.start()
    await member.advances(LINES)
    yield member
    await member.advances(LINES)


def busiest(bench: Bench) -> psutil.Process:
    """Return the worker process with the most connections."""
    workers = bench.the_gateway.serving_workers()
    return max(workers, key=lambda process: len(process.net_connections("tcp4")))


async def all_workers(bench: Bench) -> None:
    """Wait until as many workers live as should."""
    gateway = bench.the_gateway
    await wait_until(lambda: len(gateway.serving_workers()) == gateway.workers, timeout_s=WORKERS_S)


async def all_at_once(bench: Bench, crew: Crew) -> None:
    """Cut connections on both hops while a worker and then the store die."""
    async with asyncio.TaskGroup() as blows:
        blows.create_task(cut_answers(bench.client_hop, crew))
        blows.create_task(cut_requests(bench.the_store_hop, crew))
        blows.create_task(kill_worker(bench, crew))
        blows.create_task(kill_store(bench, crew))
