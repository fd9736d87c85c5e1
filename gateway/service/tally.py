"""What operators see of how runs change: appends counted and timed, changes counted, lives traced."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Sequence

from gateway import telemetry, tracing
from gateway.domain.events import NewEvent
from gateway.domain.lifecycle import Status
from gateway.domain.run import Run
from gateway.domain.traces import run_span_id
from gateway.errors import GatewayError
from gateway.store.runs import Appended

# Finding a counter by its label costs more than counting.
_APPENDS, _DUPLICATES = telemetry.APPENDS.labels("ok"), telemetry.APPENDS.labels("duplicate")


async def measure_append(run_id: str, put: Awaitable[Appended], events: int) -> Appended:
    """Await an append of so many events, and count, time and trace it."""
    began = time.monotonic()
    try:
        appended = await put
    except GatewayError as error:
        telemetry.APPENDS.labels(error.code).inc()
        tracing.record_call("append", time.monotonic() - began, {"gateway.run_id": run_id}, error.code)
        raise
    telemetry.APPEND_SECONDS.observe(time.monotonic() - began)
    if appended.duplicate:
        _DUPLICATES.inc()
    else:
        _APPENDS.inc()
        telemetry.EVENTS_APPENDED.inc(events)
    if tracing.is_on():
        facts = {"gateway.run_id": run_id, "gateway.events": events, "gateway.seq": appended.last_seq}
        tracing.record_call("append", time.monotonic() - began, facts)
    return appended


def count_status(run: Run) -> None:
    """Count that a run is in a status that it was not in before."""
    telemetry.RUN_CHANGES.labels(str(run.status)).inc()


def count_change(before: Run, after: Run, events: Sequence[NewEvent]) -> None:
    """Count what these events have made of a run; one that has ended with them is traced."""
    if after.state.terminal and not before.state.terminal and tracing.is_on():
        _trace_life(after)
    if before.status is not after.status:
        count_status(after)
    for event in events:
        if event.type in ("run.attempt_failed", "run.dead_lettered"):
            telemetry.ATTEMPTS_FAILED.labels(event.data.get("cause", "unknown")).inc()


def count_claim(run: Run, worker: str | None, *, took_s: float) -> None:
    """Count how long a run waited for the claim that has just been made; in the run's trace it is a span."""
    waited_ms = max(0, (run.state.claimed_ms or 0) - (run.state.queued_ms or 0))
    telemetry.CLAIM_WAIT_SECONDS.observe(waited_ms / 1000)
    trace_id = run.spec.trace_id
    if trace_id is None or not tracing.keeps(trace_id):
        return
    now_ns = time.time_ns()
    facts = {
        "gateway.run_id": run.id,
        "gateway.queue": run.spec.queue,
        "gateway.worker": worker,
        "gateway.waited_ms": waited_ms,
        "gateway.request_id": telemetry.request_id.get(),
    }
    place = tracing.Place(trace_id, tracing.new_span_id())
    began_ns = now_ns - round(took_s * 1e9)
    tracing.record(tracing.Span("claim", place, run_span_id(run.id), began_ns, now_ns, "consumer", facts))


def _trace_life(run: Run) -> None:
    """Have the life of a run told that has just ended; the trace that it belongs to was told at its creation."""
    spec = run.spec
    if spec.trace_id is None or not tracing.keeps(spec.trace_id):
        return
    facts = {
        "gateway.run_id": run.id,
        "gateway.agent_id": spec.agent_id,
        "gateway.tenant": spec.tenant,
        "gateway.status": str(run.status),
        "gateway.events": run.head_seq,
        "gateway.attempt": run.state.attempt,
    }
    milestones = {"started": run.state.started_ms} if run.state.started_ms is not None else {}
    span = tracing.Span(
        f"run {spec.agent_id}",
        tracing.Place(spec.trace_id, run_span_id(run.id)),
        spec.parent_span_id,
        spec.created_us * 1_000,
        run.updated_ms * 1_000_000,
        facts=facts,
        failure=None if run.status is Status.COMPLETED else str(run.status),
        milestones={name: at_ms * 1_000_000 for name, at_ms in milestones.items()},
    )
    tracing.record(span)
