"""A fault done to a bench while a crew works, and what came of it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tests.faults.bench import Bench
from tests.faults.catalogue import Fault
from tests.faults.check import Broken, Finding, check
from tests.faults.crew import gather_crew
from tests.faults.history import History

LOSSES = (Broken.LOST, Broken.HOLE, Broken.SKIPPED, Broken.MISLED, Broken.UNFINISHED)
REPEATS = (Broken.TWICE, Broken.REPEATED)
WARM_EVENTS = 20


class Played(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one fault."""

    fault: str
    appended: int
    delivered: int
    told_lost: int
    lost: int
    repeated: int
    write_pause_s: float
    read_pause_s: float
    findings: list[Finding]


async def play(bench: Bench, fault: Fault, *, keep: Path | None = None) -> Played:
    """Do a fault to a bench while a crew works, before it and after it, and hold the history against the promises.

    Args:
        keep: Where the history is written, if anything is found in it.
    """
    async with gather_crew(bench.direct, bench.client_hop.url, fault.pace) as crew:
        await crew.grows(WARM_EVENTS)
        await fault.play(bench, crew)
        await crew.catches_up()
    assert crew.history is not None
    played = sum_up(fault, crew.history)
    if played.findings and keep is not None:
        (keep / f"{crew.run_id}.json").write_bytes(msgspec.json.encode((played, crew.history)))
    return played


def sum_up(fault: Fault, history: History) -> Played:
    """Return what a history shows, in figures."""
    verdict = check(history)
    return Played(
        fault=fault.title,
        appended=history.acknowledged,
        delivered=history.delivered,
        told_lost=verdict.told_lost,
        lost=verdict.count(*LOSSES),
        repeated=verdict.count(*REPEATS),
        write_pause_s=history.write_pause_s(),
        read_pause_s=history.read_pause_s(),
        findings=verdict.findings,
    )
