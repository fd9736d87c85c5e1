"""Workers as processes: killed, frozen, stopped, cut off from a gateway that is started again."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from gateway.client import Client, Event
from tests.client.waits import SOON
from tests.client.worker.bench import end_of, read_log, read_texts, read_types, until_status
from tests.support.processes import GatewayProcess, serving
from tests.support.running import wait_until

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]
MODULE = "tests.client.worker.performers"
LEASE_S = 1.0


@pytest.fixture
async def gateway(tmp_path: Path, anyio_backend: object) -> AsyncIterator[GatewayProcess]:
    """A gateway that is a process, with short leases."""
    async with serving(tmp_path / "data", lease_s=LEASE_S) as process:
        yield process


@pytest.fixture
async def client(gateway: GatewayProcess) -> AsyncIterator[Client]:
    """A client of it."""
    async with Client(gateway.url, key=gateway.key, backoff=SOON) as opened:
        yield opened


@contextmanager
def worker(gateway: GatewayProcess, *agents: str, drain_s: float = 0.1) -> Iterator[subprocess.Popen[bytes]]:
    """Run `gateway worker` as a process for as long as the block lasts; what it says is in the gateway's folder."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    specs = [f"{MODULE}:{agent}" for agent in agents]
    with (gateway.data_dir.parent / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "worker", *specs, "--drain-s", str(drain_s)],
            env={**environ, "GATEWAY_URL": gateway.url, "GATEWAY_KEY": gateway.key},
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(20)


async def registered(client: Client, *agents: str) -> None:
    """Wait until a worker has registered these agents."""

    async def are_there() -> bool:
        return {agent.id async for agent in client.agents.list()} >= set(agents)

    await wait_until(are_there, timeout_s=20)


async def counted(client: Client, run_id: str, number: int) -> None:
    """Wait until a number was said."""

    async def was_said() -> bool:
        return f"{number} " in await read_texts(client, run_id)

    await wait_until(was_said, timeout_s=20)


async def test_a_frozen_worker_has_lost_its_run(gateway: GatewayProcess, client: Client, tmp_path: Path) -> None:
    """Woken after its lease it writes nothing more, and its handler is stopped; another worker ends the run."""
    notes = tmp_path / "notes"
    with worker(gateway, "counter") as frozen:
        await registered(client, "counter")
        about = {"notes": str(notes), "steps": 5, "saved": 3}
        run_id = (await client.runs.create("counter", mode="queued", input=about)).id
        await counted(client, run_id, 8)
        frozen.send_signal(signal.SIGSTOP)
        with worker(gateway, "counter"):
            run = await end_of(client, run_id)
            assert (run.status, run.attempt, run.output) == ("completed", 2, {"n": 8})
            frozen.send_signal(signal.SIGCONT)
            await wait_until(lambda: "attempt 1 stopped" in notes.read_text(), timeout_s=20)
            # It is well, and takes what comes next.
            more = (await client.runs.create("counter", mode="queued", input={**about, "endless": []})).id
            assert (await end_of(client, more)).status == "completed"
    log = await read_log(client, run_id)
    assert [event.type for event in log].count("log") == 0
    lost = next(event for event in log if event.type == "run.attempt_failed")
    assert lost.data["cause"] == "lease_lost"
    assert {event.attempt for event in log if event.seq > lost.seq + 1} == {2}


async def test_a_killed_workers_run_goes_on_from_its_checkpoint(
    gateway: GatewayProcess, client: Client, tmp_path: Path
) -> None:
    """The next attempt says what it supersedes: what was written after the last save."""
    notes = tmp_path / "notes"
    with worker(gateway, "counter") as killed:
        await registered(client, "counter")
        about = {"notes": str(notes), "steps": 5, "saved": 4}
        run_id = (await client.runs.create("counter", mode="queued", input=about)).id
        await counted(client, run_id, 10)
        killed.kill()
    with worker(gateway, "counter"):
        run = await end_of(client, run_id)
    assert (run.attempt, run.output) == (2, {"n": 9})
    assert notes.read_text().splitlines() == ["attempt 1 from 0", "attempt 2 from 4"]
    log = await read_log(client, run_id)
    saved = [event.seq for event in log if event.type == "checkpoint.created" and event.attempt == 1]
    begun = next(event for event in log if event.type == "run.attempt_started")
    first, last = begun.data["supersedes"]
    assert first == saved[-1] + 1
    assert log[last].type == "run.attempt_failed"
    assert {event.type for event in log[first - 1 : last]} == {"message.delta"}


