"""An attempt from its claim to its end: claimed, started, failed and tried again, given back, or lost."""

from __future__ import annotations

from typing import Any

from gateway.domain.draft import Draft
from gateway.domain.lifecycle import QUEUED, STARTABLE, Action, Status
from gateway.domain.retry import delay_ms, unstarted_delay_ms
from gateway.domain.run import SYSTEM, Actor, Run, RunSpec
from gateway.domain.times import format_time
from gateway.errors import Fenced, IllegalTransition

FAILED, TIMED_OUT, LEASE_LOST = "failed", "timed_out", "lease_lost"
"""Why an attempt ended without ending its run."""

_ENDS = {FAILED: "run.failed", TIMED_OUT: "run.timed_out", LEASE_LOST: "run.crashed"}


def queue(spec: RunSpec, draft: Draft) -> None:
    """Put a run where its next attempt can be claimed, or begun where it is direct."""
    draft.add("run.queued", {"expires_at": expires_at(spec, draft.at_ms)})


def queue_answered(run: Run, draft: Draft) -> None:
    """Queue a run that its last answer has freed: it waited without a holder, and whoever claims it goes on."""
    if draft.status is Status.QUEUED:
        queue(run.spec, draft)


def expires_at(spec: RunSpec, at_ms: int) -> str | None:
    """Return when a run that is queued now has waited too long, None for never."""
    return None if spec.start_timeout_ms is None else format_time(at_ms + spec.start_timeout_ms)


def claim(run: Run, draft: Draft, *, token: str, worker: str | None, took_ms: int) -> None:
    """Give the next attempt to a worker.

    Args:
        token: What the worker proves its lease with; it is not written to the log.
        worker: The worker's name for people.
        took_ms: How long the claim itself has taken so far.
    """
    draft.require(Action.CLAIM)
    if not run.spec.is_queued:
        raise IllegalTransition("A direct run is nobody's to claim.", current_status=str(draft.status), permitted=[])
    draft.lease = token
    draft.add(
        "run.dequeued",
        {
            "attempt": draft.state.attempt,
            "worker": worker,
            "claim_took_ms": took_ms,
            "lease_expires_at": format_time(draft.at_ms + run.spec.lease_ms),
        },
    )


def start(run: Run, draft: Draft) -> None:
    """Start the present attempt: the first append of its writer does.

    Raises:
        Fenced: the run has to be claimed first.
    """
    draft.require(Action.START)
    if draft.status is not STARTABLE[run.spec.mode]:
        raise Fenced("The run is not leased to this writer; claim it first.", attempt=draft.state.attempt)
    state = draft.state
    again = state.attempt > 1 and not state.continues
    if again or state.supersedes_from is not None:
        draft.add("run.attempt_started", {"attempt": state.attempt, "supersedes": _superseded(run, draft)})
    draft.add("run.started", {"attempt": state.attempt, "continued": True if state.continues else None})


def _superseded(run: Run, draft: Draft) -> list[int] | None:
    """Return the first and last seq of what was abandoned after the checkpoint that the attempt goes on from."""
    first, last = draft.state.supersedes_from, run.marks.get("attempt", 1) - 1
    if first is None:
        return None
    first = max(first, (run.checkpoint_seq or 0) + 1)
    return [first, last] if first <= last else None


def abandoned_from(run: Run, draft: Draft) -> int:
    """Return the seq from which on the present attempt, and what it was to do again, is abandoned."""
    # An attempt that never started abandons nothing of its own, but what it was to write again.
    return draft.state.supersedes_from or run.marks.get("attempt", 1)


def close_questions(draft: Draft, reason: str) -> None:
    """Close what the run still asks."""
    for question in draft.state.open:
        draft.add("run.input_closed", {"request_id": question.request_id, "reason": reason})


def fail(run: Run, draft: Draft, cause: str, data: dict[str, Any], *, again: bool = True) -> None:
    """End the present attempt; another follows after its rest, or the run ends with this one.

    Args:
        cause: `failed`, `timed_out` or `lease_lost`.
        data: What the end says where no other attempt follows: `error`, and whose word it is.
        again: False where another attempt would fail as well.
    """
    draft.require(Action.FAIL_ATTEMPT)
    policy, state = run.spec.policy, draft.state
    if not again or state.failures + 1 >= policy.max_attempts:
        close_questions(draft, "run_ended")
        kind = "run.dead_lettered" if policy.dead_letter else _ENDS[cause]
        draft.add(kind, {**data, "cause": cause, "attempt": state.attempt} if policy.dead_letter else data)
        return
    close_questions(draft, "attempt_failed")
    rest_ms = delay_ms(policy, state.failures + 1, draft.jitter)
    _retry_later(run, draft, cause, data, rest_ms, counted=True)


