"""Cases, measured in turn and again, and the medians of what came out."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import httpx
import msgspec
import uvloop

from loadtest import machine, targets

Figures = dict[str, float]
Row = dict[str, object]
Measure = Callable[[targets.Target], Coroutine[Any, Any, Figures]]


class Case(msgspec.Struct, frozen=True):
    """One line of a scenario's table: a target, how it is set up, and what is done to it.

    Args:
        about: What tells this line from others.
        group: Lines of one group are compared with the first of them.
    """

    target: str
    about: dict[str, object]
    measure: Measure
    group: str = ""
    fsync: str = "everysec"
    environ: dict[str, str] = {}


FAILED = "did not get through"


class Lost(Exception):
    """A reader did not get every event once and in order, or a request was refused: the figures mean nothing."""


def measure(
    cases: Sequence[Case], *, repeats: int, compare: str, say: Callable[[str], None], until_s: float = math.inf
) -> list[Row]:
    """Return a row a case: medians of interleaved repeats, and the ratio of `compare` to the group's first.

    `noise %` is the share of the machine that others had, `spread %` how far the repeats lie apart.

    Args:
        until_s: When no repeat after the first is begun any more, on the monotonic clock.
    """
    found: list[list[Figures]] = [[] for _ in cases]
    for repeat in range(repeats):
        if repeat and time.monotonic() >= until_s:
            say(f"{repeat} of {repeats} repeats: the time is up")
            break
        for case, figures in zip(cases, found, strict=True):
            say(f"{repeat + 1}/{repeats} {case.target} {' '.join(map(str, case.about.values()))}")
            measured = _try(case, say)
            if measured is not None:
                figures.append(measured)
    rows = [_row(case, figures, compare) for case, figures in zip(cases, found, strict=True)]
    for case, row in zip(cases, rows, strict=True):
        first = next(r for c, r in zip(cases, rows, strict=True) if c.group == case.group)
        row["×"] = _ratio(row.get(compare), first.get(compare))
    return rows


def _try(case: Case, say: Callable[[str], None]) -> Figures | None:
    """Return the figures; None for a target that did not get through, which is a result too."""
    try:
        with targets.start(case.target, fsync=case.fsync, environ=case.environ) as target:
            with machine.Disturbance() as disturbance:
                measured = uvloop.run(case.measure(target))
            return {**measured, "noise %": disturbance.share * 100}
    except (Lost, OSError, SystemExit, TimeoutError, httpx.HTTPError) as lost:
        say(f"{case.target} did not get through: {lost}")
        return None


def is_noisy(row: Row) -> bool:
    """Whether a row's figures should not be trusted to `machine.SPREAD`."""
    disturbed = _number(row.get("noise %")) > machine.NOISY_SHARE * 100
    return disturbed or _number(row.get("spread %")) > machine.SPREAD * 100


def _row(case: Case, figures: Sequence[Figures], compare: str) -> Row:
    row: Row = {"target": case.target, **case.about}
    if not figures:
        return {**row, compare: FAILED}
    row |= {name: statistics.median(each[name] for each in figures) for name in figures[0]}
    values = [each[compare] for each in figures]
    middle = statistics.median(values)
    row["spread %"] = (max(values) - min(values)) / middle * 100 if middle else 0.0
    return row


def _ratio(value: object, first: object) -> float:
    return _number(value) / _number(first) if _number(first) else 0.0


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
