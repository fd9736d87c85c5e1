"""What events leave on the record of their run beside its state: sums, places, the model that spoke last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from gateway.domain.appends import OUTPUT_TYPES
from gateway.domain.catalogue import UsageRecorded
from gateway.domain.events import NewEvent
from gateway.domain.fold import measure_usage
from gateway.store.runs import TOTALS

MARKED: Final = {"checkpoint.created": "checkpoint", "output.set": "output"}
USAGE: Final = "usage.recorded"
_LEAVING: Final = frozenset({*MARKED, USAGE})


def are_none(events: Sequence[NewEvent]) -> bool:
    """Whether the events leave nothing on the record, as most do."""
    return _LEAVING.isdisjoint([event.type for event in events])


def says_something(events: Sequence[NewEvent]) -> bool:
    """Whether any event says something to whoever watches."""
    return not OUTPUT_TYPES.isdisjoint([event.type for event in events])


def plain_marks(events: Sequence[NewEvent]) -> dict[str, int]:
    """Return the marks of events that change no state: where a later attempt goes on from, and the last output."""
    return {MARKED[event.type]: index for index, event in enumerate(events) if event.type in MARKED}


def increments(events: Sequence[NewEvent]) -> dict[str, int]:
    """Return what events add to the running totals."""
    sums = dict.fromkeys(TOTALS, 0)
    for event in events:
        if event.type == USAGE:
            used = measure_usage(msgspec.convert(event.data, UsageRecorded))
            for name in TOTALS:
                sums[name] += getattr(used, name)
    return {f"u:{name}": total for name, total in sums.items() if total}


def notes(events: Sequence[NewEvent]) -> dict[str, str]:
    """Return what the record keeps of the newest event: the model that was used last."""
    models = [event.data["model"] for event in events if event.type == USAGE]
    return {"model": models[-1]} if models else {}
