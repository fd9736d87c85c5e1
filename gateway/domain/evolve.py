"""How each event of the gateway's own changes a run's state: the one reducer.

The store's record is written from it, and a refold of the log through it gives the same state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from gateway.domain.events import parse_time
from gateway.domain.lifecycle import ENDINGS, Status
from gateway.domain.run import Question, RunState

Reducer = Callable[[RunState, dict[str, Any], int], RunState]


def create(data: dict[str, Any], _at_ms: int) -> RunState:
    """Return the state that `run.created` gives."""
    scheduled_at = data.get("scheduled_at")
    if scheduled_at is None:
        return RunState(status=Status.QUEUED)
    return RunState(status=Status.DELAYED, scheduled_ms=parse_time(scheduled_at))


def evolve(state: RunState | None, kind: str, data: dict[str, Any], at_ms: int) -> tuple[RunState, tuple[str, ...]]:
    """Return the state after one event, and the marks that take this event's seq.

    Args:
        kind: The event's type.
        at_ms: The event's `created_at`, in Unix ms.
    """
    if state is None:
        return create(data, at_ms), ("attempt",)
    if kind in ENDINGS:
        return _end(state, ENDINGS[kind], data, at_ms), ()
    reducer = _REDUCERS.get(kind)
    return (reducer(state, data, at_ms) if reducer else state), _marks(kind, data)


def _marks(kind: str, data: dict[str, Any]) -> tuple[str, ...]:
    match kind:
        case "run.restarted":
            return ("attempt",)
        case "run.input_received":
            return ("input", f"answered:{data['request_id']}")
        case "run.input_closed":
            return (f"closed:{data['request_id']}",)
        case "run.cancel_requested":
            return ("cancel",)
        case "run.paused":
            return ("pause",)
    return ()


def _end(state: RunState, status: Status, data: dict[str, Any], at_ms: int) -> RunState:
    return replace(
        state,
        status=status,
        held=False,
        paused_ms=None,
        ended_ms=at_ms,
        open=(),
        cancel_deadline_ms=None,
        expires_ms=None,
        scheduled_ms=None,
        output=data.get("output") if status is Status.COMPLETED else None,
        error=data.get("error"),
    )


def _queued(state: RunState, data: dict[str, Any], _at_ms: int) -> RunState:
    return replace(state, status=Status.QUEUED, scheduled_ms=None, expires_ms=_ms(data, "expires_at"))


def _started(state: RunState, _data: dict[str, Any], at_ms: int) -> RunState:
    return replace(
        state,
        status=Status.RUNNING,
        held=True,
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


def _closed(state: RunState, data: dict[str, Any], _at_ms: int) -> RunState:
    left = tuple(q for q in state.open if q.request_id != data["request_id"])
    if state.status is Status.WAITING and not left:
        return replace(state, open=left, status=Status.RUNNING if state.held else Status.QUEUED)
    return replace(state, open=left)


def _paused(state: RunState, _data: dict[str, Any], at_ms: int) -> RunState:
    return replace(state, status=Status.PAUSED, expires_ms=None, paused_ms=at_ms)


def _resumed(state: RunState, data: dict[str, Any], at_ms: int) -> RunState:
    if not state.held:
        return replace(state, status=Status.QUEUED, expires_ms=_ms(data, "expires_at"), paused_ms=None)
    return replace(
        state,
        status=Status.WAITING if state.open else Status.RUNNING,
        paused_ms=None,
        paused_for_ms=state.paused_for_ms + at_ms - (at_ms if state.paused_ms is None else state.paused_ms),
        resumed_ms=at_ms,
    )


def _cancelling(state: RunState, data: dict[str, Any], _at_ms: int) -> RunState:
    return replace(state, status=Status.CANCELLING, paused_ms=None, cancel_deadline_ms=_ms(data, "deadline_at"))


def _restarted(state: RunState, data: dict[str, Any], _at_ms: int) -> RunState:
    return RunState(
        status=Status.QUEUED,
        attempt=data["attempt"],
        started_ms=state.started_ms,
        supersedes_from=data.get("supersedes_from"),
        expires_ms=_ms(data, "expires_at"),
    )


def _rescheduled(state: RunState, data: dict[str, Any], _at_ms: int) -> RunState:
    return replace(state, status=Status.DELAYED, scheduled_ms=parse_time(data["scheduled_at"]), expires_ms=None)


def _ms(data: dict[str, Any], key: str) -> int | None:
    value = data.get(key)
    return None if value is None else parse_time(value)


_REDUCERS: dict[str, Reducer] = {
    "run.queued": _queued,
    "run.started": _started,
    "run.waiting_for_input": _asked,
    "run.input_received": _closed,
    "run.input_closed": _closed,
    "run.paused": _paused,
    "run.resumed": _resumed,
    "run.cancel_requested": _cancelling,
    "run.restarted": _restarted,
    "run.rescheduled": _rescheduled,
}