async def test_every_run_ends_once_whatever_is_killed(gateway: GatewayProcess, client: Client) -> None:
    """Workers, killed at random and replaced: each run completes, and each step that was saved is done once."""
    chance = random.Random(3)
    with ExitStack() as stack:
        workers = [stack.enter_context(worker(gateway, "stepper")) for _ in range(2)]
        await registered(client, "stepper")
        run_ids = [(await client.runs.create("stepper", mode="queued")).id for _ in range(40)]
        for _ in range(6):
            await asyncio.sleep(chance.uniform(0.5, 1.5))
            index = chance.randrange(2)
            workers[index].kill()
            workers[index] = stack.enter_context(worker(gateway, "stepper"))
        runs = [await client.runs.wait(run_id, timeout_s=60) for run_id in run_ids]
    assert {(run.status, run.output) for run in runs} == {("completed", 10)}
    assert max(run.attempt for run in runs) > 1
    for run_id in run_ids:
        log = await read_log(client, run_id)
        assert [event.type for event in log].count("run.completed") == 1
        void: set[int] = set()
        for begun in (event for event in log if event.type == "run.attempt_started" and event.data.get("supersedes")):
            first, last = begun.data["supersedes"]
            void |= set(range(first, last + 1))
        said = [event.data["content"] for event in log if event.type == "message.delta" and event.seq not in void]
        assert said == [f"{number} " for number in range(10)]


async def test_a_gateway_that_is_started_again_is_not_noticed(
    gateway: GatewayProcess, client: Client, tmp_path: Path
) -> None:
    """Killed in the middle of a streaming run: every piece is there once, in order, in one attempt."""
    with worker(gateway, "talker"):
        run_id = (await client.runs.create("talker", mode="queued", input={"pieces": 1500}, lease_s=30)).id
        await counted(client, run_id, 50)
        await gateway.kill()
        await gateway.start()
        run = await end_of(client, run_id)
    assert (run.status, run.attempt) == ("completed", 1)
    assert await read_texts(client, run_id) == [f"{number} " for number in range(1500)]


async def test_another_worker_goes_on_after_the_answer(gateway: GatewayProcess, client: Client, tmp_path: Path) -> None:
    """The one that asked is gone; nothing is said twice, and no attempt is used up."""
    notes = tmp_path / "notes"
    with worker(gateway, "waiter"):
        run_id = (await client.runs.create("waiter", mode="queued", input={"notes": str(notes)})).id
        await wait_until_released(client, run_id)
    await client.runs.input(run_id, "yes")
    with worker(gateway, "waiter"):
        run = await end_of(client, run_id)
    assert (run.output, run.attempt) == ({"answer": "yes"}, 1)
    assert await read_texts(client, run_id) == ["Before. ", "After."]
    assert notes.read_text().splitlines() == ["begun", "begun"]


async def wait_until_released(client: Client, run_id: str) -> None:
    """Wait until a run that asked was let go."""

    async def is_released() -> bool:
        return "run.released" in await read_types(client, run_id, own=False)

    await wait_until(is_released, timeout_s=20)


async def test_a_stopped_worker_gives_its_runs_back(gateway: GatewayProcess, client: Client, tmp_path: Path) -> None:
    """SIGTERM: it ends in order, and others go on at once, long before the lease would have ended."""
    with worker(gateway, "counter") as stopped:
        await registered(client, "counter")
        about = {"notes": str(tmp_path / "notes"), "steps": 5, "saved": 0}
        run_id = (await client.runs.create("counter", mode="queued", input=about, lease_s=60)).id
        await counted(client, run_id, 3)
        stopped.send_signal(signal.SIGTERM)
        assert stopped.wait(20) == 0
    run = await until_status(client, run_id, "queued")
    assert (run.attempt, run.failed_attempts) == (1, 0)
    items = [item async for item in client.runs.log(run_id, types=["run.released"])]
    assert [item.data["reason"] for item in items if isinstance(item, Event)] == ["the worker stops"]
    assert "attempt 1 stopped" in (tmp_path / "notes").read_text()


async def test_an_idle_worker_ends_at_once(gateway: GatewayProcess, client: Client) -> None:
    """In the middle of its long poll."""
    with worker(gateway, "counter", drain_s=30) as idle:
        await registered(client, "counter")
        idle.send_signal(signal.SIGTERM)
        assert idle.wait(5) == 0


async def test_a_worker_waits_for_a_gateway_that_is_not_there_yet(
    gateway: GatewayProcess, client: Client, tmp_path: Path
) -> None:
    """Started first, it executes what comes once the gateway is there."""
    await gateway.stop()
    with worker(gateway, "talker"):
        await gateway.start()
        run_id = (await client.runs.create("talker", mode="queued", input={"pieces": 3})).id
        assert (await end_of(client, run_id)).output == 3
