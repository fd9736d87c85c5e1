"""Appends over warm HTTP connections: how many, and how long one takes."""

from __future__ import annotations

import asyncio
import json
import time

import uvloop

from loadtest import targets
from loadtest.report import percentile

CASES = ((1, 1), (16, 1), (1, 100), (16, 100))


def measure(*, seconds: float, fsync: str) -> list[dict[str, object]]:
    """Return a row a case: connections, events a request."""
    rows: list[dict[str, object]] = []
    with targets.start("gateway", fsync=fsync) as target:
        for connections, batch in CASES:
            rows.append(uvloop.run(_case(target, connections, batch, seconds, fsync)))
    return rows


async def _case(target: targets.Target, connections: int, batch: int, seconds: float, fsync: str) -> dict[str, object]:
    event = {"type": "message.delta", "data": {"content": "x" * 100}}
    body = json.dumps({"events": [event] * batch}).encode()
    cpu_s, began = target.cpu_s(), time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        lanes = [tasks.create_task(_lane(*target.address, body, seconds)) for _ in range(connections)]
    took_s, cpu_s = time.monotonic() - began, target.cpu_s() - cpu_s
    times = [ms for lane in lanes for ms in lane.result()]
    events = len(times) * batch
    return {
        "connections": connections,
        "events/request": batch,
        "fsync": fsync,
        "requests/s": len(times) / took_s,
        "events/s": events / took_s,
        "p50 ms": percentile(times, 0.5),
        "p99 ms": percentile(times, 0.99),
        "CPU µs/event": cpu_s / events * 1e6,
    }


async def _lane(host: str, port: int, body: bytes, seconds: float) -> list[float]:
    """Append to a run of its own, one request after the other, and return each one's time in ms."""
    reader, writer = await asyncio.open_connection(host, port)
    created = json.loads(await _post(reader, writer, "/v1/runs", b'{"agent_id":"load","mode":"direct"}', 201))
    path = f"/v1/runs/{created['id']}/events"
    await _post(reader, writer, path, body, 200)
    times = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        await _post(reader, writer, path, body, 200)
        times.append((time.monotonic() - began) * 1000)
    writer.close()
    return times


async def _post(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, body: bytes, expected: int
) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: load\r\nAuthorization: Bearer {targets.KEY}\r\n"
    writer.write(head.encode() + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    answer = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    content = await reader.readexactly(length)
    if int(answer.split(b" ", 2)[1]) != expected:
        raise SystemExit(f"{path}: {answer.decode()}{content.decode()}")
    return content
