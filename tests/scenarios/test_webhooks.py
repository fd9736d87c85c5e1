"""Webhooks of real gateways that are killed: every event is told at least once, in order, under one id."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import Response

from tests.support.processes import serving
from tests.support.receiver import SECRET, Received, Receiver, run_receiver
from tests.support.running import wait_until

pytestmark = pytest.mark.anyio

SETTINGS: dict[str, Any] = {"webhook_http": "allow", "webhook_private": "allow", "webhook_timeout_s": 1}


async def create_run(client: httpx.AsyncClient, receiver: Receiver) -> str:
    """Return a run that has the receiver told of what it says."""
    hook = {"url": receiver.url, "secret": SECRET, "events": ["custom.*", "run.completed"]}
    body = {"agent_id": "tester", "mode": "direct", "webhooks": [hook]}
    run_id: str = (await client.post("/v1/runs", json=body)).raise_for_status().json()["id"]
    return run_id


def event_of(kind: str) -> dict[str, Any]:
    """Return an event to append."""
    return {"type": kind, "data": {"output": kind}}


async def append(client: httpx.AsyncClient, run_id: str, *types: str) -> None:
    """Append events."""
    events = [event_of(kind) for kind in types]
    (await client.post(f"/v1/runs/{run_id}/events", json={"events": events})).raise_for_status()


async def test_a_gateway_that_dies_once_it_was_heard_tells_again(data_dir: Path) -> None:
    """Between the delivery and the note of it: the receiver sees the message twice, and knows it by its id."""
    async with run_receiver() as receiver, serving(data_dir, **SETTINGS) as gateway:

        def die(number: int, _got: Received) -> Response:
            if number == 0:
                # Answered, but nobody is there any more to note it.
                gateway.signal(signal.SIGKILL)
            return Response(status_code=204)

        receiver.answer = die
        async with gateway.client() as client:
            run_id = await create_run(client, receiver)
            await append(client, run_id, "custom.first", "custom.second", "run.completed")
            await gateway.wait()
        await gateway.start()
        await wait_until(lambda: len(receiver.received) == 4, timeout_s=40)
        assert receiver.types == ["custom.first", "custom.first", "custom.second", "run.completed"]
        assert receiver.received[0].message_id == receiver.received[1].message_id
        assert len({got.message_id for got in receiver.received}) == 3
        for got in receiver.received:
            got.verify()


async def test_nothing_is_left_untold_while_processes_are_killed(data_dir: Path) -> None:
    """Two workers, one of them killed now and then, the store once: all events come, each run's in their order."""
    async with run_receiver() as receiver, serving(data_dir, workers=2, **SETTINGS) as gateway:
        async with gateway.client() as client:
            runs = [await create_run(client, receiver) for _ in range(6)]

            async def tell(run_id: str) -> None:
                for number in range(12):
                    await keep_appending(client, run_id, f"custom.n{number}", number + 1)
                await keep_appending(client, run_id, "run.completed", 13)

            async def kill() -> None:
                for round_number in range(3):
                    await wait_until(lambda: len(receiver.received) >= (round_number + 1) * 12, timeout_s=60)  # noqa: B023
                    gateway.serving_workers()[0].kill()
                    if round_number == 1:
                        await gateway.kill_store()

            await asyncio.gather(*map(tell, runs), kill())
            wanted = [f"custom.n{number}" for number in range(12)] + ["run.completed"]
            await wait_until(lambda: all(firsts(receiver, run_id) == wanted for run_id in runs), timeout_s=60)
        by_id: dict[str, tuple[str, int]] = {}
        for got in receiver.received:
            got.verify()
            about = (got.content["data"]["run"]["id"], got.seq)
            assert by_id.setdefault(got.message_id, about) == about
        assert len(by_id) == 6 * 13


def firsts(receiver: Receiver, run_id: str) -> list[str]:
    """Return the types of a run's events in the order in which they first came."""
    told = [got.content for got in receiver.received]
    return list(dict.fromkeys(content["type"] for content in told if content["data"]["run"]["id"] == run_id))


async def keep_appending(client: httpx.AsyncClient, run_id: str, kind: str, number: int) -> None:
    """Append an event once, however often it takes."""
    batch = {"events": [event_of(kind)], "writer": "w", "writer_seq": number}
    async with asyncio.timeout(30):
        while True:
            try:
                answer = await client.post(f"/v1/runs/{run_id}/events", json=batch)
                if answer.status_code == 200:
                    return
                assert answer.status_code == 503, answer.text
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)
