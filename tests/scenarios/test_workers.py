"""Two processes serve one port over one store."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from tests.scenarios.claims import check_all
from tests.scenarios.crowd import gather
from tests.scenarios.pinned import pin_clients
from tests.support.processes import GatewayProcess, lives, serving
from tests.support.readers import SseReader
from tests.support.running import wait_until
from tests.support.writers import Writer, create_run, log_event

pytestmark = pytest.mark.anyio

BATCHES = 100
READERS = 8
MOST_READERS = 200
EVENTS_BETWEEN = 150


async def test_what_is_appended_through_one_process_is_live_in_the_other(data_dir: Path) -> None:
    """Readers and writers of a run need not meet in one process: all get everything, in one order."""
    async with serving(data_dir, workers=2) as gateway, pin_clients(gateway) as clients:
        run_id = await create_run(next(iter(clients.values())))
        writers = [Writer(client, run_id, f"w{pid}") for pid, client in clients.items()]
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            readers = await connect_readers(gateway, run_id, tasks)
            for _ in range(BATCHES):
                await asyncio.gather(*(writer.append(1) for writer in writers))
            # One writer's event is with all readers before the next is written.
            for writer in writers:
                await writer.append(1)
                head = max(writer.acknowledged)
                await asyncio.gather(*(reader.transcript.reaches(head, timeout_s=5) for reader in readers))
            await writers[0].complete()
        await check_all(next(iter(clients.values())), run_id, writers, [reader.transcript for reader in readers])
        assert [reader.attempts for reader in readers] == [1] * len(readers)


async def connect_readers(gateway: GatewayProcess, run_id: str, tasks: asyncio.TaskGroup) -> list[SseReader]:
    """Have readers read in `tasks`, at least `READERS` and as many as it takes for each process to serve some."""
    readers: list[SseReader] = []
    served_by: set[int] = set()
    while len(readers) < READERS or len(served_by) < gateway.workers:
        assert len(readers) < MOST_READERS, "not every worker takes readers"
        reader = SseReader(gateway.url, gateway.key, run_id, silence_s=5)
        readers.append(reader)
        tasks.create_task(reader.run())
        await reader.transcript.reaches(1)
        served_by.add(gateway.worker_of(reader.local_port))
    return readers


async def test_a_killed_worker_is_replaced(data_dir: Path) -> None:
    """After kill -9 of one process the other goes on, a third takes its place, and nothing is lost."""
    async with serving(data_dir, workers=2) as gateway:
        pid = gateway.pid
        async with gather(gateway, writers=6, readers=3) as crowd:
            for _ in range(2):
                await crowd.grows(EVENTS_BETWEEN)
                victim = gateway.serving_workers()[0]
                victim.kill()
                await wait_until(lambda: not lives(victim))  # noqa: B023 - awaited at once
                await crowd.grows(EVENTS_BETWEEN)
                await wait_until(lambda: len(gateway.serving_workers()) == 2, timeout_s=20)
            async with pin_clients(gateway) as clients:
                assert len(clients) == 2
        assert gateway.pid == pid


async def test_both_processes_survive_their_store(data_dir: Path) -> None:
    """The store's death is noticed and mended, and the readers and writers of both processes go on."""
    async with serving(data_dir, workers=2) as gateway:
        workers = set(gateway.serving_workers())
        async with gather(gateway, writers=6, readers=3) as crowd:
            for _ in range(2):
                await crowd.grows(EVENTS_BETWEEN)
                await gateway.kill_store()
            await crowd.grows(EVENTS_BETWEEN)
        assert set(gateway.serving_workers()) == workers
        assert [reader.attempts for reader in crowd.bare] == [1] * 6


async def test_nothing_outlives_a_killed_parent(data_dir: Path) -> None:
    """After kill -9 of the parent its workers and its store end, and a new start has all the data at once."""
    async with serving(data_dir, workers=2) as gateway:
        async with gather(gateway, writers=6, readers=2) as crowd:
            for _ in range(2):
                await crowd.grows(EVENTS_BETWEEN)
                orphans = gateway.family()
                assert len(orphans) == 4
                await gateway.kill()
                await wait_until(lambda: not any(map(lives, orphans)), timeout_s=10)  # noqa: B023 - awaited at once
                await gateway.start()
            await crowd.grows(EVENTS_BETWEEN)
        assert await gateway.stop() == 0


async def test_a_start_right_after_a_kill_needs_no_pause(data_dir: Path) -> None:
    """A supervisor that starts the gateway again the moment it was killed gets one that works, with all the data."""
    async with serving(data_dir, workers=2) as gateway, gather(gateway, writers=4) as crowd:
        for _ in range(2):
            await crowd.grows(EVENTS_BETWEEN)
            await gateway.kill()
            await gateway.start()
        await crowd.grows(EVENTS_BETWEEN)


ANSWERS = 30


async def test_one_answer_wins_across_processes(data_dir: Path) -> None:
    """Of many answers at once through both processes one is recorded; the others learn its seq."""
    async with serving(data_dir, workers=2) as gateway, pin_clients(gateway) as clients, AsyncExitStack() as stack:
        first = next(iter(clients.values()))
        answering = [await stack.enter_async_context(gateway.client()) for _ in range(ANSWERS)]
        for client in answering:
            await client.get("/healthz")
        for _ in range(5):
            run_id = await create_run(first)
            writer = Writer(first, run_id, "w")
            reply = await writer.send([log_event("w-1"), ask("Which one?")])
            (request_id,) = reply["request_ids"]
            answers = await asyncio.gather(
                *(answer(client, run_id, request_id, number) for number, client in enumerate(answering))
            )
            won = [number for number, reply in enumerate(answers) if reply.status_code == 200]
            assert len(won) == 1, [reply.text for reply in answers]
            seq = answers[won[0]].json()["seq"]
            problems = [reply.json() for reply in answers if reply.status_code != 200]
            assert {(p["status"], p["code"], p["seq"]) for p in problems} == {(409, "already_answered", seq)}
            events = (await first.get(f"/v1/runs/{run_id}/events")).json()["data"]
            received = [event for event in events if event["type"] == "run.input_received"]
            assert [(event["seq"], event["data"]["content"]) for event in received] == [(seq, {"from": won[0]})]
            assert (await first.get(f"/v1/runs/{run_id}")).json()["status"] == "running"


def ask(prompt: str) -> dict[str, object]:
    """Return an event that asks."""
    return {"type": "run.waiting_for_input", "data": {"prompt": prompt}}


async def answer(client: httpx.AsyncClient, run_id: str, request_id: str, number: int) -> httpx.Response:
    """Answer a question."""
    body = {"request_id": request_id, "content": {"from": number}}
    return await client.post(f"/v1/runs/{run_id}/input", json=body)


async def test_writers_that_start_a_run_together_all_start_it(data_dir: Path) -> None:
    """Of many first appends at once one starts the run, and the others are its next events."""
    async with serving(data_dir, workers=2) as gateway, pin_clients(gateway) as clients:
        first, second = clients.values()
        for _ in range(20):
            run_id = await create_run(first)
            writers = [Writer((first, second)[i % 2], run_id, f"w{i}") for i in range(8)]
            await asyncio.gather(*(writer.append(2) for writer in writers))
            await writers[0].complete()
            reader = SseReader(gateway.url, gateway.key, run_id)
            await reader.run()
            await check_all(first, run_id, writers, [reader.transcript])
