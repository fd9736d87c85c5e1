"""What readers are handed is counted, live or caught up, and comes to what they received."""

from __future__ import annotations

import asyncio
import json

import pytest
from prometheus_client import REGISTRY

from tests.support.readers import SseReader
from tests.support.running import RunningGateway, RunningStore, run_gateway, wait_until
from tests.support.sockets import open_socket

pytestmark = pytest.mark.anyio

PATIENCE_S = 60.0
WAYS = ("live", "catch_up")


def counted(transport: str) -> dict[str, float]:
    """Return what this process has counted for a transport, by way."""
    names = {way: {"transport": transport, "way": way} for way in WAYS}
    return {way: REGISTRY.get_sample_value("gateway_deliveries_total", labels) or 0 for way, labels in names.items()}


async def append(gateway: RunningGateway, run_id: str, count: int, *, size: int = 10) -> None:
    """Append events one after another, so that each is a notification."""
    for _ in range(count):
        await gateway.append(run_id, ("custom.note", {"text": "x" * size}))


async def test_the_count_comes_to_what_clients_received(store: RunningStore) -> None:
    """Readers from the beginning, from the middle, of a log that the ring no longer has, with pauses, slow ones and
    WebSockets: live and caught up together are what arrived, event for event."""
    before = {transport: counted(transport) for transport in ("sse", "ws")}
    async with run_gateway(store.url, ring_entries=16) as gateway:
        run_id = (await gateway.create_run())["id"]
        await append(gateway, run_id, 30)
        readers = [SseReader(gateway.url, gateway.key, run_id, silence_s=PATIENCE_S) for _ in range(5)]
        reading = [asyncio.create_task(reader.run()) for reader in readers]
        async with open_socket(gateway) as socket:
            await socket.do("subscribe", run_id=run_id, after_seq=25)
            await wait_until(lambda: len(gateway.gateway.hub.outlets) == 6, timeout_s=PATIENCE_S)
            lingering = asyncio.create_task(read_lines(gateway, run_id, "after_seq=5&linger_ms=40"))
            await append(gateway, run_id, 40)
            # More than a connection takes at once: some are behind for a while.
            await append(gateway, run_id, 12, size=200_000)
            await gateway.append(run_id, ("run.completed", {"output": 1}))
            frames = await socket.until("stream.end", run_id=run_id)
        await asyncio.wait_for(asyncio.gather(*reading), PATIENCE_S)
        seqs = await asyncio.wait_for(lingering, PATIENCE_S)

    head = seqs[-1]
    assert seqs == list(range(6, head + 1))
    received = {
        "sse": sum(len(reader.transcript.seqs) for reader in readers) + len(seqs),
        "ws": sum(frame["type"] == "event" for frame in frames),
    }
    assert received == {"sse": 5 * head + head - 5, "ws": head - 25}
    for transport, known in before.items():
        fresh = {way: value - known[way] for way, value in counted(transport).items()}
        assert sum(fresh.values()) == received[transport], (transport, fresh)
        assert all(fresh.values()), (transport, fresh)
    caught_up = counted("sse")["catch_up"] - before["sse"]["catch_up"]
    # What was there before each came was not live for any of them.
    assert caught_up >= 5 * 32


async def read_lines(gateway: RunningGateway, run_id: str, query: str) -> list[int]:
    """Read a stream to its end and return the seqs of its events."""
    seqs = []
    async with gateway.client.stream("GET", f"/v1/runs/{run_id}/stream?{query}") as answer:
        name = ""
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                name = line
            elif line.startswith("data: ") and not name:
                seqs.append(json.loads(line[6:])["seq"])
            elif not line:
                name = ""
    return seqs
