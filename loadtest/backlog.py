"""What a backlog costs: claims and lists with more and more queued runs, and a gateway that only waits."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import psutil

from gateway.app import Gateway, build
from gateway.domain.access import SCOPES, Grant, Principal
from gateway.domain.agents import Overrides
from gateway.domain.lifecycle import Status
from gateway.service.actors import Caller
from gateway.service.listing import Filters
from gateway.service.runs import NewRun
from gateway.settings import Settings
from gateway.store.embedded import borrow_store
from loadtest.report import percentile

QUEUE = "backlog"
CALLER = Caller(Grant("load", Principal("load"), SCOPES, None, "key_load"))
AT_ONCE = 64


@asynccontextmanager
async def _running(fsync: str) -> AsyncIterator[tuple[Gateway, psutil.Process]]:
    """Give a gateway without a socket, over a store of its own, and the store's process."""
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        async with borrow_store(Path(folder), fsync="always" if fsync == "always" else "everysec") as url:
            gateway = build(Settings(), url, dev_key=None)
            await gateway.start()
            store = next(p for p in psutil.Process().children(recursive=True) if "valkey" in p.name())
            try:
                yield gateway, store
            finally:
                await gateway.aclose()


async def _fill(gateway: Gateway, count: int, **about: Any) -> None:
    room = asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        async with room:
            await gateway.services.runs.create(CALLER, NewRun(agent_id="a", mode="queued", **about))

    for _ in range(0, count, 1_000):
        await asyncio.gather(*(one() for _ in range(min(1_000, count))))


async def _time(action: Callable[[], Awaitable[object]], times: int) -> list[float]:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        await action()
        took.append((time.perf_counter() - began) * 1_000)
    return took


async def _measure_backlog(sizes: Sequence[int], claims: int, fsync: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    async with _running(fsync) as (gateway, store):
        work, listing = gateway.services.work, gateway.services.listing

        async def claim() -> None:
            claimed = await work.claim(CALLER, [QUEUE], most=1, wait_s=0, worker=None, gone=asyncio.Event())
            assert len(claimed) == 1

        async def look() -> None:
            page = await listing.runs(CALLER.grant, Filters(statuses=frozenset({Status.QUEUED})), before=None, limit=50)
            assert len(page.runs) == 50

        held = 0
        for size in sizes:
            await _fill_queue(gateway, size - held)
            held = size - claims
            before_s = sum(store.cpu_times()[:2])
            claim_ms = await _time(claim, claims)
            store_us = (sum(store.cpu_times()[:2]) - before_s) / claims * 1e6
            list_ms = await _time(look, 20)
            rows.append(
                {
                    "queued runs": size,
                    "claim p50 ms": percentile(claim_ms, 0.5),
                    "claim p99 ms": percentile(claim_ms, 0.99),
                    "store µs a claim": store_us,
                    "list p50 ms": percentile(list_ms, 0.5),
                    "list p99 ms": percentile(list_ms, 0.99),
                }
            )
    return rows


async def _fill_queue(gateway: Gateway, count: int) -> None:
    await _fill(gateway, count, overrides=Overrides(queue=QUEUE))


async def _measure_idle(runs: int, seconds: float, fsync: str) -> list[dict[str, object]]:
    async with _running(fsync) as (gateway, store):
        await _fill(gateway, runs, delay_ms=3_600_000)
        await asyncio.sleep(1)
        processes = {"gateway": psutil.Process(), "store": store}
        before = {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}
        await asyncio.sleep(seconds)
        return [
            {
                "process": name,
                "delayed runs": runs,
                "seconds": seconds,
                "% of a core": (sum(process.cpu_times()[:2]) - before[name]) / seconds * 100,
            }
            for name, process in processes.items()
        ]


def measure_backlog(*, sizes: Sequence[int], claims: int, fsync: str) -> list[dict[str, object]]:
    """Return what a claim and a page of a list cost, a row a size of the backlog."""
    return anyio.run(_measure_backlog, sizes, claims, fsync, backend_options={"use_uvloop": True})


def measure_idle(*, runs: int, seconds: float, fsync: str) -> list[dict[str, object]]:
    """Return the share of a core that a gateway and its store take while nothing happens."""
    return anyio.run(_measure_idle, runs, seconds, fsync, backend_options={"use_uvloop": True})
