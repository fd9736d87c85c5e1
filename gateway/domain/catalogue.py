"""The run events that the gateway knows, and the shape of each one's data.

A shape says what is required and which types the named fields have. Fields beyond it are allowed and kept:
validation never rewrites an event's data. The same shapes give folds and projections typed access to it.
Shapes of events that only the gateway writes ask for nothing that it does not always know.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Annotated, Any, Final, TypeVar

import msgspec

from gateway.errors import InvalidBody, UnknownEventType

# The largest whole number that every JSON reader keeps exact.
MAX_COUNT: Final = 2**53 - 1
# A million events, the most of a log, add up within the store's 64 bits; credits are added in millionths.
MAX_SPENT: Final = 10**12
MAX_CREDITS: Final = 10**6
MAX_TYPE_CHARS: Final = 128
MAX_ID_CHARS: Final = 128

Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]
Spent = Annotated[int, msgspec.Meta(ge=0, le=MAX_SPENT)]
Credits = Annotated[int, msgspec.Meta(ge=0, le=MAX_CREDITS)] | Annotated[float, msgspec.Meta(ge=0, le=MAX_CREDITS)]
Amount = Count | Annotated[float, msgspec.Meta(ge=0, le=MAX_COUNT)]
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_CHARS)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Word = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
SeqRange = tuple[Count, Count]


class Fault(msgspec.Struct, frozen=True):
    """What went wrong, for programs (`code`) and for people (`message`)."""

    code: Name
    message: str
    details: Any = None


class RunNote(msgspec.Struct, frozen=True):
    """A change of a run's status that needs no more than who and why."""

    actor: Any = None
    reason: Any = None
    error: Any = None


class RunCreated(msgspec.Struct, frozen=True):
    agent_id: str
    mode: str
    input: Any = None
    thread_id: str | None = None
    title: str | None = None
    triggered_by: Any = None
    actor: Any = None
    trace_id: str | None = None
    parent_span_id: str | None = None


class AttemptStarted(msgspec.Struct, frozen=True):
    """`supersedes` is the first and last seq of what the new attempt will do again."""

    attempt: Count
    supersedes: SeqRange | None = None
    actor: Any = None
    reason: Any = None


class WaitingForInput(msgspec.Struct, frozen=True):
    """A question; what its fields mean together is judged where it is asked, not here.

    The gateway fills in a missing `request_id` and turns `timeout_s` into `deadline_at`.
    """

    prompt: str
    request_id: Id | None = None
    schema: dict[str, Any] | bool | None = None
    deadline_at: str | None = None
    timeout_s: Amount | None = None
    on_timeout: str | None = None
    default: Any = None


class InputReceived(msgspec.Struct, frozen=True):
    request_id: Id
    content: Any
    actor: Any = None


class InputClosed(msgspec.Struct, frozen=True):
    request_id: Id
    reason: str | None = None


class RunCompleted(msgspec.Struct, frozen=True):
    output: Any


class RunFailed(msgspec.Struct, frozen=True):
    """`retry: false` says that another attempt would fail as well."""

    error: Fault
    retry: bool = True


class StepStarted(msgspec.Struct, frozen=True):
    step_id: Id
    name: Name
    input: Any = None


class StepCompleted(msgspec.Struct, frozen=True):
    step_id: Id
    duration_ms: Amount
    output: Any = None


class StepFailed(msgspec.Struct, frozen=True):
    step_id: Id
    error: Fault
    duration_ms: Amount | None = None


class Message(msgspec.Struct, frozen=True):
    """A piece of a message's text (`message.delta`) or the whole of it (`message.completed`)."""

    content: str
    message_id: Id | None = None
    role: Word | None = None


class ToolCall(msgspec.Struct, frozen=True):
    call_id: Id
    name: Name
    input: Any


class ToolProgress(msgspec.Struct, frozen=True):
    call_id: Id
    progress: Any


class ToolResult(msgspec.Struct, frozen=True):
    call_id: Id
    output: Any
    status: Word
    duration_ms: Amount


