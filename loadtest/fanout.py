"""One run, many SSE readers: what a delivery costs the server, and how late it is."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Sequence

import httpx
import uvloop

from loadtest import targets
from loadtest.readers import Readers

SETTLE_S = 15.0


def measure(
    names: Sequence[str], *, readers: int, rates: Sequence[int], seconds: float, repeats: int, fsync: str
) -> list[dict[str, object]]:
    """Return a row a target and rate: medians of interleaved repeats, and the ratio to the first target."""
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    for _ in range(repeats):
        for rate in rates:
            for name in names:
                with targets.start(name, fsync=fsync) as target:
                    figures = uvloop.run(_run(target, readers, rate, seconds))
                found.setdefault((name, rate), []).append(figures)
    rows: list[dict[str, object]] = []
    for (name, rate), repeated in sorted(found.items(), key=lambda item: (item[0][1], item[0][0])):
        row: dict[str, object] = {"target": name, "readers": readers, "events/s": rate, "fsync": fsync}
        row |= {key: statistics.median(figures[key] for figures in repeated) for key in repeated[0]}
        first = statistics.median(figures["µs/delivery"] for figures in found[(names[0], rate)])
        row[f"× {names[0]}"] = float(row["µs/delivery"]) / first if first else 0.0  # type: ignore[arg-type]
        rows.append(row)
    return rows


async def _run(target: targets.Target, count: int, rate: int, seconds: float) -> dict[str, float]:
    async with httpx.AsyncClient(base_url=target.url, headers=target.headers, timeout=30) as client:
        created = await client.post("/v1/runs", json={"agent_id": "load", "mode": "direct"})
        run_id = created.json()["id"]
        before_bytes, began = target.rss_bytes(), time.monotonic()
        async with Readers(target.address, f"/v1/runs/{run_id}/stream", target.headers, count) as readers:
            await readers.wait_open(SETTLE_S)
            connects, idle_bytes = count / (time.monotonic() - began), target.rss_bytes() - before_bytes
            await _append(client, run_id, 0)
            # Of the gateway the first append is event 4, of the naive peer event 3.
            first = 4 if target.name == "gateway" else 3
            await readers.wait_seq(first, SETTLE_S)
            cpu_s, began = target.cpu_s(), time.monotonic()
            sent = await _write(client, run_id, rate, seconds)
            await readers.wait_seq(first + sent, SETTLE_S)
            cpu_s, took_s = target.cpu_s() - cpu_s, time.monotonic() - began
            seen = await readers.report()
    delivered = seen.frames - count * first
    return {
        "deliveries/s": delivered / took_s,
        "µs/delivery": cpu_s / max(delivered, 1) * 1e6,
        "p50 ms": seen.p50,
        "p99 ms": seen.p99,
        "KiB/reader": idle_bytes / count / 1024,
        "connects/s": connects,
        "missing": float(count * sent - delivered),
        "not once": float(seen.faults),
        "closed": float(seen.closed),
    }


async def _write(client: httpx.AsyncClient, run_id: str, rate: int, seconds: float) -> int:
    """Append at `rate`, never waiting for an answer to send the next; return how many were acknowledged."""
    count = int(rate * seconds)
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        sending = []
        for index in range(count):
            await asyncio.sleep(max(0.0, began + index / rate - time.monotonic()))
            sending.append(tasks.create_task(_append(client, run_id, index)))
    return sum(task.result() for task in sending)


async def _append(client: httpx.AsyncClient, run_id: str, index: int) -> bool:
    data = {"content": "x" * 60, "number": index, "sent_ns": time.monotonic_ns()}
    body = json.dumps({"events": [{"type": "message.delta", "data": data}]})
    headers = {"content-type": "application/json"}
    try:
        answer = await client.post(f"/v1/runs/{run_id}/events", content=body, headers=headers)
    except httpx.TransportError:
        # A target that stalls is a result too.
        return False
    return answer.is_success
