"""Runs on any target, and how many events a reader of a new one has seen once the first append was delivered."""

from __future__ import annotations

import asyncio
import secrets

import httpx

from loadtest.targets import PARTS, Target
from loadtest.writers import event_body, number_body

# Created and queued, then started by the first append; the naive peer and the bare loop begin with two events.
FIRST_FRAMES = {"gateway": 4, "naive": 3, "loop": 3, **dict.fromkeys(PARTS, 3)}
AT_ONCE = 16
BATCH = 500


async def create_runs(target: Target, count: int) -> list[str]:
    """Return the ids of new runs."""
    if target.name.startswith("nchan"):
        return [secrets.token_hex(13) for _ in range(count)]
    async with httpx.AsyncClient(base_url=target.url, headers=target.headers, timeout=30) as client:
        room = asyncio.Semaphore(AT_ONCE)
        if target.name == "gateway" and count > BATCH:
            found: list[str] = []
            for start in range(0, count, BATCH):
                found += await _create_batch(client, min(BATCH, count - start))
            return found

        async def create() -> str:
            async with room:
                answer = await client.post("/v1/runs", json={"agent_id": "load", "mode": "direct"})
                return str(answer.json()["id"])

        return list(await asyncio.gather(*(create() for _ in range(count))))


async def _create_batch(client: httpx.AsyncClient, count: int) -> list[str]:
    answer = await client.post("/v1/runs/batch", json={"runs": [{"agent_id": "load", "mode": "direct"}] * count})
    made = answer.json()
    if made["failed"]:
        raise SystemExit(f"{made['failed']} of {count} runs could not be created")
    return [str(each["run"]["id"]) for each in made["results"]]


def append_path(run_id: str) -> str:
    """Return where events are posted to."""
    return f"/v1/runs/{run_id}/events"


def body_for(target: Target, batch: int = 1) -> str:
    """Return what is posted: about 200 bytes an event once it is stored."""
    return number_body() if target.name.startswith("nchan") else event_body(batch)


def first_frames(target: Target) -> int:
    """Return how many frames a reader has after the first append to a run."""
    return FIRST_FRAMES.get(target.name, 1)
