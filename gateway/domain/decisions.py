"""What each action means for a run: from the run as it is to the events that change it.

Pure: each function reads a run, refuses or fills a draft.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.domain import attempts
from gateway.domain.draft import Draft
from gateway.domain.events import NewEvent, format_time
from gateway.domain.lifecycle import Action, Status, require
from gateway.domain.run import Actor, Run, RunSpec
from gateway.errors import InputRequired


def create(spec: RunSpec) -> Draft:
    """Return the first events of a new run."""
    at_ms = spec.created_us // 1000
    draft = Draft(None, at_ms)
    draft.add("run.created", created_data(spec))
    if spec.scheduled_ms is None and not spec.depends_on:
        attempts.queue(spec, draft)
    return draft


def created_data(spec: RunSpec) -> dict[str, Any]:
    """Return the data of `run.created`: all of the spec but what the envelope or the access rules hold."""
    data: dict[str, Any] = msgspec.to_builtins(spec)
    for key in ("id", "tenant", "created_us"):
        del data[key]
    scheduled_ms = data.pop("scheduled_ms", None)
    if scheduled_ms is not None:
        data["scheduled_at"] = format_time(scheduled_ms)
    tick_ms = data.pop("tick_ms", None)
    if tick_ms is not None:
        data["tick_at"] = format_time(tick_ms)
    data.setdefault("input", None)
    return {"agent_id": data.pop("agent_id"), "mode": data.pop("mode"), "input": data.pop("input"), **data}


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
    waits = draft.state.held or bool(draft.state.open)
    expires_at = None if waits else attempts.expires_at(run.spec, draft.at_ms)
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
    attempts.end(draft, "run.cancelled", {"actor": actor, "reason": reason})


def answered(request_id: str, content: Any, actor: Actor, *, reason: str | None = None) -> NewEvent:
    """Return the event of an answer; its content may be null."""
    data: dict[str, Any] = {"request_id": request_id, "content": content, "actor": actor}
    return NewEvent("run.input_received", data if reason is None else {**data, "reason": reason})


def restart(
    run: Run,
    draft: Draft,
    actor: Actor,
    reason: str | None,
    *,
    action: Action = Action.RESTART,
    checkpoint_seq: int | None = None,
    preset: str | None = None,
) -> None:
    """Queue the same run again, as its next attempt or, from the dead letters, as its first; seq goes on.

    Args:
        action: `RESTART` or `DLQ_REPLAY`.
        checkpoint_seq: Where the attempt goes on from; None to begin at the beginning.
        preset: What the attempt is run with instead; None keeps it.
    """
    draft.require(action)
    attempts.close_questions(draft, "restarted")
    from_dead = action is Action.DLQ_REPLAY
    draft.forget_writers = from_dead
    draft.add(
        "run.restarted",
        {
            "actor": actor,
            "reason": reason,
            "attempt": 1 if from_dead else draft.state.attempt + 1,
            "from_dead_letter": True if from_dead else None,
            "supersedes_from": min(draft.state.supersedes_from or run.head_seq, run.marks.get("origin", 1)),
            "checkpoint_seq": checkpoint_seq,
            "preset": preset,
            "expires_at": attempts.expires_at(run.spec, draft.at_ms),
        },
    )


def set_debug_mode(draft: Draft, actor: Actor, enabled: bool) -> None:
    """Note whether the run is looked at closely; nothing when it already stands so."""
    if draft.state.debug_mode != enabled:
        draft.add("run.debug_mode_set", {"actor": actor, "enabled": enabled})


def reset_idempotency_key(draft: Draft, actor: Actor) -> None:
    """Note that the key under which the run was created stands for it no more."""
    if not draft.state.key_reset:
        draft.add("run.idempotency_key_reset", {"actor": actor})


def reschedule(draft: Draft, actor: Actor, scheduled_ms: int) -> None:
    """Move the start of a run that has not started."""
    draft.require(Action.RESCHEDULE)
    draft.add("run.rescheduled", {"actor": actor, "scheduled_at": format_time(scheduled_ms)})


def copy(source: Run, action: Action) -> None:
    """Refuse to make a new run of `source`, unless its status permits retry or replay."""
    require(action, source.status)
