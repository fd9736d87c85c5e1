"""Runs on any target, and how many events a reader of a new one has seen once the first append was delivered."""

from __future__ import annotations

import asyncio
import secrets

import httpx

from loadtest.targets import PARTS, Target
from loadtest.writers import event_body, number_body

# Created and queued, then started by the first append; the naive peer and the bare loop begin with two events.
FIRST_FRAMES = {"gateway": 4, "naive": 3, "loop": 3, **dict.fromkeys(PARTS, 3)}
NEW_RUN = {"agent_id": "load", "mode": "direct"}
AT_ONCE = 16
BATCH = 500
"""Runs that one request asks the gateway for, beyond the first few."""


async def create_runs(target: Target, count: int) -> list[str]:
    """Return the ids of new runs."""
    if target.name.startswith("nchan"):
        return [secrets.token_hex(13) for _ in range(count)]
    # Peers create one at a time.
    sizes = [1] * count if target.name != "gateway" or count < BATCH else _parts(count)
    async with httpx.AsyncClient(base_url=target.url, headers=target.headers, timeout=60) as client:
        room = asyncio.Semaphore(AT_ONCE)

        async def create(size: int) -> list[str]:
            async with room:
                return await (_create_one(client) if size == 1 else _create_many(client, size))

        return [run_id for part in await asyncio.gather(*map(create, sizes)) for run_id in part]


def _parts(count: int) -> list[int]:
    return [min(BATCH, count - begun) for begun in range(0, count, BATCH)]


async def _create_one(client: httpx.AsyncClient) -> list[str]:
    answer = await client.post("/v1/runs", json=NEW_RUN)
    return [str(answer.raise_for_status().json()["id"])]


async def _create_many(client: httpx.AsyncClient, count: int) -> list[str]:
    answer = await client.post("/v1/runs/batch", json={"runs": [NEW_RUN] * count})
    return [str(result["run"]["id"]) for result in answer.raise_for_status().json()["results"]]


def append_path(run_id: str) -> str:
    """Return where events are posted to."""
    return f"/v1/runs/{run_id}/events"


def body_for(target: Target, batch: int = 1) -> str:
    """Return what is posted: about 200 bytes an event once it is stored."""
    return number_body() if target.name.startswith("nchan") else event_body(batch)


def first_frames(target: Target) -> int:
    """Return how many frames a reader has after the first append to a run."""
    return FIRST_FRAMES.get(target.name, 1)
