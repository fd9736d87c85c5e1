"""Events appended over one connection, each answered by its seq: at a rate, or as fast as answers come."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from loadtest.measuring import Case, Figures, Lost
from loadtest.runs import append_path, body_for, create_runs
from loadtest.targets import Target
from loadtest.writers import post, stream

WAYS = ("lines", "frames")


def cases(*, rates: Sequence[int], seconds: float, fsync: str = "everysec") -> list[Case]:
    """Return the gateway's cases of each rate: lines of a body, frames of a WebSocket; rate 0 is without a limit."""

    async def run(target: Target, over: str, rate: int) -> Figures:
        return await _run(target, over, rate, seconds)

    return [
        Case(
            target="gateway",
            about={"over": over, "events/s asked": rate or "all", "fsync": fsync},
            measure=partial(run, over=over, rate=rate),
            group=str(rate),
            fsync=fsync,
        )
        for rate in rates
        for over in WAYS
    ]


async def _run(target: Target, over: str, rate: int, seconds: float) -> Figures:
    (run_id,) = await create_runs(target, 1)
    # The first append starts the run, and writes an event of its own before it.
    await post(target, [append_path(run_id)], body_for(target), connections=1, count=1)
    cpu_s, store_s = target.cpu_s(), target.cpu_s(stores=True)
    done = await stream(target, run_id, over=over, rate=rate, seconds=seconds)
    cpu_s, store_s = target.cpu_s() - cpu_s, target.cpu_s(stores=True) - store_s
    if done.refused or not done.answered:
        raise Lost(f"{target.name}: {done}")
    return {
        "events/s": done.answered / done.seconds,
        "p50 ms": done.p50,
        "p99 ms": done.p99,
        "µs/event": cpu_s / done.answered * 1e6,
        "store µs/event": store_s / done.answered * 1e6,
    }
