"""What each action means for a run: from the run as it is to the events that change it.

Pure: each function reads a run, refuses or fills a draft.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.domain.draft import Draft
from gateway.domain.events import NewEvent, format_time
from gateway.domain.lifecycle import PERMITTED, Action, Status, require
from gateway.domain.run import SYSTEM, Actor, Run, RunSpec
from gateway.errors import InputRequired


def create(spec: RunSpec) -> Draft:
    """Return the first events of a new run."""
    at_ms = spec.created_us // 1000
    draft = Draft(None, at_ms)
    draft.add("run.created", created_data(spec))
    if spec.scheduled_ms is None:
        draft.add("run.queued", {"expires_at": _expires_at(spec, at_ms)})
    return draft


def created_data(spec: RunSpec) -> dict[str, Any]:
    """Return the data of `run.created`: all of the spec but what the envelope or the access rules hold."""
    data: dict[str, Any] = msgspec.to_builtins(spec)
    for key in ("id", "tenant", "created_us"):
        del data[key]
    scheduled_ms = data.pop("scheduled_ms", None)
    if scheduled_ms is not None:
        data["scheduled_at"] = format_time(scheduled_ms)
    data.setdefault("input", None)
    return {"agent_id": data.pop("agent_id"), "mode": data.pop("mode"), "input": data.pop("input"), **data}


def start(run: Run, draft: Draft) -> None:
    """Start the present attempt: the first append of its writer does."""
    draft.require(Action.START)
    state = draft.state
    if state.attempt > 1:
        first = state.supersedes_from
        last = run.marks.get("attempt", 1) - 1
        superseded = [first, last] if first is not None and first <= last else None
        draft.add("run.attempt_started", {"attempt": state.attempt, "supersedes": superseded})
    draft.add("run.started", {"attempt": state.attempt})


def due(run: Run, draft: Draft) -> None:
    """Queue a delayed run whose time has come."""
    draft.require(Action.DUE)
    draft.add("run.queued", {"expires_at": _expires_at(run.spec, draft.at_ms)})


def pause(draft: Draft, actor: Actor, reason: str | None) -> None:
    """Pause the run; its holder learns of it from the log."""
    draft.require(Action.PAUSE)
    draft.add("run.paused", {"actor": actor, "reason": reason})


def resume(run: Run, draft: Draft, actor: Actor, reason: str | None) -> None:
    """Undo a pause; the run goes back to running, waiting_for_input or queued."""
    if draft.status is Status.WAITING:
        raise InputRequired(
            "The run waits for an answer; send it to /input.",
            current_status=str(draft.status),
            request_ids=[q.request_id for q in draft.state.open],
        )
    draft.require(Action.RESUME)
    expires_at = None if draft.state.held else _expires_at(run.spec, draft.at_ms)
    draft.add("run.resumed", {"actor": actor, "reason": reason, "expires_at": expires_at})


def cancel(draft: Draft, actor: Actor, reason: str | None, *, grace_ms: int, force: bool) -> None:
    """Cancel the run: at once where nobody holds it, else after its holder confirms or the grace ends.

    A second cancel while the first is under way changes nothing, unless it is forced.
    """
    draft.require(Action.CANCEL)
    state = draft.state
    if state.held and not force:
        if state.status is not Status.CANCELLING:
            deadline_at = format_time(draft.at_ms + grace_ms)
            draft.add("run.cancel_requested", {"actor": actor, "reason": reason, "deadline_at": deadline_at})
        return
    finish(draft, "run.cancelled", {"actor": actor, "reason": reason})


def finish(draft: Draft, kind: str, data: dict[str, Any], *, reason: str = "run_ended") -> None:
    """End the run with event `kind`; its open questions are closed before it."""
    for question in draft.state.open:
        draft.add("run.input_closed", {"request_id": question.request_id, "reason": reason})
    draft.add(kind, data)


def answered(request_id: str, content: Any, actor: Actor, *, reason: str | None = None) -> NewEvent:
    """Return the event of an answer; its content may be null."""
    data: dict[str, Any] = {"request_id": request_id, "content": content, "actor": actor}
    return NewEvent("run.input_received", data if reason is None else {**data, "reason": reason})


def restart(run: Run, draft: Draft, actor: Actor, reason: str | None) -> None:
    """Queue the same run again as its next attempt; seq goes on."""
    draft.require(Action.RESTART)
    for question in draft.state.open:
        draft.add("run.input_closed", {"request_id": question.request_id, "reason": "restarted"})
    draft.add(
        "run.restarted",
        {
            "actor": actor,
            "reason": reason,
            "attempt": draft.state.attempt + 1,
            # An attempt that never started abandons nothing of its own, but what it was to write again.
            "supersedes_from": draft.state.supersedes_from or run.marks.get("attempt", 1),
            "expires_at": _expires_at(run.spec, draft.at_ms),
        },
    )


def reschedule(draft: Draft, actor: Actor, scheduled_ms: int) -> None:
    """Move the start of a run that has not started."""
    draft.require(Action.RESCHEDULE)
    draft.add("run.rescheduled", {"actor": actor, "scheduled_at": format_time(scheduled_ms)})


def copy(source: Run, action: Action) -> None:
    """Refuse to make a new run of `source`, unless its status permits retry or replay."""
    require(action, source.status)


def fall_due(run: Run, draft: Draft, *, listening_since_ms: int = 0) -> None:
    """Do everything that time asks of the run, as of `draft.at_ms`; nothing when nothing is due.

    Args:
        listening_since_ms: Since when a writer could have been heard: nobody is silent before that.
    """
    now_ms, spec = draft.at_ms, run.spec
    state = draft.state
    if state.status is Status.DELAYED and _past(state.scheduled_ms, now_ms):
        due(run, draft)
    elif state.status in PERMITTED[Action.EXPIRE] and _past(state.expires_ms, now_ms):
        finish(draft, "run.expired", {"actor": SYSTEM, "reason": "no append within the start timeout"})
    elif state.status is Status.CANCELLING:
        _cancel_due(run, draft, listening_since_ms)
    elif state.status in PERMITTED[Action.TIME_OUT] and spec.timeout_ms and _past(run_ends_ms(run), now_ms):
        error = {"code": "run_timeout", "message": f"The run took longer than {spec.timeout_ms / 1000:g} s."}
        finish(draft, "run.timed_out", {"actor": SYSTEM, "error": error})
    elif state.status in PERMITTED[Action.CRASH] and _silent(run, now_ms, listening_since_ms):
        error = {"code": "heartbeat_lost", "message": f"No append for {(spec.heartbeat_ms or 0) / 1000:g} s."}
        finish(draft, "run.crashed", {"actor": SYSTEM, "error": error})
    else:
        _questions_due(draft, now_ms)


def _silent(run: Run, now_ms: int, listening_since_ms: int) -> bool:
    heartbeat_ms = run.spec.heartbeat_ms
    return heartbeat_ms is not None and _past(silent_ms(run), now_ms) and listening_since_ms + heartbeat_ms <= now_ms


def _cancel_due(run: Run, draft: Draft, listening_since_ms: int) -> None:
    # Only the cancel is left to happen: neither a late answer nor a timeout may turn it into another end.
    if _past(draft.state.cancel_deadline_ms, draft.at_ms):
        finish(draft, "run.cancelled", {"actor": SYSTEM, "reason": "the grace ended"})
    elif _silent(run, draft.at_ms, listening_since_ms):
        finish(draft, "run.cancelled", {"actor": SYSTEM, "reason": "its holder fell silent"})


def _questions_due(draft: Draft, now_ms: int) -> None:
    for question in draft.state.open:
        if question.on_timeout == "keep" or not _past(question.deadline_ms, now_ms):
            continue
        request_id = question.request_id
        if question.on_timeout == "default":
            draft.push(answered(request_id, question.default, SYSTEM, reason="deadline"))
            continue
        draft.add("run.input_closed", {"request_id": request_id, "reason": "deadline"})
        if question.on_timeout == "cancel":
            finish(draft, "run.cancelled", {"actor": SYSTEM, "reason": f"question {request_id} was not answered"})
        else:
            error = {"code": "input_timeout", "message": f"Question {request_id} was not answered in time."}
            finish(draft, "run.failed", {"actor": SYSTEM, "error": error})
        return


def next_look_ms(run: Run, *, log_retention_ms: int, record_retention_ms: int) -> int | None:
    """Return when time next asks something of the run, in Unix ms; None for never."""
    state = run.state
    if state.terminal:
        ended_ms = state.ended_ms or run.updated_ms
        return ended_ms + (record_retention_ms if run.log_expired else log_retention_ms)
    if state.status is Status.CANCELLING:
        return min((t for t in (state.cancel_deadline_ms, silent_ms(run)) if t is not None), default=None)
    times = [state.scheduled_ms, state.expires_ms, state.cancel_deadline_ms]
    times += [q.deadline_ms for q in state.open if q.on_timeout != "keep"]
    if state.held:
        times += [run_ends_ms(run), silent_ms(run)]
    return min((t for t in times if t is not None), default=None)


def run_ends_ms(run: Run) -> int | None:
    """Return when the present attempt has taken too long, in Unix ms; no time passes for a paused run."""
    state = run.state
    if run.spec.timeout_ms is None or state.attempt_started_ms is None or state.status is Status.PAUSED:
        return None
    return state.attempt_started_ms + run.spec.timeout_ms + state.paused_for_ms


def silent_ms(run: Run) -> int | None:
    """Return when the holder has been silent for too long, in Unix ms; a paused run may be silent."""
    if run.spec.heartbeat_ms is None or run.state.status is Status.PAUSED:
        return None
    heard_ms = max(run.beat_ms, run.state.attempt_started_ms or 0, run.state.resumed_ms or 0)
    return heard_ms + run.spec.heartbeat_ms


def _past(at_ms: int | None, now_ms: int) -> bool:
    return at_ms is not None and at_ms <= now_ms


def _expires_at(spec: RunSpec, at_ms: int) -> str:
    return format_time(at_ms + spec.start_timeout_ms)
