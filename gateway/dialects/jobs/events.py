"""Events of a run in the job system's words: each with a level and a sentence, made of itself alone."""

from __future__ import annotations

from typing import Any, Final

from gateway.dialects.jobs import wire
from gateway.dialects.jobs.project import event_id, text, wrap
from gateway.domain.events import Event, TypeFilter
from gateway.entry.projection import Frame, Projection

ERROR, WARN, INFO, DEBUG = "error", "warn", "info", "debug"

_LEVELS: Final = {
    **dict.fromkeys(
        (
            "run.failed",
            "run.crashed",
            "run.timed_out",
            "run.system_failed",
            "run.dead_lettered",
            "step.failed",
        ),
        ERROR,
    ),
    **dict.fromkeys(("run.attempt_failed", "run.cancel_requested", "run.cancelled", "run.expired"), WARN),
    **dict.fromkeys(("message.delta", "tool.progress"), DEBUG),
}
_FAILED: Final = frozenset({"error", "failed", "failure"})

# What is said of an event; names of its data stand in braces.
_SENTENCES: Final = {
    "run.created": "Run created.",
    "run.queued": "Run queued.",
    "run.dequeued": "Run claimed.",
    "run.started": "Attempt started.",
    "run.paused": "Run paused.",
    "run.resumed": "Run resumed.",
    "run.restarted": "Run restarted as attempt {attempt}.",
    "run.rescheduled": "Run rescheduled to {scheduled_at}.",
    "run.cancel_requested": "Cancellation requested.",
    "run.cancelled": "Run canceled.",
    "run.completed": "Run completed.",
    "run.failed": "Run failed.",
    "run.crashed": "Run crashed.",
    "run.timed_out": "Run timed out.",
    "run.expired": "Run expired.",
    "run.system_failed": "Run failed by no fault of its own.",
    "run.dead_lettered": "Run moved to the dead letters.",
    "run.attempt_failed": "Attempt {attempt} failed.",
    "run.attempt_started": "Attempt {attempt} begins again.",
    "run.released": "Run given back.",
    "run.dependency_met": "A dependency is satisfied.",
    "run.dependencies_met": "Dependencies satisfied.",
    "run.debug_mode_set": "Debug mode set.",
    "run.idempotency_key_reset": "Idempotency key reset.",
    "run.waiting_for_input": "{prompt}",
    "run.input_received": "Input received.",
    "run.input_closed": "Question closed.",
    "step.started": "Step {name} started.",
    "step.completed": "Step {step_id} completed.",
    "step.failed": "Step {step_id} failed.",
    "message.delta": "{content}",
    "message.completed": "{content}",
    "tool.call": "Tool {name} called.",
    "tool.progress": "Tool call {call_id} goes on.",
    "tool.result": "Tool call {call_id} ended: {status}.",
    "usage.recorded": "{model} took {prompt_tokens} + {completion_tokens} tokens.",
    "checkpoint.created": "Checkpoint by {source}.",
    "output.set": "Output {key} set.",
    "file.created": "File {name} created.",
    "log": "{message}",
}


def run_event(event: Event) -> wire.RunEvent:
    """Return an event."""
    return wire.RunEvent(
        id=event_id(event.run_id, event.seq),
        run_id=event.run_id,
        type=event.type,
        level=level_of(event),
        message=_message(event),
        data=wrap(event.data),
        created_at=event.created_at,
    )


def chunk(event: Event) -> wire.Chunk:
    """Return a piece of a model's output, from a `message.delta`."""
    data = _fields(event)
    message_id, role = data.get("message_id"), data.get("role")
    return wire.Chunk(
        id=event_id(event.run_id, event.seq),
        run_id=event.run_id,
        message_id=message_id if isinstance(message_id, str) else None,
        role=role if isinstance(role, str) else None,
        content=_said(data.get("content")),
        created_at=event.created_at,
    )


EVENTS: Final = Projection("jobs.events", lambda event: Frame(run_event(event)))
CHUNKS: Final = Projection("jobs.chunks", lambda event: Frame(chunk(event)), TypeFilter.parse("message.delta"))


def level_of(event: Event) -> str:
    """Return how grave an event is; a log line says that itself."""
    data = _fields(event)
    if event.type == "log":
        return _said(data.get("level")) or INFO
    if event.type == "tool.result":
        return ERROR if _said(data.get("status")) in _FAILED else INFO
    return _LEVELS.get(event.type, INFO)


def _message(event: Event) -> str:
    data = _fields(event)
    sentence = _SENTENCES.get(event.type)
    if sentence is None:
        return event.type
    told = sentence.format_map(_Said(data))
    if event.type.startswith(("run.", "step.")):
        why = _why(data)
        return told if why is None else f"{told} {why}"
    return told


def _why(data: dict[str, Any]) -> str | None:
    """Return why, where an event of a run or step says so."""
    error = data.get("error")
    found = error.get("message") if isinstance(error, dict) else None
    found = found or data.get("reason")
    return found if isinstance(found, str) and found else None


def _fields(event: Event) -> dict[str, Any]:
    return event.data if isinstance(event.data, dict) else {}


def _said(value: Any) -> str:
    return "" if value is None else text(value)


class _Said(dict[str, Any]):
    """Fields of an event as a sentence takes them: any value as text, a missing one as nothing."""

    def __getitem__(self, name: str) -> str:
        return _said(self.get(name))
