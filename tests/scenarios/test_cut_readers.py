"""Readers whose connection breaks again and again while the run is written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scenarios.claims import check_all
from tests.support.processes import GatewayProcess, serving
from tests.support.proxy import Cut, Dooms, Proxy, lay_proxy
from tests.support.readers import ClientReader, Reader, SseReader, WebSocketReader
from tests.support.writers import Writer, create_run

pytestmark = pytest.mark.anyio

EVENTS = 20_000
CUTS = 200
BATCH = 50
SILENCE_S = 0.5
KEEPALIVE_S = 0.15
AHEAD_CUTS = 4

Make = Callable[[str, str, str], Reader]


def make_sse(url: str, key: str, run_id: str) -> Reader:
    """Return a reader of server-sent events on bare sockets."""
    return SseReader(url, key, run_id, silence_s=SILENCE_S)


def make_socket(url: str, key: str, run_id: str) -> Reader:
    """Return a reader of a WebSocket."""
    return WebSocketReader(url, key, run_id, silence_s=SILENCE_S)


def make_client(url: str, key: str, run_id: str) -> Reader:
    """Return the Python client's reader."""
    return ClientReader(url, key, run_id, silence_s=SILENCE_S)


transports = pytest.mark.parametrize("make", [make_sse, make_socket, make_client], ids=["sse", "ws", "client"])


@transports
async def test_a_reader_cut_two_hundred_times_reads_everything_once(data_dir: Path, make: Make) -> None:
    """RST, FIN, black holes and frames cut in half cost no event, and bring none twice or out of order."""
    async with serving(data_dir, keepalive_s=KEEPALIVE_S) as gateway:
        await read_through_cuts(gateway, make, seed=20261122, events=EVENTS, cuts=CUTS)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(3))
@transports
async def test_many_cuts_for_long(data_dir: Path, make: Make, seed: int) -> None:
    """The same, with other fates and more of them."""
    async with serving(data_dir, keepalive_s=KEEPALIVE_S) as gateway:
        await read_through_cuts(gateway, make, seed=seed, events=100_000, cuts=1_000, latency_s=0.002 * seed)


async def read_through_cuts(
    gateway: GatewayProcess, make: Make, *, seed: int, events: int, cuts: int, latency_s: float = 0
) -> None:
    """Write `events` events while a reader is cut `cuts` times, evenly over the writing."""
    dooms = Dooms(seed, cuts=cuts, most_bytes=40_000, most_s=0.08, black_holes=6)
    async with gateway.client() as client, lay_proxy(gateway.port, choose=dooms, latency_s=latency_s) as proxy:
        run_id = await create_run(client)
        writer = Writer(client, run_id, "w")
        reader = make(proxy.url, gateway.key, run_id)
        async with asyncio.timeout(1500), asyncio.TaskGroup() as tasks:
            tasks.create_task(reader.run())
            await write_between_cuts(writer, proxy, events=events, cuts=cuts)
        assert await check_all(client, run_id, [writer], [reader.transcript]) >= events
    assert proxy.cuts.total() == cuts
    assert all(proxy.cuts[how] for how in Cut)
    print(f"cuts {dict(proxy.cuts)}, connections {proxy.connections}")


async def write_between_cuts(writer: Writer, proxy: Proxy, *, events: int, cuts: int) -> None:
    """Append `events` events, never much ahead of the cuts, and end the run after the last cut."""
    for written in range(0, events, BATCH):
        await proxy.wait_cuts(written * cuts // events - AHEAD_CUTS)
        await writer.append(BATCH)
    await proxy.wait_cuts(cuts)
    await writer.complete()
