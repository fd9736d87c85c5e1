"""Whatever dies in between, every queued run is executed as its policy says and ends exactly once."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.domain.lifecycle import ENDINGS, TERMINAL
from tests.support.processes import GatewayProcess, lives, serving
from tests.support.running import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]

QUEUE = "storm"
ATTEMPTS = 12
WORKERS = 4
KILL_S = 1.0
WRITTEN = {"message.delta", "checkpoint.created", "run.completed"}


class Hands:
    """Worker processes, replaced as they are killed."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self._arguments = [gateway.url, gateway.key, QUEUE]
        self._processes: list[subprocess.Popen[bytes]] = []
        self.killed = 0

    def start(self) -> None:
        """Start one more."""
        command = [sys.executable, "-m", "tests.scenarios.hasty_worker", *self._arguments]
        self._processes.append(subprocess.Popen(command))

    def kill_one(self) -> None:
        """End one without warning, and start another in its place."""
        victim = self._processes.pop(random.randrange(len(self._processes)))
        assert victim.poll() is None, "a worker ended by itself"
        victim.kill()
        victim.wait()
        self.killed += 1
        self.start()

    def stop(self) -> None:
        """End all."""
        for process in self._processes:
            process.kill()
            process.wait()


@asynccontextmanager
async def storming(gateway: GatewayProcess) -> AsyncIterator[Hands]:
    """Have four workers work, one of which dies every second."""
    hands = Hands(gateway)

    async def kill() -> None:
        while True:
            await asyncio.sleep(KILL_S)
            hands.kill_one()

    for _ in range(WORKERS):
        hands.start()
    killing = asyncio.create_task(kill())
    try:
        yield hands
    finally:
        killing.cancel()
        with suppress(asyncio.CancelledError):
            await killing
        hands.stop()


async def post(client: httpx.AsyncClient, path: str, body: Any, key: str) -> Any:
    """Post until it is answered."""
    while True:
        with suppress(httpx.TransportError):
            answer = await client.post(path, json=body, headers={"idempotency-key": key})
            if answer.status_code != 503:
                assert answer.status_code in (200, 201), answer.text
                return answer.json()
        await asyncio.sleep(0.05)


async def create(client: httpx.AsyncClient, numbers: range) -> list[str]:
    """Create queued runs, each once, whatever happens meanwhile."""
    retry = {"max_attempts": ATTEMPTS, "initial_delay_s": 0.05, "backoff": "fixed"}
    about = {"agent_id": "hasty", "mode": "queued", "queue": QUEUE, "retry": retry}
    room = asyncio.Semaphore(16)

    async def one(number: int) -> str:
        async with room:
            run_id: str = (await post(client, "/v1/runs", {**about, "input": {"number": number}}, f"n{number}"))["id"]
            return run_id

    return list(await asyncio.gather(*map(one, numbers)))


async def count_live(client: httpx.AsyncClient) -> int:
    """Return whether any run has not ended, as the lists see it."""
    with suppress(httpx.TransportError):
        live = ["delayed", "queued", "dequeued", "running", "waiting_for_input", "paused", "cancelling"]
        answer = await client.get("/v1/runs", params={"status": live, "limit": 1})
        if answer.status_code == 200:
            return len(answer.json()["data"])
    return 1


async def read_all(client: httpx.AsyncClient, run_id: str) -> list[dict[str, Any]]:
    """Return a run's whole log."""
    answer = await client.get(f"/v1/runs/{run_id}/events", params={"limit": 1000})
    page = answer.json()
    assert not page["has_more"]
    events: list[dict[str, Any]] = page["data"]
    return events


def check_log(run: dict[str, Any], log: list[dict[str, Any]]) -> None:
    """Dense; one end, at the end; no attempt beyond the policy; nobody writes once the run was taken from them."""
    assert [event["seq"] for event in log] == list(range(1, len(log) + 1))
    ends = [event for event in log if event["type"] in ENDINGS]
    assert len(ends) == 1
    assert ends[0] is log[-1]
    assert run["status"] in TERMINAL
    assert run["attempt"] <= ATTEMPTS
    holder: str | None = None
    spent: set[str | None] = set()
    for event in log:
        if event["type"] in ("run.dequeued", "run.attempt_failed", "run.released"):
            spent.add(holder)
            holder = None
        elif event["type"] in WRITTEN:
            data = event["data"]
            mark = data.get("content") or data.get("source") or data["output"]["holder"]
            assert mark not in spent, f"{mark} wrote event {event['seq']} after it was fenced"
            assert holder in (None, mark)
            holder = mark
    starts = [event["data"]["attempt"] for event in log if event["type"] == "run.started"]
    assert starts == sorted(set(starts)), "an attempt was started twice"


async def check_every_run(gateway: GatewayProcess, run_ids: list[str]) -> Counter[str]:
    """Check every run's log; returns how they ended."""
    endings: Counter[str] = Counter()
    room = asyncio.Semaphore(16)
    async with gateway.client(timeout=60) as client:

        async def check(run_id: str) -> None:
            async with room:
                run = (await client.get(f"/v1/runs/{run_id}")).json()
                check_log(run, await read_all(client, run_id))
                endings[run["status"]] += 1

        await asyncio.gather(*map(check, run_ids))
    return endings


async def weather(gateway: GatewayProcess) -> None:
    """Kill a gateway process, the store, and the whole gateway, one after the other."""
    await asyncio.sleep(2)
    victim = gateway.serving_workers()[0]
    victim.kill()
    await wait_until(lambda: not lives(victim) and len(gateway.serving_workers()) == gateway.workers, timeout_s=30)
    await asyncio.sleep(2)
    await gateway.kill_store()
    await asyncio.sleep(3)
    await gateway.kill()
    await gateway.start()


@pytest.mark.parametrize("runs", [2_000])
async def test_every_run_is_executed_whatever_dies(data_dir: Path, runs: int) -> None:
    """Four workers of which one dies every second, two gateway processes and a store that die as well."""
    async with serving(data_dir, workers=2, lease_s=2) as gateway:
        async with gateway.client() as client, storming(gateway) as hands, asyncio.TaskGroup() as tasks:
            making = tasks.create_task(create(client, range(runs)))
            tasks.create_task(weather(gateway))
            run_ids = await making

            async def is_over() -> bool:
                return await count_live(client) == 0

            await wait_until(is_over, timeout_s=400)
        assert len(set(run_ids)) == runs
        endings = await check_every_run(gateway, run_ids)
        print(f"{runs} runs, {hands.killed} workers killed: {dict(endings)}")
        assert endings.total() == runs
        assert endings["completed"] > 0.9 * runs
