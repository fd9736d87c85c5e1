"""The server of one process: what it gives each connection."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from gateway.app import build
from gateway.commands.server import DrainingServer, configure
from gateway.edge.server import HttpProtocol
from gateway.settings import Settings
from tests.support.running import RunningStore, wait_until

pytestmark = pytest.mark.anyio

KEY = "gwk_a_key_for_this_test_alone_0123456789"


@asynccontextmanager
async def serve(store: RunningStore, data_dir: Path) -> AsyncIterator[tuple[DrainingServer, httpx.AsyncClient]]:
    """Yield the server that `gateway serve` runs, in this process, and a client of it."""
    settings = Settings(data_dir=data_dir)
    gateway = build(settings, store.url, dev_key=KEY)
    server = DrainingServer(configure(settings, gateway), gateway, drain_s=0.1, connections=16)
    sock = socket.create_server(("127.0.0.1", 0))
    await gateway.start()
    serving = asyncio.create_task(server.serve([sock]))
    try:
        await wait_until(lambda: server.started)
        url, headers = f"http://127.0.0.1:{sock.getsockname()[1]}", {"authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(base_url=url, headers=headers) as client:
            yield server, client
    finally:
        server.should_exit = True
        await serving
        await gateway.aclose()


async def test_a_served_connection_takes_plain_appends_the_short_way(store: RunningStore, tmp_path: Path) -> None:
    """The parser has not begun a request for them on a connection that has only appended."""
    async with serve(store, tmp_path) as (server, client):
        run = (await client.post("/v1/runs", json={"agent_id": "tester", "mode": "direct"})).json()
        before = set(server.server_state.connections)
        async with httpx.AsyncClient(base_url=client.base_url, headers=client.headers) as writer:
            for seq in (4, 5):
                answer = await writer.post(f"/v1/runs/{run['id']}/events", json={"type": "custom.x"})
                assert (answer.status_code, answer.json()["last_seq"]) == (200, seq)
            (connection,) = set(server.server_state.connections) - before
            assert isinstance(connection, HttpProtocol)
            assert connection.cycle is None
            assert (await writer.get(f"/v1/runs/{run['id']}")).status_code == 200
            assert connection.cycle is not None


async def test_a_served_connection_is_tuned_as_one_that_tunes_itself(store: RunningStore, tmp_path: Path) -> None:
    """Small frames leave at once, and a peer that vanished is noticed, whoever set the options."""
    async with serve(store, tmp_path) as (server, client):
        assert (await client.get("/healthz")).status_code == 200
        connections = [each for each in server.server_state.connections if isinstance(each, HttpProtocol)]
        sock = connections[0].transport.get_extra_info("socket")
        tcp = [sock.getsockopt(socket.IPPROTO_TCP, option) for option in (socket.TCP_NODELAY, socket.TCP_KEEPIDLE)]
        assert (tcp, sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) == ([1, 60], 1)
