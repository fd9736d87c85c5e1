"""Runs are created and ended while the gateway and its store die; lists and the feed must not lose one."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.scenarios.many_readers import FeedReader
from tests.support.processes import serving
from tests.support.running import wait_until
from tests.support.writers import REPEAT_S, Writer

pytestmark = pytest.mark.anyio

CREATORS = 4
KILLS = 2
RUNS_BETWEEN = 12
RECONCILED_S = 30.0


class Creator:
    """Creates runs, each under a key of its own and ended at once; `run_ids` by key."""

    def __init__(self, client: httpx.AsyncClient, name: str) -> None:
        self.run_ids: dict[str, str] = {}
        self.repeats = 0
        self.stopping = False
        self._client = client
        self._name = name

    async def run(self) -> None:
        """Create and end runs until told to stop."""
        while not self.stopping:
            key = f"{self._name}-{len(self.run_ids)}"
            run_id = await self.create(key)
            writer = Writer(self._client, run_id, self._name)
            await writer.append(1)
            await writer.complete()
            self.run_ids[key] = run_id

    async def create(self, key: str) -> str:
        """Create a run under a key, again until it is answered."""
        body = {"agent_id": "tester", "mode": "direct", "title": key}
        while True:
            try:
                answer = await self._client.post("/v1/runs", json=body, headers={"idempotency-key": key})
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code != 503:
                assert answer.status_code == 201, answer.text
                run_id: str = answer.json()["id"]
                return run_id
            self.repeats += 1
            await asyncio.sleep(REPEAT_S)


async def test_no_run_is_lost_or_made_twice(data_dir: Path) -> None:
    """One run a key however often it was asked for, every run in the lists, and its end in the feed."""
    async with serving(data_dir) as gateway, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(gateway.client()) for _ in range(CREATORS)]
        creators = [Creator(client, f"c{index}") for index, client in enumerate(clients)]
        feed = FeedReader(gateway.url, gateway.key, silence_s=5)

        def created() -> dict[str, str]:
            return {key: run_id for creator in creators for key, run_id in creator.run_ids.items()}

        async def grow() -> None:
            wanted = len(created()) + RUNS_BETWEEN
            await wait_until(lambda: len(created()) >= wanted, timeout_s=30)

        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(feed.run())
            async with asyncio.TaskGroup() as creating:
                for creator in creators:
                    creating.create_task(creator.run())
                for _ in range(KILLS):
                    await grow()
                    await gateway.kill()
                    await gateway.start()
                    await grow()
                    await gateway.kill_store()
                await grow()
                for creator in creators:
                    creator.stopping = True
            await wait_until(
                lambda: all(feed.changes[run_id][-1:] == ["completed"] for run_id in created().values()),
                timeout_s=RECONCILED_S,
            )
            reading.cancel()

        client, runs = clients[0], created()
        assert len(set(runs.values())) == len(runs)
        for status in (None, "completed"):
            listed = await list_runs(client, status)
            assert Counter(run["id"] for run in listed) == Counter(runs.values())
            assert {run["title"]: run["id"] for run in listed} == runs
        for status in ("queued", "running"):
            assert await list_runs(client, status) == []
        for creator in creators:
            key, run_id = next(iter(creator.run_ids.items()))
            assert await creator.create(key) == run_id
        print(f"{len(runs)} runs, {sum(creator.repeats for creator in creators)} creations repeated")


async def list_runs(client: httpx.AsyncClient, status: str | None) -> list[dict[str, Any]]:
    """Return all runs of a status, page by page."""
    params: dict[str, Any] = {"limit": 50} | ({"status": status} if status else {})
    runs: list[dict[str, Any]] = []
    while True:
        page = (await client.get("/v1/runs", params=params)).json()
        runs += page["data"]
        if not page["has_more"]:
            return runs
        params["cursor"] = page["next_cursor"]