def _retry_later(run: Run, draft: Draft, cause: str, data: dict[str, Any], rest_ms: int, *, counted: bool) -> None:
    attempt = draft.state.attempt
    draft.add(
        "run.attempt_failed",
        {
            **data,
            "attempt": attempt,
            "cause": cause,
            # The attempt counts when it starts: one that was only claimed comes again under its number.
            "next_attempt": attempt + counted,
            "next_retry_at": format_time(draft.at_ms + rest_ms),
            "supersedes_from": abandoned_from(run, draft) if counted else draft.state.supersedes_from,
        },
    )


def lose_lease(run: Run, draft: Draft) -> None:
    """Take the run from a worker that has fallen silent."""
    draft.require(Action.LOSE_LEASE)
    data = {"actor": SYSTEM, "error": _lost_error(run)}
    if draft.status is Status.DEQUEUED:
        rest_ms = unstarted_delay_ms(draft.state.unstarted + 1, draft.jitter)
        _retry_later(run, draft, LEASE_LOST, data, rest_ms, counted=False)
    elif draft.status is Status.PAUSED:
        _hand_over(run, draft, SYSTEM, LEASE_LOST)
    elif draft.status is Status.CANCELLING:
        end(draft, "run.cancelled", {"actor": SYSTEM, "reason": "its holder fell silent"})
    else:
        fail(run, draft, LEASE_LOST, data)


def _lost_error(run: Run) -> dict[str, str]:
    lease_s = run.spec.lease_ms / 1000
    if run.state.status is Status.DEQUEUED:
        return {"code": "lease_lost", "message": "The worker did not begin in time."}
    return {"code": "lease_lost", "message": f"The worker was silent for {lease_s:g} s."}


def release(run: Run, draft: Draft, actor: Actor, reason: str | None, *, keeps_place: bool = False) -> None:
    """Give the run back on behalf of the worker that holds it; no attempt is used up.

    At a question the attempt goes on after the answer, also where that came a moment before the holder let go;
    elsewhere it is done again by whoever claims it next.

    Args:
        keeps_place: Nobody came to begin it: it stands in its queue as if it had not been claimed.
    """
    draft.require(Action.RELEASE)
    if not draft.state.leased:
        raise Fenced("Nobody holds a lease of this run.", attempt=draft.state.attempt)
    if draft.status is Status.CANCELLING:
        end(draft, "run.cancelled", {"actor": actor, "reason": reason or "its holder let go"})
        return
    _hand_over(run, draft, actor, reason, keeps_place=keeps_place)


def _hand_over(run: Run, draft: Draft, actor: Actor, reason: str | None, *, keeps_place: bool = False) -> None:
    state = draft.state
    queued = state.status in (Status.DEQUEUED, Status.RUNNING)
    # Whoever has written nothing since the last answer lets go of the question: there is nothing to do again.
    at_answer = state.held and run.marks.get("input", 0) > run.holder_seq
    abandons = state.held and state.status is not Status.WAITING and not state.open and not at_answer
    draft.add(
        "run.released",
        {
            "actor": actor,
            "reason": reason,
            "attempt": state.attempt,
            "supersedes_from": abandoned_from(run, draft) if abandons else state.supersedes_from,
            "abandons": abandons or None,
            "continues": at_answer or None,
            "keeps_place": keeps_place or None,
            "expires_at": expires_at(run.spec, draft.at_ms) if queued else None,
        },
    )


def end(draft: Draft, kind: str, data: dict[str, Any], *, reason: str = "run_ended") -> None:
    """End the run with event `kind`; its open questions are closed before it."""
    close_questions(draft, reason)
    draft.add(kind, data)


def is_retriable(run: Run, draft: Draft) -> bool:
    """Whether a failure now is one of the attempt, which may be followed by another, and not the run's end."""
    # A paused or cancelling run was not meant to get on: its holder may still end it.
    return run.spec.mode == QUEUED and draft.status in (Status.RUNNING, Status.WAITING)
