"""Many readers at once from the beginning of a long run."""

from __future__ import annotations

import time
from collections.abc import Sequence

from loadtest.measuring import Case, Figures, Lost
from loadtest.readers import Readers
from loadtest.runs import append_path, body_for, create_runs, first_frames
from loadtest.targets import Target
from loadtest.writers import post

SETTLE_S = 120.0
BATCH = 500


def cases(against: Sequence[str], *, readers: int, events: int, fsync: str = "everysec") -> list[Case]:
    """Return a case a target."""

    async def run(target: Target) -> Figures:
        return await _run(target, readers, events)

    about: dict[str, object] = {"readers": readers, "events": events}
    # The bare loop keeps nothing that could be replayed.
    return [Case(target=name, about=about, measure=run, fsync=fsync) for name in against if name != "loop"]


def snapshot_cases(*, readers: int, events: int) -> list[Case]:
    """Return the gateway's case: the same with a state in place of the events, whose number then matters little."""

    async def run(target: Target) -> Figures:
        (run_id,) = await create_runs(target, 1)
        path = [append_path(run_id)]
        posted = await post(target, path, body_for(target, BATCH), connections=1, count=events // BATCH)
        cpu_s, began = target.cpu_s(), time.monotonic()
        request = target.stream_request(run_id, "?snapshot=true")
        async with Readers(target.address, [request], target.marker, readers, at_once=readers) as reading:
            if not await reading.wait_frames(readers, SETTLE_S):
                raise Lost("not every reader had its state within two minutes")
            took_s, cpu_s = time.monotonic() - began, target.cpu_s() - cpu_s
            # What comes after the state comes to everybody.
            await post(target, path, body_for(target), connections=1, count=1)
            if not await reading.wait_frames(2 * readers, SETTLE_S):
                raise Lost("the event after the state did not come to every reader")
            seen = await reading.report()
        if posted.refused or seen.closed or seen.faults or seen.least != 2:
            raise Lost(f"{target.name}: {posted} {seen}")
        return {"all after s": took_s, "CPU s": cpu_s}

    return [Case(target="gateway", about={"readers": readers, "events": events}, measure=run)]


async def _run(target: Target, count: int, events: int) -> Figures:
    (run_id,) = await create_runs(target, 1)
    # One event a request: nchan has no other, and the order is the same for everybody.
    posted = await post(target, [append_path(run_id)], body_for(target), connections=4, count=events)
    whole = first_frames(target) + events - 1
    before_bytes, cpu_s = target.rss_bytes(), target.cpu_s()
    began = time.monotonic()
    async with Readers(target.address, [target.stream_request(run_id)], target.marker, count, at_once=count) as readers:
        if not await readers.wait_frames(whole * count, SETTLE_S):
            raise Lost("not everything came within two minutes")
        took_s = time.monotonic() - began
        cpu_s, grown_bytes = target.cpu_s() - cpu_s, target.rss_bytes() - before_bytes
        seen = await readers.report()
    if posted.refused or seen.closed or seen.least != whole or seen.faults:
        raise Lost(f"{target.name}: {posted} {seen}")
    return {
        "all after s": took_s,
        "deliveries/s": whole * count / took_s,
        "CPU s": cpu_s,
        "grown MiB": grown_bytes / 1024**2,
    }
