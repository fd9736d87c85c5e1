"""Where the time of a run's present attempt went, from times that were measured as it happened."""

from __future__ import annotations

import msgspec

from gateway.domain.run import Run


class ExecutionTrace(msgspec.Struct, frozen=True):
    """Durations in ms; None where it has not come to that.

    `queue_wait_ms` queued to claimed, `dequeue_ms` the claim itself, `connect_ms` claimed to first append,
    `ttfb_ms` started to first message or output, `transfer_ms` first to last event of the attempt,
    `dispatch_ms` created to claimed, `total_ms` created to ended.
    """

    queue_wait_ms: int | None = None
    dequeue_ms: int | None = None
    connect_ms: int | None = None
    ttfb_ms: int | None = None
    transfer_ms: int | None = None
    total_ms: int | None = None
    dispatch_ms: int | None = None


def trace(run: Run) -> ExecutionTrace:
    """Return the run's execution trace."""
    state, created_ms = run.state, run.spec.created_us // 1000
    claimed_ms, started_ms = state.claimed_ms, state.attempt_started_ms
    if claimed_ms is not None and claimed_ms < (state.queued_ms or 0):
        # It waits again: that claim was another attempt's.
        claimed_ms = started_ms = None
    if claimed_ms is not None and started_ms is not None and started_ms < claimed_ms:
        # That start was the attempt's before it was handed over.
        started_ms = None
    output_ms = run.output_ms if started_ms is not None and run.output_ms >= started_ms else None
    # A heartbeat is no event, and what others did since is none of the attempt's.
    last_ms = None if started_ms is None else state.ended_ms or max(min(run.beat_ms, run.updated_ms), started_ms)
    return ExecutionTrace(
        queue_wait_ms=_between(state.queued_ms, claimed_ms),
        dequeue_ms=None if claimed_ms is None else state.claim_took_ms,
        connect_ms=_between(claimed_ms, started_ms),
        ttfb_ms=_between(started_ms, output_ms),
        transfer_ms=_between(started_ms, last_ms),
        total_ms=_between(created_ms, state.ended_ms),
        dispatch_ms=_between(created_ms, claimed_ms),
    )


def _between(from_ms: int | None, to_ms: int | None) -> int | None:
    return None if from_ms is None or to_ms is None else max(0, to_ms - from_ms)
