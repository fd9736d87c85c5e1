"""One slot a command: a server in cluster mode refuses every command and script that touches two."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from redis.exceptions import ResponseError

from gateway.store.wire import open_wire
from tests.support.clusters import find_port
from tests.support.native import accepted, get_types
from tests.support.running import RunningGateway, RunningStore, run_gateway
from tests.support.work import claim_one, queue_run, write

pytestmark = pytest.mark.anyio

LIMIT_S = 30.0


@pytest.fixture
async def strict_store(anyio_backend: object) -> AsyncIterator[RunningStore]:
    """A cluster of one node, which holds every slot and checks the slots of each command's keys."""
    options = {"cluster-enabled": "yes", "bind": "127.0.0.1"}
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        ports = {"port": str(find_port()), "cluster-port": str(find_port())}
        store = RunningStore(Path(folder), environ=None, **options, **ports)
        await anyio.to_thread.run_sync(store.start)
        wire = await open_wire(store.url, "test")
        await wire.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        deadline = time.monotonic() + LIMIT_S
        while b"cluster_state:ok" not in await wire.ask("CLUSTER", "INFO"):
            assert time.monotonic() < deadline, "the cluster did not form"
        with pytest.raises(ResponseError, match="CROSSSLOT"):
            await wire.ask("MGET", "a", "b")
        wire.close()
        yield store
        store.stop()


@pytest.fixture
async def api(strict_store: RunningStore) -> AsyncIterator[RunningGateway]:
    """A gateway over it."""
    async with run_gateway(strict_store.url) as running:
        yield running


async def test_a_queued_run_lives_without_touching_two_slots_at_once(api: RunningGateway) -> None:
    """Created, claimed, written, listed, retried: every script keeps to the slot of its keys."""
    run_id = await queue_run(api, "slots")
    claimed = await claim_one(api, "slots")
    accepted(await write(api, claimed, ("log", {"level": "info", "message": "one"})))
    accepted(await write(api, claimed, ("run.failed", {"error": {"code": "no", "message": "no"}})))
    assert (await get_types(api, run_id))[-1] == "run.failed"
    listed = accepted(await api.client.get("/v1/runs", params={"status": "failed"}))["data"]
    assert [run["id"] for run in listed] == [run_id]
    accepted(await api.client.post(f"/v1/runs/{run_id}/retry"), 201)
