"""A WebSocket while the store is away: what is followed stays and catches up, what is commanded is told."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.native import get_log
from tests.support.running import LOG, RunningGateway, RunningStore, run_gateway, wait_until
from tests.support.sockets import open_socket, seqs

pytestmark = pytest.mark.anyio

EVENT = {"type": "log", "data": {"level": "info", "message": "over a socket"}}


@pytest.fixture
def mortal() -> Iterator[RunningStore]:
    """A store of the test's own, to be killed."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        store = RunningStore(Path(folder))
        store.start()
        yield store
        store.stop()


@pytest.fixture
async def api(mortal: RunningStore, anyio_backend: object) -> AsyncIterator[RunningGateway]:
    """A gateway that holds a request for three seconds while the store is away."""
    async with run_gateway(mortal.url, store_hold_s=3.0) as running:
        yield running


async def is_back(api: RunningGateway) -> bool:
    """Whether the gateway has its store again."""
    return (await api.client.get("/readyz")).status_code == 200


async def test_a_subscription_outlives_the_store(api: RunningGateway, mortal: RunningStore) -> None:
    """The store's death is no end of a subscription: after its return everything comes, once and in order."""
    run = await api.run_in("running")
    async with open_socket(api) as socket:
        await socket.do("subscribe", run_id=run["id"])
        frames = await socket.quiet()
        mortal.kill()
        told = await socket.refused("store_unavailable", "append", run_id=run["id"], events=[EVENT])
        assert told["outcome"] in ("not_written", "unknown")
        assert (await socket.refused("store_unavailable", "cancel", run_id=run["id"]))["status"] == 503
        assert (await socket.ask("ping"))["type"] == "pong"
        await asyncio.to_thread(mortal.start)
        await wait_until(lambda: is_back(api))
        await api.append(run["id"], LOG)
        await socket.do("append", run_id=run["id"], events=[EVENT])
        log = [event["seq"] for event in await get_log(api, run["id"])]
        while seqs(frames, run["id"]) != log:
            frames.append(await socket.next())
        assert {frame["type"] for frame in frames} == {"stream.open", "event"}


async def test_a_new_subscription_waits_for_the_store(api: RunningGateway, mortal: RunningStore) -> None:
    """Who subscribes in a short outage is held, and then served as if nothing had been."""
    run = await api.run_in("running")
    async with open_socket(api) as socket:
        mortal.kill()
        subscribing = await socket.send("subscribe", run_id=run["id"])
        await asyncio.to_thread(mortal.start)
        assert (await socket.answer(subscribing))["result"] == {"run_id": run["id"]}
        assert seqs(await socket.quiet(), run["id"]) == list(range(1, run["head_seq"] + 1))


async def test_a_new_client_waits_for_the_store(api: RunningGateway, mortal: RunningStore) -> None:
    """Who connects in a short outage with a key that this process does not know is held, and then let in."""
    run = await api.run_in("running")
    made = (await api.client.post("/v1/keys", json={"scopes": ["runs:read"]})).json()
    mortal.kill()
    async with open_socket(api, key=made["key"]) as socket:
        subscribing = await socket.send("subscribe", run_id=run["id"])
        await asyncio.to_thread(mortal.start)
        assert (await socket.answer(subscribing))["type"] == "ack"


async def test_the_wait_for_the_store_is_bounded(mortal: RunningStore, anyio_backend: object) -> None:
    """In a long outage a subscription is refused, further ones sooner, and a client who is not known is sent away."""
    async with run_gateway(mortal.url, store_hold_s=0.1) as api:
        run = await api.run_in("running")
        made = (await api.client.post("/v1/keys", json={"scopes": ["runs:read"]})).json()
        async with open_socket(api) as socket:
            mortal.kill()
            held: list[Any] = [await socket.send("subscribe", run_id=run["id"]) for _ in range(2)]
            for command_id in held:
                told = await socket.answer(command_id)
                assert told["problem"]["code"] == "store_unavailable"
        async with open_socket(api, key=made["key"]) as socket:
            assert await socket.closed() == (1013, "store_unavailable")
        await asyncio.to_thread(mortal.start)
