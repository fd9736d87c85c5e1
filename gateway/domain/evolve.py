"""How each event of the gateway's own changes a run's state: the one reducer.

The store's record is written from it, and a refold of the log through it gives the same state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from gateway.domain.events import parse_time
from gateway.domain.lifecycle import ENDINGS, Status
from gateway.domain.run import Question, RunState, Settled

SETTLED_KEPT = 64
"""So many answered or closed questions a record remembers; the log has them all."""

Reducer = Callable[[RunState, dict[str, Any], int], RunState]


def create(data: dict[str, Any], _at_ms: int) -> RunState:
    """Return the state that `run.created` gives."""
    waits = data.get("scheduled_at") is not None or bool(data.get("depends_on"))
    status = Status.DELAYED if waits else Status.QUEUED
    return RunState(status=status, scheduled_ms=_ms(data, "scheduled_at"), preset=data.get("preset"))


def evolve(state: RunState | None, kind: str, data: dict[str, Any], at_ms: int) -> tuple[RunState, tuple[str, ...]]:
    """Return the state after one event, and the marks that take this event's seq.

    Args:
        kind: The event's type.
        at_ms: The event's `created_at`, in Unix ms.
    """
    if state is None:
        return create(data, at_ms), ("origin", "attempt")
    if kind in ENDINGS:
        return _end(state, ENDINGS[kind], data, at_ms), ()
    reducer = _REDUCERS.get(kind)
    return (reducer(state, data, at_ms) if reducer else state), _marks(state, kind, data)


def _marks(before: RunState, kind: str, data: dict[str, Any]) -> tuple[str, ...]:
    match kind:
        case "run.restarted":
            # What a checkpoint keeps still belongs to where the run began.
            return ("restart", "attempt") if data.get("checkpoint_seq") else ("origin", "restart", "attempt")
        case "run.attempt_failed":
            return ("attempt",) if data["next_attempt"] != data["attempt"] else ()
        case "run.released":
            return ("attempt",) if data.get("abandons") else ()
        case "checkpoint.created":
            return ("checkpoint",)
        case "output.set":
            return ("output",)
        case "run.input_received":
            return ("input", f"settled:{_slot(before)}")
        case "run.input_closed":
            return (f"settled:{_slot(before)}",)
        case "run.cancel_requested":
            return ("cancel",)
        case "run.paused":
            return ("pause",)
        case "run.resumed":
            return ("resume",)
    return ()


def _slot(state: RunState) -> int:
    return state.settled_count % SETTLED_KEPT


def _outdated(settled: tuple[Settled, ...]) -> tuple[Settled, ...]:
    """Return the questions as those of an abandoned attempt: whoever does it again asks them again."""
    return tuple(question if question.is_old else replace(question, is_old=True) for question in settled)


def _end(state: RunState, status: Status, data: dict[str, Any], at_ms: int) -> RunState:
    return replace(
        state,
        status=status,
        held=False,
        leased=False,
        paused_ms=None,
        next_retry_ms=None,
        ended_ms=at_ms,
        open=(),
        cancel_deadline_ms=None,
        expires_ms=None,
        scheduled_ms=None,
        output=data.get("output") if status is Status.COMPLETED else None,
        error=data.get("error"),
    )


def _queued(state: RunState, data: dict[str, Any], at_ms: int) -> RunState:
    attempt = state.attempt if state.next_attempt is None else state.next_attempt
    # Whoever comes from a rest, or from nowhere, stands behind those that wait.
    place_ms = at_ms if state.place_ms is None or state.status is Status.DELAYED else state.place_ms
    rested = replace(
        state, attempt=attempt, next_attempt=None, scheduled_ms=None, next_retry_ms=None, place_ms=place_ms
    )
    return _enqueue(rested, data, at_ms)


def _enqueue(state: RunState, data: dict[str, Any], at_ms: int) -> RunState:
    return replace(
        state,
        status=Status.QUEUED,
        held=False,
        leased=False,
        queued_ms=at_ms,
        expires_ms=_ms(data, "expires_at"),
    )


def _dequeued(state: RunState, data: dict[str, Any], at_ms: int) -> RunState:
    return replace(
        state,
        status=Status.DEQUEUED,
        leased=True,
        worker=data.get("worker"),
        claimed_ms=at_ms,
        claim_took_ms=data.get("claim_took_ms"),
        expires_ms=None,
    )


def _attempt_failed(state: RunState, data: dict[str, Any], _at_ms: int) -> RunState:
    counted = data["next_attempt"] != data["attempt"]
    retry_ms = _ms(data, "next_retry_at")
    return replace(
        state,
        status=Status.DELAYED,
        next_attempt=data["next_attempt"],
        held=False,
        leased=False,
        scheduled_ms=retry_ms,
        next_retry_ms=retry_ms,
        failures=state.failures + counted,
        unstarted=0 if counted else state.unstarted + 1,
        continues=state.continues and not counted,
        paused_for_ms=0,
        resumed_ms=None,
        supersedes_from=data.get("supersedes_from"),
        settled=_outdated(state.settled) if counted else state.settled,
        error=data.get("error"),
    )


def _released(state: RunState, data: dict[str, Any], at_ms: int) -> RunState:
    given_back = replace(
        state,
        held=False,
        leased=False,
        supersedes_from=data.get("supersedes_from"),
        # What was asked goes on after its answer; what was abandoned begins again.
        continues=bool(state.open or data.get("continues")) or (state.continues and not data.get("abandons")),
        settled=_outdated(state.settled) if data.get("abandons") else state.settled,
    )
    if state.status is Status.DEQUEUED and not data.get("keeps_place"):
        # Whoever gives it back could not begin it: the others have their turn before it comes again.
        return _enqueue(replace(given_back, place_ms=at_ms), data, at_ms)
    return _enqueue(given_back, data, at_ms) if state.status in (Status.DEQUEUED, Status.RUNNING) else given_back


def _started(state: RunState, _data: dict[str, Any], at_ms: int) -> RunState:
    return replace(
        state,
        status=Status.RUNNING,
        held=True,
        unstarted=0,
        continues=False,
        paused_for_ms=0,
        error=None,
        expires_ms=None,
        started_ms=at_ms if state.started_ms is None else state.started_ms,
        attempt_started_ms=at_ms,
        supersedes_from=None,
    )


def _asked(state: RunState, data: dict[str, Any], at_ms: int) -> RunState:
    question = Question(
        request_id=data["request_id"],
        prompt=data["prompt"],
        asked_ms=at_ms,
        schema=data.get("schema"),
        deadline_ms=_ms(data, "deadline_at"),
        on_timeout=data.get("on_timeout") or "keep",
        default=data.get("default"),
    )
    return replace(state, status=Status.WAITING, open=(*state.open, question))


def _answered(state: RunState, data: dict[str, Any], at_ms: int) -> RunState:
    return _close(state, data["request_id"], at_ms, answered=True)


def _closed(state: RunState, data: dict[str, Any], at_ms: int) -> RunState:
    return _close(state, data["request_id"], at_ms, answered=False)


def _close(state: RunState, request_id: str, at_ms: int, *, answered: bool) -> RunState:
    settled = (*state.settled, Settled(request_id, _slot(state), answered=answered))[-SETTLED_KEPT:]
    state = replace(state, settled=settled, settled_count=state.settled_count + 1)
    left = tuple(q for q in state.open if q.request_id != request_id)
    if state.status is not Status.WAITING or left:
        return replace(state, open=left)
    if state.held:
        return replace(state, open=left, status=Status.RUNNING)
    return replace(state, open=left, status=Status.QUEUED, queued_ms=at_ms)


def _paused(state: RunState, _data: dict[str, Any], at_ms: int) -> RunState:
    # Whoever claimed the run and did not start it yet has lost it.
    leased = state.leased and state.status is not Status.DEQUEUED
    return replace(state, status=Status.PAUSED, leased=leased, expires_ms=None, paused_ms=at_ms)


def _resumed(state: RunState, data: dict[str, Any], at_ms: int) -> RunState:
    if not state.held:
        rested = replace(state, paused_ms=None)
        return replace(rested, status=Status.WAITING) if state.open else _enqueue(rested, data, at_ms)
    return replace(
        state,
        status=Status.WAITING if state.open else Status.RUNNING,
        paused_ms=None,
        paused_for_ms=state.paused_for_ms + at_ms - (at_ms if state.paused_ms is None else state.paused_ms),
        resumed_ms=at_ms,
    )


def _cancelling(state: RunState, data: dict[str, Any], _at_ms: int) -> RunState:
    return replace(state, status=Status.CANCELLING, paused_ms=None, cancel_deadline_ms=_ms(data, "deadline_at"))


def _restarted(state: RunState, data: dict[str, Any], at_ms: int) -> RunState:
    return RunState(
        status=Status.QUEUED,
        attempt=data["attempt"],
        started_ms=state.started_ms,
        queued_ms=at_ms,
        place_ms=at_ms,
        supersedes_from=data.get("supersedes_from"),
        checkpoint_seq=data.get("checkpoint_seq"),
        settled=_outdated(state.settled),
        settled_count=state.settled_count,
        preset=data.get("preset") or state.preset,
        debug_mode=state.debug_mode,
        key_reset=state.key_reset,
        expires_ms=_ms(data, "expires_at"),
    )


def _dependency_met(state: RunState, data: dict[str, Any], _at_ms: int) -> RunState:
    return replace(state, met=(*state.met, data["run_id"]))


def _dependencies_met(state: RunState, _data: dict[str, Any], _at_ms: int) -> RunState:
    return replace(state, met=(), dependencies_met=True)


def _debug_mode_set(state: RunState, data: dict[str, Any], _at_ms: int) -> RunState:
    return replace(state, debug_mode=data["enabled"])


def _key_reset(state: RunState, _data: dict[str, Any], _at_ms: int) -> RunState:
    return replace(state, key_reset=True)


def _rescheduled(state: RunState, data: dict[str, Any], _at_ms: int) -> RunState:
    return replace(
        state,
        status=Status.DELAYED,
        scheduled_ms=parse_time(data["scheduled_at"]),
        next_retry_ms=None,
        expires_ms=None,
    )


def _ms(data: dict[str, Any], key: str) -> int | None:
    value = data.get(key)
    return None if value is None else parse_time(value)


_REDUCERS: dict[str, Reducer] = {
    "run.queued": _queued,
    "run.dequeued": _dequeued,
    "run.started": _started,
    "run.attempt_failed": _attempt_failed,
    "run.released": _released,
    "run.dependency_met": _dependency_met,
    "run.dependencies_met": _dependencies_met,
    "run.debug_mode_set": _debug_mode_set,
    "run.idempotency_key_reset": _key_reset,
    "run.waiting_for_input": _asked,
    "run.input_received": _answered,
    "run.input_closed": _closed,
    "run.paused": _paused,
    "run.resumed": _resumed,
    "run.cancel_requested": _cancelling,
    "run.restarted": _restarted,
    "run.rescheduled": _rescheduled,
}
