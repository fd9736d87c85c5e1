"""Appends over warm connections: how many, how long one takes, what an event costs gateway and store."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from loadtest.measuring import Case, Figures, Lost
from loadtest.runs import append_path, body_for, create_runs
from loadtest.targets import Target
from loadtest.writers import post

SHAPES = ((1, 1), (16, 1), (1, 100), (16, 100))


def cases(against: Sequence[str], *, seconds: float, fsync: str = "everysec") -> list[Case]:
    """Return the cases of each shape, connections and events a request, target by target."""

    async def run(target: Target, connections: int, batch: int) -> Figures:
        return await _run(target, connections, batch, seconds)

    return [
        Case(
            target=name,
            about={"connections": connections, "events/request": batch, "fsync": fsync},
            measure=partial(run, connections=connections, batch=batch),
            group=f"{connections} {batch}",
            fsync=fsync,
        )
        for connections, batch in SHAPES
        for name in against
        # nchan takes one event a request, naive stores a batch one by one, and the bare loop stores nothing.
        if name != "loop" and (batch == 1 or name == "gateway")
    ]


async def _run(target: Target, connections: int, batch: int, seconds: float) -> Figures:
    paths = [append_path(run_id) for run_id in await create_runs(target, connections)]
    body = body_for(target, batch)
    await post(target, paths, body, connections=connections, count=4 * connections)
    cpu_s, store_s = target.cpu_s(), target.cpu_s(stores=True)
    posted = await post(target, paths, body, connections=connections, seconds=seconds)
    cpu_s, store_s = target.cpu_s() - cpu_s, target.cpu_s(stores=True) - store_s
    if posted.refused:
        raise Lost(f"{target.name}: {posted}")
    events = posted.answered * batch
    return {
        "requests/s": posted.answered / posted.seconds,
        "events/s": events / posted.seconds,
        "p50 ms": posted.p50,
        "p99 ms": posted.p99,
        "µs/event": cpu_s / events * 1e6,
        "store µs/event": store_s / events * 1e6,
    }
