"""A worker by plain HTTP, as a process that may be killed at any moment: `python -m tests.scenarios.hasty_worker`.

It repeats what was not answered and gives up what it was fenced from; all that it writes names the claim it is under.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
from typing import Any

import httpx

from gateway.domain.lifecycle import TERMINAL

AT_ONCE = 8
AGAIN_S = 0.05


class GivenUp(Exception):
    """The run is this worker's no more."""


async def send(client: httpx.AsyncClient, path: str, body: Any, headers: dict[str, str] | None = None) -> Any:
    """Post until it is answered; a repeat is recognised by what is in it."""
    while True:
        with contextlib.suppress(httpx.TransportError):
            answer = await client.post(path, json=body, headers=headers)
            if answer.status_code == 200:
                return answer.json()
            if answer.status_code == 409:
                raise GivenUp
            if answer.status_code != 503:
                raise SystemExit(f"{path}: {answer.status_code} {answer.text}")
        await asyncio.sleep(AGAIN_S)


async def perform(client: httpx.AsyncClient, claimed: dict[str, Any]) -> None:
    """Execute one run: text, a checkpoint, now and then a failure, an end."""
    path = f"/v1/runs/{claimed['run']['id']}/events"
    lease = claimed["lease"]
    holder = lease["token"][:12]
    state = claimed.get("checkpoint", {}).get("state", {"n": 0})
    chance = random.random()
    error = {"code": "chance", "message": holder}
    ending = ("run.failed", {"error": error}) if chance < 0.1 else ("run.completed", {"output": {"holder": holder}})
    events = [
        ("message.delta", {"content": holder}),
        ("checkpoint.created", {"source": holder, "state": {"n": state["n"] + 1}}),
        ("message.delta", {"content": holder}),
        ending,
    ]
    for number, (kind, data) in enumerate(events, 1):
        body = {
            "events": [{"type": kind, "data": data}],
            "writer": holder,
            "writer_seq": number,
            "attempt": lease["attempt"],
        }
        reply = await send(client, path, body, {"lease": lease["token"]})
        if reply["status"] in TERMINAL or reply["status"] == "delayed":
            return
        await asyncio.sleep(random.random() * 0.1)


async def work(client: httpx.AsyncClient, queue: str, name: str) -> None:
    """Claim and perform one run after another, for ever."""
    while True:
        with contextlib.suppress(GivenUp):
            body = {"queues": [queue], "max": 1, "wait_s": 2, "worker": name}
            for claimed in (await send(client, "/v1/claims", body))["data"]:
                await perform(client, claimed)


async def main(url: str, key: str, queue: str) -> None:
    """Work with several hands."""
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=10) as client, asyncio.TaskGroup() as tasks:
        for hand in range(AT_ONCE):
            tasks.create_task(work(client, queue, f"{os.getpid()}-{hand}"))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
