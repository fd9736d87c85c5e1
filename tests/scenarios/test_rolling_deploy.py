"""Gateway processes on one store behind a balancer, replaced one after another under live readers and writers."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import socket
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.scenarios.claims import check_all
from tests.support.balancer import Balancer, balance
from tests.support.processes import GatewayProcess, serving
from tests.support.readers import SseReader, WebSocketReader
from tests.support.running import RunningStore, wait_until
from tests.support.writers import Writer, create_run

pytestmark = pytest.mark.anyio

LEAD_S = 0.6
DRAIN_S = 2.0
PATIENCE_S = 60.0
SILENCE_S = 30.0
BETWEEN = 10
NGINX_CONF = Path(__file__).parents[2] / "docs" / "deploy" / "nginx.conf"


@asynccontextmanager
async def deployed(store: RunningStore, count: int) -> AsyncIterator[tuple[list[GatewayProcess], Balancer]]:
    """Run so many gateways on one store behind a balancer."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gw-")))
        settings: dict[str, Any] = {"redis_url": store.url, "readiness_lead_s": LEAD_S, "drain_s": DRAIN_S}
        gateways = [
            await stack.enter_async_context(serving(folder / f"g{index}", **settings)) for index in range(count)
        ]
        balancer = await stack.enter_async_context(balance([gateway.port for gateway in gateways]))
        await wait_until(lambda: len(balancer.ready) == count, timeout_s=PATIENCE_S)
        yield gateways, balancer


