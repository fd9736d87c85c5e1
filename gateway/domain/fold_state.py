"""What a log folds to: the entries that lists, snapshots and projections show.

Every entry keeps the `seq` and `attempt` of the event that began it; `superseded` entries were abandoned with
their attempt and are done again by a later one. Times are RFC 3339, as the events carry them.
A large value is shown as `{"elided_bytes":N,"seq":S}`: event S of the log has it.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import msgspec

from gateway.domain.run import Totals


class Step(msgspec.Struct, kw_only=True):
    """`status` is started, completed, failed, or abandoned: its attempt or run ended before it did."""

    seq: int
    attempt: int
    step_id: str
    status: str = "started"
    name: str | None = None
    parent_id: str | None = None
    input: Any = None
    output: Any = None
    error: Any = None
    started_at: str | None = None
    ended_at: str | None = None
    duration_ms: int | float | None = None
    superseded: bool = False


class ToolCall(msgspec.Struct, kw_only=True):
    """`status` is running, abandoned, or what its result said; `progress` is the last one reported."""

    seq: int
    attempt: int
    call_id: str
    status: str = "running"
    name: str | None = None
    step_id: str | None = None
    input: Any = None
    progress: Any = None
    output: Any = None
    started_at: str | None = None
    ended_at: str | None = None
    duration_ms: int | float | None = None
    superseded: bool = False


class Message(msgspec.Struct, kw_only=True):
    """`content` is the deltas so far, or the whole text once `completed`; `elided_bytes` of it were too much."""

    seq: int
    attempt: int
    created_at: str
    message_id: str | None = None
    role: str | None = None
    step_id: str | None = None
    content: str = ""
    elided_bytes: int = 0
    completed: bool = False
    ended_at: str | None = None
    superseded: bool = False


class Cut(msgspec.Struct, array_like=True):
    """What a message had at `boundary_seq`: so many UTF-16 units, as browsers count them, and bytes left out.

    None of units where its later whole text does not begin with what it had.
    """

    boundary_seq: int
    units: int | None
    elided_bytes: int


class Usage(msgspec.Struct, kw_only=True):
    """What one model call took. It counts even when its attempt was superseded."""

    seq: int
    attempt: int
    created_at: str
    step_id: str | None
    provider: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None
    cost_microusd: int | None
    credits: int | float | None


class Output(msgspec.Struct, kw_only=True):
    """A named result; setting its key again replaces it."""

    seq: int
    attempt: int
    created_at: str
    key: str
    value: Any
    schema: Any
    superseded: bool = False


class Checkpoint(msgspec.Struct, kw_only=True):
    seq: int
    attempt: int
    created_at: str
    source: Any
    state: Any


class File(msgspec.Struct, kw_only=True):
    seq: int
    attempt: int
    created_at: str
    step_id: str | None
    file_id: str
    name: str
    size_bytes: int
    content_type: str
    superseded: bool = False


class Question(msgspec.Struct, kw_only=True):
    """`status` is open, answered (`content`, `actor`) or closed (`reason`); `closed_seq` ended it."""

    seq: int
    attempt: int
    created_at: str
    request_id: str
    prompt: Any = None
    status: str = "open"
    schema: Any = None
    deadline_at: str | None = None
    on_timeout: str | None = None
    default: Any = None
    content: Any = None
    actor: Any = None
    reason: Any = None
    closed_at: str | None = None
    closed_seq: int | None = None


class Change(msgspec.Struct, kw_only=True):
    """One `run.*` event of the audit trail."""

    seq: int
    attempt: int
    type: str
    at: str
    actor: Any
    reason: Any


class Line(msgspec.Struct, kw_only=True):
    """A `log` event."""

    seq: int
    at: str
    step_id: str | None
    level: str
    message: Any
    data: Any


class Custom(msgspec.Struct, kw_only=True):
    """A `custom.*` event."""

    seq: int
    at: str
    type: str
    step_id: str | None
    data: Any


class Folded(msgspec.Struct, kw_only=True, dict=True):
    """The state of a run as of event `as_of_seq`; grows in place as events are folded into it.

    Its JSON can be decoded and folded on. Entries that began before `kept_from_seq` were dropped for their bytes,
    but for some that have not ended; `totals` count them too. `logs` and `custom` keep only the last ones;
    `log_count` and `custom_count` say how many there were. `settled_bytes` is what the entries took when some were
    last dropped, `fresh_bytes` how much of the log was folded since. `cuts` say, by the seq of a message that went on
    beyond a checkpoint or into another attempt, what of it stood before; `boundary_seq` is the last such place.
    """

    as_of_seq: int = 0
    boundary_seq: int = 0
    cuts: dict[int, list[Cut]] = {}
    kept_from_seq: int = 1
    settled_bytes: int = 0
    fresh_bytes: int = 0
    attempt: int = 1
    steps: list[Step] = []
    tool_calls: list[ToolCall] = []
    messages: list[Message] = []
    usage: list[Usage] = []
    totals: Totals = Totals()
    outputs: dict[str, Output] = {}
    checkpoints: list[Checkpoint] = []
    files: list[File] = []
    questions: dict[str, Question] = {}
    history: list[Change] = []
    output: Any = None
    error: Any = None
    logs: list[Line] = []
    log_count: int = 0
    custom: list[Custom] = []
    custom_count: int = 0

    @property
    def open_questions(self) -> list[Question]:
        """The questions that wait for an answer, oldest first."""
        return list(self.places.open_questions.values())

    @cached_property
    def places(self) -> Places:
        """Where the fold looks entries up: derived from the lists, so that JSON need not carry it."""
        return Places.of(self)


class Places(msgspec.Struct):
    """The newest entry of each id, and the entries that still await their end, by seq or request id."""

    steps: dict[str, Step]
    tool_calls: dict[str, ToolCall]
    messages: dict[str, Message]
    newest_message: dict[str | None, Message]
    running: dict[int, Step | ToolCall]
    open_questions: dict[str, Question]

    @classmethod
    def of(cls, state: Folded) -> Places:
        """Index `state` as folding its log would have."""
        entries: list[Step | ToolCall] = [*state.steps, *state.tool_calls]
        return cls(
            steps={step.step_id: step for step in state.steps},
            tool_calls={call.call_id: call for call in state.tool_calls},
            messages={m.message_id: m for m in state.messages if m.message_id is not None},
            newest_message={message.step_id: message for message in state.messages},
            running={entry.seq: entry for entry in entries if entry.ended_at is None},
            open_questions={key: q for key, q in state.questions.items() if q.status == "open"},
        )
