"""What keys, checks and a store cost: the gateway's own path bare, with each of the three, and the gateway."""

from __future__ import annotations

import time

from loadtest.measuring import Case, Figures, Lost
from loadtest.readers import Readers
from loadtest.runs import append_path, body_for, create_runs, first_frames
from loadtest.targets import PARTS, Target
from loadtest.writers import post

SETTLE_S = 60.0
CONNECTIONS = 16
RATE = 100


def cases(*, readers: int, seconds: float) -> list[Case]:
    """Return a case for each: appends as fast as answers come, then a fan-out of 100 events a second."""

    async def run(target: Target) -> Figures:
        appended = await _append(target, seconds)
        return appended | await _fan_out(target, readers, seconds)

    return [Case(target=name, about={"readers": readers}, measure=run) for name in (*PARTS, "gateway")]


async def _append(target: Target, seconds: float) -> Figures:
    paths = [append_path(run_id) for run_id in await create_runs(target, CONNECTIONS)]
    body = body_for(target)
    await post(target, paths, body, connections=CONNECTIONS, count=4 * CONNECTIONS)
    cpu_s = target.cpu_s()
    posted = await post(target, paths, body, connections=CONNECTIONS, seconds=seconds)
    cpu_s = target.cpu_s() - cpu_s
    if posted.refused:
        raise Lost(f"{target.name}: {posted}")
    return {
        "appends/s": posted.answered / posted.seconds,
        "µs/event": cpu_s / posted.answered * 1e6,
        "append p50 ms": posted.p50,
    }


async def _fan_out(target: Target, count: int, seconds: float) -> Figures:
    (run_id,) = await create_runs(target, 1)
    path, body, first = [append_path(run_id)], body_for(target), first_frames(target)
    async with Readers(target.address, [target.stream_request(run_id)], target.marker, count) as readers:
        await readers.wait_open(SETTLE_S)
        await post(target, path, body, connections=1, count=1)
        if not await readers.wait_frames(first * count, SETTLE_S):
            raise Lost("the first event did not come within a minute")
        cpu_s, began = target.cpu_s(), time.monotonic()
        posted = await post(target, path, body, rate=RATE, count=int(RATE * seconds))
        if not await readers.wait_frames((first + posted.answered) * count, SETTLE_S):
            raise Lost("not every event came within a minute")
        took_s, cpu_s = time.monotonic() - began, target.cpu_s() - cpu_s
        seen = await readers.report()
    if posted.refused or seen.closed or seen.faults or seen.least != first + posted.answered:
        raise Lost(f"{target.name}: {posted} {seen}")
    delivered = count * posted.answered
    return {"deliveries/s": delivered / took_s, "µs/delivery": cpu_s / delivered * 1e6, "p99 ms": seen.p99}
