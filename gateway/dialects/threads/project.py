"""Runs and their events in the words of the threads API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from gateway.dialects.threads import wire
from gateway.domain.events import Event, TypeFilter
from gateway.domain.lifecycle import Status
from gateway.domain.run import Actor, Run
from gateway.domain.times import format_time_us
from gateway.entry.projection import Frame
from gateway.entry.requests import at
from gateway.entry.statuses import StatusWords

NAME = "threads"

WORDS = StatusWords(
    {
        Status.DELAYED: "queued",
        Status.QUEUED: "queued",
        Status.DEQUEUED: "queued",
        Status.RUNNING: "running",
        Status.WAITING: "waiting_for_input",
        Status.PAUSED: "paused",
        Status.CANCELLING: "cancelled",
        Status.COMPLETED: "completed",
        Status.FAILED: "failed",
        Status.CANCELLED: "cancelled",
        Status.TIMED_OUT: "failed",
        Status.CRASHED: "failed",
        Status.SYSTEM_FAILED: "failed",
        Status.EXPIRED: "failed",
        Status.DEAD_LETTER: "failed",
    }
)

# Whatever way a run failed, its stream says so in the one word that its status has.
EVENT_TYPES: dict[str, wire.EventType] = {
    "run.started": "run.started",
    "message.delta": "message.delta",
    "tool.call": "tool.call",
    "tool.result": "tool.result",
    "run.waiting_for_input": "run.waiting_for_input",
    "run.completed": "run.completed",
    "run.failed": "run.failed",
    "run.timed_out": "run.failed",
    "run.crashed": "run.failed",
    "run.system_failed": "run.failed",
    "run.expired": "run.failed",
    "run.dead_lettered": "run.failed",
    "run.cancelled": "run.cancelled",
}
SHOWN = TypeFilter(frozenset(EVENT_TYPES))


def frame_of(event: Event) -> Frame | None:
    """Return an event's frame."""
    shown = EVENT_TYPES.get(event.type)
    return None if shown is None else Frame(wire.RunEvent(event.seq, shown, event.data, event.created_at))


def status_of(run: Run) -> wire.Status:
    """Return a run's status word."""
    return cast(wire.Status, WORDS.of(run.status))


def created_at(run: Run) -> str:
    """Return when a run was created, exactly enough to be a cursor."""
    return format_time_us(run.spec.created_us)


def user_of(run: Run) -> Actor:
    """Return who created a run; the system is no user, and has no name."""
    return Actor("system") if run.spec.actor.kind == "system" else run.spec.actor


def created(run: Run) -> wire.Created:
    """Return a run that was just created."""
    return wire.Created(run.id, run.spec.trace_id)


def thread_run(run: Run) -> wire.ThreadRun:
    """Return a run as its thread lists it."""
    return wire.ThreadRun(run.id, status_of(run), created_at(run))


def whole_run(run: Run) -> wire.Run:
    """Return a run."""
    return wire.Run(
        run_id=run.id,
        org_id=run.spec.tenant,
        thread_id=run.spec.thread_id,
        created_by_user_id=user_of(run).id,
        status=status_of(run),
        created_at=created_at(run),
        trace_id=run.spec.trace_id,
    )


def listed_run(run: Run) -> wire.ListedRun:
    """Return a run as the organization's list shows it."""
    spec, state, totals, status, user = run.spec, run.state, run.totals, status_of(run), user_of(run)
    prompt = totals.prompt_tokens
    return wire.ListedRun(
        run_id=run.id,
        org_id=spec.tenant,
        thread_id=spec.thread_id,
        status=status,
        model=run.model,
        persona_id=spec.extensions.get(NAME, {}).get("persona_id"),
        total_input_tokens=prompt,
        total_output_tokens=totals.completion_tokens,
        total_cost_usd=_shared(totals.cost_microusd, 1_000_000),
        duration_ms=_duration_ms(run),
        cache_hit_rate=_shared(totals.cached_tokens, prompt) if prompt else None,
        credits_used=_shared(totals.credits_micro, 1_000_000),
        created_at=created_at(run),
        completed_at=at(state.ended_ms) if status == "completed" else None,
        failed_at=at(state.ended_ms) if status == "failed" else None,
        created_by_user_id=user.id,
        created_by_user_name=user.name,
        created_by_email=user.email,
    )


def _duration_ms(run: Run) -> int | None:
    """Return how long a run took, None before it has ended or where it never started."""
    started_ms, ended_ms = run.state.started_ms, run.state.ended_ms
    return None if started_ms is None or ended_ms is None else ended_ms - started_ms


def _shared(part: int, whole: int) -> wire.Number:
    """Return a quotient; a whole number stays one."""
    return part // whole if part % whole == 0 else part / whole


def tell(problem: Mapping[str, Any]) -> tuple[int, wire.Refusal]:
    """Word a refusal."""
    message, details = WORDS.retell(problem)
    if problem["code"] == "request_id_required":
        message = "Several questions are open, and this API has no word for which one is answered."
    return problem["status"], wire.Refusal(problem["code"], message, problem["request_id"], details)
