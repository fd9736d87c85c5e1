"""One run, many readers: what a delivery costs the server, and how late it is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial

import msgspec

from loadtest.measuring import Case, Figures, Lost
from loadtest.probing import Probing
from loadtest.readers import Readers
from loadtest.runs import append_path, body_for, create_runs, first_frames
from loadtest.targets import Target
from loadtest.writers import post

SETTLE_S = 60.0


class Asked(msgspec.Struct, frozen=True):
    """What a case does; see `cases`."""

    readers: int
    rate: int
    seconds: float
    transport: str
    linger_ms: int
    stopped: int
    probed: bool


CURSOR = '"cursor":"'


def cases(
    against: Sequence[str],
    *,
    rates: Sequence[int],
    readers: int,
    seconds: float,
    fsync: str = "everysec",
    transport: str = "sse",
    linger_ms: int = 0,
    stopped: int = 0,
    workers: int = 1,
    probed: bool = False,
) -> list[Case]:
    """Return the cases of each rate, target by target.

    Args:
        transport: `sse`, or `ws`, which only the gateway has.
        linger_ms: The gateway's pause between two writes to a reader.
        stopped: So many of the readers stop reading when the events begin.
        workers: The gateway's processes; more than one have all cores, which they share with the load.
        probed: Whether the longest pause of the server is looked for; see `Probing`.
    """

    async def run(target: Target, rate: int) -> Figures:
        about = Asked(readers, rate, seconds, transport, linger_ms, stopped, probed)
        return await _run(target, about)

    about: dict[str, object] = {"readers": readers, "over": transport, "workers": workers}
    about |= {"linger ms": linger_ms, "stopped": stopped, "fsync": fsync}
    return [
        Case(
            target=name,
            about={**about, "events/s": rate},
            measure=partial(run, rate=rate),
            group=str(rate),
            fsync=fsync,
            environ={"GATEWAY_WORKERS": str(workers)},
        )
        for rate in rates
        for name in against
    ]


async def _run(target: Target, asked: Asked) -> Figures:
    count, rate, seconds, transport, linger_ms, stopped, probed = msgspec.structs.astuple(asked)
    (run_id,) = await create_runs(target, 1)
    paths, first = [append_path(run_id)], first_frames(target)
    if transport == "ws":
        request, marker = target.socket_request(run_id), CURSOR
    else:
        query = f"?linger_ms={linger_ms}" if linger_ms and target.name == "gateway" else ""
        request, marker = target.stream_request(run_id, query), target.marker
    before_bytes = target.rss_bytes()
    async with Readers(target.address, [request], marker, count) as readers:
        opened_s = await readers.wait_open(SETTLE_S)
        idle_bytes = target.rss_bytes() - before_bytes
        await post(target, paths, body_for(target), connections=1, count=1)
        await _expect(await readers.wait_frames(first * count, SETTLE_S))
        if stopped:
            await readers.stop(stopped)
        cpu_s, store_s, began = target.cpu_s(), target.cpu_s(stores=True), time.monotonic()
        reading_s = readers.cpu_s()
        async with Probing(target) if probed else nullcontext() as probing:
            posted = await post(target, paths, body_for(target), rate=rate, count=int(rate * seconds))
        sent, taking = posted.answered, count - stopped
        await _expect(await readers.wait_frames(count * first + taking * sent, SETTLE_S))
        took_s = time.monotonic() - began
        cpu_s, store_s = target.cpu_s() - cpu_s, target.cpu_s(stores=True) - store_s
        reading_s = readers.cpu_s() - reading_s
        grown_bytes = target.rss_bytes() - before_bytes - idle_bytes
        seen = await readers.report()
    if posted.refused or seen.closed or seen.faults:
        raise Lost(f"{target.name}: {posted} {seen}")
    if not stopped and seen.least != first + sent:
        raise Lost(f"{target.name}: a reader has {seen.least} frames instead of {first + sent}")
    delivered = taking * sent
    pause = {} if probing is None else {"pause ms": probing.most_ms}
    return pause | {
        "deliveries/s": delivered / took_s,
        "µs/delivery": cpu_s / delivered * 1e6,
        "p50 ms": seen.p50,
        "p99 ms": seen.p99,
        "KiB/reader": idle_bytes / count / 1024,
        "connects/s": count / opened_s,
        "grown MiB": grown_bytes / 1024**2,
        "store µs/event": store_s / sent * 1e6,
        "reader µs": reading_s / delivered * 1e6,
    }


async def _expect(came: bool) -> None:
    if not came:
        raise Lost("not every event came within a minute")