class UsageRecorded(msgspec.Struct, frozen=True):
    provider: Name
    model: Name
    prompt_tokens: Spent
    completion_tokens: Spent
    cached_tokens: Spent | None = None
    cost_microusd: Spent | None = None
    credits: Credits | None = None


class CheckpointCreated(msgspec.Struct, frozen=True):
    source: str
    state: Any


class OutputSet(msgspec.Struct, frozen=True):
    key: Name
    value: Any
    schema: Any = None


class FileCreated(msgspec.Struct, frozen=True):
    file_id: Id
    name: Name
    size_bytes: Count
    content_type: Name


class Log(msgspec.Struct, frozen=True):
    level: Word
    message: str
    data: Any = None


_NOTED: Final = (
    "queued dequeued started paused resumed restarted rescheduled cancel_requested cancelled expired crashed "
    "timed_out system_failed dead_lettered attempt_failed released dependency_met dependencies_met "
    "debug_mode_set idempotency_key_reset"
)

CATALOGUE: Final[dict[str, type[msgspec.Struct]]] = {
    "run.created": RunCreated,
    **{f"run.{word}": RunNote for word in _NOTED.split()},
    "run.attempt_started": AttemptStarted,
    "run.waiting_for_input": WaitingForInput,
    "run.input_received": InputReceived,
    "run.input_closed": InputClosed,
    "run.completed": RunCompleted,
    "run.failed": RunFailed,
    "step.started": StepStarted,
    "step.completed": StepCompleted,
    "step.failed": StepFailed,
    "message.delta": Message,
    "message.completed": Message,
    "tool.call": ToolCall,
    "tool.progress": ToolProgress,
    "tool.result": ToolResult,
    "usage.recorded": UsageRecorded,
    "checkpoint.created": CheckpointCreated,
    "output.set": OutputSet,
    "file.created": FileCreated,
    "log": Log,
}

_CUSTOM = re.compile(r"custom\.[a-z0-9_.-]+")
_ShapeT = TypeVar("_ShapeT", bound=msgspec.Struct)


def find_shape(event_type: str) -> type[msgspec.Struct] | None:
    """Return the shape of `event_type`'s data; None where anything goes (`custom.*`).

    Raises:
        UnknownEventType: neither in the catalogue nor a well-formed `custom.` name.
    """
    shape = CATALOGUE.get(event_type)
    if shape is not None:
        return shape
    if len(event_type) <= MAX_TYPE_CHARS and _CUSTOM.fullmatch(event_type):
        return None
    raise _name_nearest(event_type)


def read_data(data: Any, shape: type[_ShapeT], path: str = "data") -> _ShapeT:
    """Return the fields of `data` that `shape` knows, typed.

    Raises:
        InvalidBody: a field is missing or of another type; `facts["path"]` says which.
    """
    try:
        return msgspec.convert(data, shape)
    except msgspec.ValidationError as error:
        raise refuse(*_locate(str(error), path)) from None


def refuse(path: str, problem: str) -> InvalidBody:
    """Return the refusal of the value at `path`, to be raised: `data.call_id: expected str, got int`."""
    return InvalidBody(f"{path}: {problem}", path=path)


def _locate(message: str, path: str) -> tuple[str, str]:
    """Split msgspec's message (its problem, and where: `$.error.code`) into our path and words."""
    problem, _, where = message.partition(" - at `$")
    path += where.rstrip("`")
    missing = problem.removeprefix("Object missing required field ")
    if missing != problem:
        return f"{path}.{missing.strip('`')}", "required"
    return path, problem[0].lower() + problem[1:].replace("`", "")


def _name_nearest(event_type: str) -> UnknownEventType:
    shown = event_type[:MAX_TYPE_CHARS]
    nearest = "custom.*" if shown.startswith("custom") else get_close_matches(shown, CATALOGUE, n=1, cutoff=0.0)[0]
    return UnknownEventType(
        f"type: unknown event type {shown!r}; the nearest known one is {nearest!r}. "
        f"Types of your own are named custom.<name>, of a-z 0-9 _ . -, at most {MAX_TYPE_CHARS} characters",
        path="type",
        nearest=nearest,
    )