class Traffic:
    """Readers of one run, and writers that append as fast as the first reader reads."""

    def __init__(self, url: str, run_id: str, writers: list[Writer], readers: int) -> None:
        key = "scenario-key"
        self.writers = writers
        self.readers = [SseReader(url, key, run_id, silence_s=SILENCE_S) for _ in range(readers)]
        self.sockets = [WebSocketReader(url, key, run_id, silence_s=SILENCE_S) for _ in range(max(2, readers // 50))]
        self._stopping = False

    @property
    def everybody(self) -> list[SseReader | WebSocketReader]:
        """All readers."""
        return [*self.readers, *self.sockets]

    @property
    def acknowledged(self) -> int:
        """How many events are known to be stored."""
        return sum(len(writer.acknowledged) for writer in self.writers)

    async def grows(self) -> None:
        """Wait until some more events are known to be stored."""
        wanted = self.acknowledged + BETWEEN
        await wait_until(lambda: self.acknowledged >= wanted, timeout_s=PATIENCE_S)

    async def all_open(self) -> None:
        """Wait until every reader has read something."""
        await wait_until(lambda: all(each.transcript.seen for each in self.everybody), timeout_s=PATIENCE_S)

    async def run(self) -> None:
        """Write and read until `stop`."""
        async with asyncio.TaskGroup() as tasks:
            for reader in self.everybody:
                tasks.create_task(reader.run())
            async with asyncio.TaskGroup() as writing:
                for writer in self.writers:
                    writing.create_task(self._write(writer))
            await self.writers[0].complete()

    def stop(self) -> None:
        """Have the writers stop, and the run end."""
        self._stopping = True

    async def _write(self, writer: Writer) -> None:
        while not self._stopping:
            await writer.append(1)
            await self.readers[0].transcript.reaches(max(writer.acknowledged), timeout_s=PATIENCE_S)


async def replace(gateway: GatewayProcess, balancer: Balancer, traffic: Traffic) -> None:
    """Stop a gateway as a deploy does, start it again, and wait until it has its share of connections."""
    async with gateway.client(timeout=SILENCE_S) as client:
        claim = asyncio.create_task(client.post("/v1/claims", json={"queues": ["nothing"], "wait_s": 30}))
        await traffic.grows()
        gateway.signal(signal.SIGTERM)
        answer = await claim
        assert (answer.status_code, answer.json()) == (200, {"data": []})
    assert await gateway.wait() == 0
    await gateway.start()
    await wait_until(lambda: gateway.port in balancer.ready, timeout_s=PATIENCE_S)
    await traffic.grows()


async def roll(store: RunningStore, readers: int, rounds: int, *, nginx: bool = False) -> None:
    """Replace two gateways in turn while readers read and writers write, then check everything.

    Args:
        nginx: Have everything go through nginx, as docs/deploy/nginx.conf sets it up.
    """
    async with deployed(store, 2) as (gateways, balancer), AsyncExitStack() as stack:
        url = await stack.enter_async_context(run_nginx(balancer.ports)) if nginx else balancer.url
        headers = {"authorization": "Bearer scenario-key"}
        clients = [
            await stack.enter_async_context(httpx.AsyncClient(base_url=url, headers=headers, timeout=SILENCE_S))
            for _ in range(3)
        ]
        run_id = await create_run(clients[0])
        writers = [Writer(client, run_id, f"w{index}") for index, client in enumerate(clients)]
        traffic = Traffic(url, run_id, writers, readers)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(traffic.run())
            await traffic.all_open()
            for _ in range(rounds):
                for gateway in gateways:
                    await replace(gateway, balancer, traffic)
            traffic.stop()
        transcripts = [reader.transcript for reader in traffic.everybody]
        events = await check_all(clients[0], run_id, writers, transcripts)
        check_told(traffic, rounds)
        assert not balancer.refused
        for gateway in gateways:
            assert "Traceback" not in gateway.log, gateway.log
        report(traffic, balancer, events)


@asynccontextmanager
async def run_nginx(ports: Sequence[int]) -> AsyncIterator[str]:
    """Run nginx before gateways at these ports, configured as the documents say; its own faults end in 502."""
    text = NGINX_CONF.read_text()
    servers = [line for line in text.splitlines() if line.strip().startswith("server 10.0.0.")]
    for line, port in zip(servers, ports, strict=True):
        text = text.replace(line, re.sub(r"10\.0\.0\.\d+:8000", f"127.0.0.1:{port}", line))
    with socket.create_server(("127.0.0.1", 0)) as free:
        own = free.getsockname()[1]
    text = text.replace("listen 80;", f"listen 127.0.0.1:{own};")
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        paths = "".join(
            f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config = Path(folder) / "nginx.conf"
        config.write_text(
            f"daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;"
            f"events {{ worker_connections 16384; }} http {{ access_log off; {paths}\n{text}\n}}"
        )
        process = await asyncio.create_subprocess_exec("nginx", "-c", str(config), "-e", f"{folder}/error.log")
        try:
            await wait_until(lambda: _answers(own), timeout_s=PATIENCE_S)
            yield f"http://127.0.0.1:{own}"
        finally:
            process.terminate()
            await process.wait()


async def _answers(port: int) -> bool:
    async with httpx.AsyncClient() as client:
        try:
            return (await client.get(f"http://127.0.0.1:{port}/healthz")).status_code == 200
        except httpx.TransportError:
            return False


def check_told(traffic: Traffic, rounds: int) -> None:
    """Everybody was sent away by drains alone, each with its place, and not all at the same moment."""
    places: Counter[str] = Counter()
    for reader in traffic.everybody:
        closings = reader.transcript.told("stream.closed")
        assert {facts["reason"] for facts in closings} <= {"drain"}
        assert reader.transcript.told("stream.reset") == []
        places.update(facts["resume_after"] for facts in closings)
    # Whoever was sent to the gateway that was replaced next has been sent away twice a round.
    assert places.total() >= len(traffic.everybody) * rounds
    # Events were appended between one farewell and another: no instant had them all.
    assert len(places) >= 4 * rounds
    assert max(places.values()) < places.total() / 2


def report(traffic: Traffic, balancer: Balancer, events: int) -> None:
    """Print how the ends of connections were spread over the drains."""
    ended = sorted(ended_s for ended_s, _ in balancer.ended)
    slots = Counter(int((ended_s - ended[0]) / 0.25) for ended_s in ended)
    spread = " ".join(f"{slot * 0.25:.2f}s:{count}" for slot, count in sorted(slots.items()))
    deliveries = sum(len(reader.transcript.seen) for reader in traffic.everybody)
    repeats = sum(writer.repeats for writer in traffic.writers)
    print(f"{len(traffic.everybody)} readers, {events} events, {deliveries} deliveries, {repeats} appends repeated")
    print(f"ends of connections: {spread or 'not seen from here'}")


async def test_a_rolling_deploy_is_invisible(store: RunningStore) -> None:
    """Two gateways are replaced one after another: no event is lost or repeated, no connection is refused by one that
    was ready, appends and claims under way are answered, and readers come back spread over the drain."""
    await roll(store, readers=200, rounds=1)


@pytest.mark.soak
@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
async def test_a_rolling_deploy_behind_nginx_is_invisible(store: RunningStore) -> None:
    """The configuration in the documents has every connection taken by a gateway that stays."""
    await roll(store, readers=100, rounds=1, nginx=True)


@pytest.mark.soak
@pytest.mark.timeout(1200)
async def test_a_rolling_deploy_under_thousands_of_readers(store: RunningStore) -> None:
    """The same with two thousand readers, three times over."""
    await roll(store, readers=2_000, rounds=3)
