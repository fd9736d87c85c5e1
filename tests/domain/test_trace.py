"""The execution trace: durations between things that happened, each null until it has come to that."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.domain.lifecycle import Status
from gateway.domain.run import Run, RunState
from gateway.domain.trace import ExecutionTrace, trace
from tests.support.histories import BEGIN_MS, make_spec

QUEUED = {"queued_ms": BEGIN_MS + 10}
CLAIMED = {**QUEUED, "claimed_ms": BEGIN_MS + 110, "claim_took_ms": 3}
STARTED = {**CLAIMED, "attempt_started_ms": BEGIN_MS + 150}


def make_run(state: dict[str, Any], *, beat: int = 0, updated: int = 0, output: int | None = None) -> Run:
    """Return a run that was created at `BEGIN_MS`; other times are in ms after that."""
    return Run(
        spec=make_spec(created_us=BEGIN_MS * 1_000),
        state=RunState(**{"status": Status.RUNNING, **state}),
        rev=1,
        head_seq=1,
        head_tag=1,
        first_seq=1,
        updated_ms=BEGIN_MS + updated,
        beat_ms=BEGIN_MS + beat,
        output_ms=0 if output is None else BEGIN_MS + output,
    )


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({}, {}),
        (QUEUED, {}),
        (CLAIMED, {"queue_wait_ms": 100, "dequeue_ms": 3, "dispatch_ms": 110}),
        # It waits again: nothing of the claim before is left.
        ({**STARTED, "queued_ms": BEGIN_MS + 500}, {}),
    ],
)
def test_nothing_is_told_before_it_happened(state: dict[str, Any], told: dict[str, int]) -> None:
    """A run that waits has no durations, one that is claimed those of its claim."""
    assert trace(make_run(state)) == ExecutionTrace(**told)


@pytest.mark.parametrize(
    ("times", "transfer_ms"),
    [
        ({"beat": 150, "updated": 150}, 0),
        ({"beat": 400, "updated": 400}, 250),
        # A heartbeat after the last event.
        ({"beat": 900, "updated": 400}, 250),
        # Somebody else's event after the last of the attempt, such as a pause.
        ({"beat": 400, "updated": 900}, 250),
    ],
)
def test_a_transfer_goes_to_the_last_event_of_the_attempt(times: dict[str, int], transfer_ms: int) -> None:
    """A sign of life adds nothing to it, nor does what others did since."""
    assert trace(make_run(STARTED, **times)).transfer_ms == transfer_ms


def test_an_ended_run_has_them_all() -> None:
    """Up to its end, whatever is noted after that."""
    ended = make_run({**STARTED, "ended_ms": BEGIN_MS + 1_000}, beat=800, updated=5_000, output=230)
    assert trace(ended) == ExecutionTrace(
        queue_wait_ms=100,
        dequeue_ms=3,
        connect_ms=40,
        ttfb_ms=80,
        transfer_ms=850,
        total_ms=1_000,
        dispatch_ms=110,
    )


def test_output_of_an_attempt_before_is_not_the_first_byte() -> None:
    """Only what the present attempt said counts."""
    assert trace(make_run(STARTED, output=140, beat=150, updated=150)).ttfb_ms is None
