"""A gateway process at its limits: memory stays under its ceilings, and whoever is within bounds is served."""

from __future__ import annotations

import asyncio
import re
import socket
from contextlib import closing
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.processes import GatewayProcess, serving
from tests.support.readers import SseReader, open_socket
from tests.support.running import wait_until
from tests.support.writers import Writer, create_run

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
PATIENCE_S = 60.0
CONNECTIONS = 40
HOT_RUNS = 60
SLOW_READERS = 600
CEILING_BYTES = 4 * MIB
GROWTH_BYTES = 96 * MIB


async def measure(client: httpx.AsyncClient, name: str) -> float:
    """Return a metric's sum over its labels."""
    text = (await client.get("/metrics")).text
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M))


async def test_beyond_its_connections_a_gateway_accepts_more_only_as_others_end(data_dir: Path) -> None:
    """Clients that come then wait unanswered, health is told on its own port, and in the end all are served."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        health = free.getsockname()[1]
    settings = {"connections": CONNECTIONS, "streams": CONNECTIONS, "health_port": health}
    async with serving(data_dir, **settings) as gateway, gateway.client() as client, httpx.AsyncClient() as probe:
        run_id = await create_run(client)
        writer = Writer(client, run_id, "w")
        await writer.append(1)
        readers = [SseReader(gateway.url, gateway.key, run_id, silence_s=PATIENCE_S) for _ in range(CONNECTIONS)]
        tasks = [asyncio.create_task(reader.run()) for reader in readers]
        await wait_until(lambda: "no more are taken" in gateway.log, timeout_s=PATIENCE_S)
        late = SseReader(gateway.url, gateway.key, run_id, silence_s=PATIENCE_S)
        waiting = asyncio.create_task(late.run())
        await wait_until(lambda: late.local_port, timeout_s=PATIENCE_S)
        for path in ("healthz", "readyz", "metrics"):
            assert (await probe.get(f"http://127.0.0.1:{health}/{path}")).status_code == 200
        await wait_until(lambda: all(reader.transcript.seen for reader in readers), timeout_s=PATIENCE_S)
        assert not late.transcript.seen
        for task in tasks[: CONNECTIONS // 2]:
            task.cancel()
        await late.transcript.reaches(2, timeout_s=PATIENCE_S)
        await writer.complete()
        await asyncio.wait_for(asyncio.gather(waiting, *tasks[CONNECTIONS // 2 :]), PATIENCE_S)
        assert late.attempts == 1


async def test_memory_stays_under_its_ceilings(data_dir: Path) -> None:
    """Hot runs by the dozen and hundreds of readers that do not read cost no more than they may, and a reader that
    reads gets every event."""
    ceilings = {"rings_bytes": CEILING_BYTES, "unsent_bytes": CEILING_BYTES}
    async with serving(data_dir, embedded_fsync="everysec", **ceilings) as gateway, gateway.client() as client:
        process = psutil.Process(gateway.pid)
        run_ids = [await create_run(client) for _ in range(HOT_RUNS)]
        writers = [Writer(client, run_id, "w", padding_bytes=8_000) for run_id in run_ids]
        good = SseReader(gateway.url, gateway.key, run_ids[0], silence_s=PATIENCE_S)
        reading = asyncio.create_task(good.run())
        slow = [await open_slow(gateway, run_ids[index % HOT_RUNS]) for index in range(SLOW_READERS)]
        try:
            await wait_until(lambda: has_readers(client, SLOW_READERS), timeout_s=PATIENCE_S)
            before = process.memory_info().rss
            most = 0
            for _ in range(10):
                for writer in writers:
                    await writer.append(10)
                most = max(most, process.memory_info().rss)
                assert await measure(client, "gateway_rings_bytes") <= CEILING_BYTES
            await wait_until(lambda: is_relieved(client), timeout_s=PATIENCE_S)
            print(f"grown by {(most - before) / MIB:.1f} MiB at most")
            assert most - before < GROWTH_BYTES
            assert await measure(client, "gateway_refused_total") > 0
            await writers[0].complete()
            await asyncio.wait_for(reading, PATIENCE_S)
            assert good.transcript.seqs[-1] == len(good.transcript.seen)
            assert set(writers[0].acknowledged) <= set(good.transcript.seqs)
        finally:
            for sock in slow:
                sock.close()


async def has_readers(client: httpx.AsyncClient, count: int) -> bool:
    """Tell whether so many streams are open."""
    return await measure(client, "gateway_readers") >= count


async def is_relieved(client: httpx.AsyncClient) -> bool:
    """Tell whether no more is unsent than may be, and readers were let go for it."""
    text = (await client.get("/metrics")).text
    let_go = 'gateway_refused_total{reason="unsent_bytes"}' in text
    return let_go and await measure(client, "gateway_unsent_bytes") <= CEILING_BYTES


async def open_slow(gateway: GatewayProcess, run_id: str) -> socket.socket:
    """Return the connection of a stream of which nothing is read."""
    sock = await open_socket("127.0.0.1", gateway.port, small_buffer=True)
    head = f"GET /v1/runs/{run_id}/stream HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {gateway.key}\r\n\r\n"
    await asyncio.get_running_loop().sock_sendall(sock, head.encode())
    return sock
