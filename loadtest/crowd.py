"""Many runs with a reader each, written to over HTTP: at a rate, or as fast as answers come."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from loadtest.measuring import Case, Figures, Lost
from loadtest.readers import Readers
from loadtest.runs import append_path, body_for, create_runs, first_frames
from loadtest.targets import Target
from loadtest.writers import post

SETTLE_S = 60.0


def cases(
    against: Sequence[str], *, runs: int, rates: Sequence[int], seconds: float, idle: int = 0, fsync: str = "everysec"
) -> list[Case]:
    """Return the cases of each rate, target by target; rate 0 is as fast as answers come.

    Args:
        idle: So many runs more that have no reader and are not written to.
    """

    async def run(target: Target, rate: int) -> Figures:
        return await _run(target, runs, idle, rate, seconds)

    about = {"runs": runs, "idle runs": idle, "fsync": fsync}
    return [
        Case(
            target=name,
            about={**about, "events/s asked": rate or "all"},
            measure=partial(run, rate=rate),
            group=str(rate),
            fsync=fsync,
        )
        for rate in rates
        for name in against
        if name != "loop"
    ]


async def _run(target: Target, count: int, idle: int, rate: int, seconds: float) -> Figures:
    run_ids = await create_runs(target, count)
    await create_runs(target, idle)
    paths, first, body = [append_path(run_id) for run_id in run_ids], first_frames(target), body_for(target)
    requests = [target.stream_request(run_id) for run_id in run_ids]
    async with Readers(target.address, requests, target.marker, count, sample_every=1) as readers:
        await readers.wait_open(SETTLE_S)
        await post(target, paths, body, count=count)
        if not await readers.wait_frames(first * count, SETTLE_S):
            raise Lost("the first events did not come within a minute")
        cpu_s, store_s, began = target.cpu_s(), target.cpu_s(stores=True), time.monotonic()
        posted = await post(target, paths, body, rate=rate, seconds=seconds, connections=64)
        if not await readers.wait_frames(first * count + posted.answered, SETTLE_S):
            raise Lost("not every event came within a minute")
        took_s = time.monotonic() - began
        cpu_s, store_s = target.cpu_s() - cpu_s, target.cpu_s(stores=True) - store_s
        seen = await readers.report()
    if posted.refused or seen.closed or seen.faults:
        raise Lost(f"{target.name}: {posted} {seen}")
    return {
        "events/s": posted.answered / took_s,
        "µs/event": cpu_s / posted.answered * 1e6,
        "p50 ms": seen.p50,
        "p99 ms": seen.p99,
        "store µs/event": store_s / posted.answered * 1e6,
    }
