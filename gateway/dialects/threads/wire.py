"""What callers of the threads API send, and what they get."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Status = Literal["queued", "running", "waiting_for_input", "paused", "completed", "failed", "cancelled"]
EventType = Literal[
    "run.started",
    "message.delta",
    "tool.call",
    "tool.result",
    "run.waiting_for_input",
    "run.completed",
    "run.failed",
    "run.cancelled",
]
Limit = Annotated[int, Meta(ge=1, le=100, description="Most runs to return.")]
Before = Annotated[
    str,
    Meta(
        description="The run_id of the last item seen, or a time.",
        extra_json_schema={"anyOf": [{"pattern": "^[0-7][0-9A-HJKMNP-TV-Z]{25}$"}, {"format": "date-time"}]},
    ),
]
PERSONA = r"^([A-Za-z0-9][A-Za-z0-9._:+-]{0,127}(@[A-Za-z0-9._:+-]{1,64})?)?\Z"
Persona = Annotated[
    str,
    Meta(max_length=193, pattern=PERSONA, description="Persona, as persona_key@version.", examples=["writer@1.2.0"]),
]
Number = int | float


class CreateRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which model and which persona the run is for; the defaults where they are left out or empty."""

    route_id: Annotated[str, Meta(max_length=128, description="Provider route; selects the model.")] | None = None
    persona_id: Persona | None = None


class Created(msgspec.Struct, frozen=True):
    """A run that was created."""

    run_id: str
    trace_id: str | None


class FindOfThread(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many runs of a thread to list."""

    limit: Limit = 50


class Find(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which runs to list; `before` is the run_id of the last item seen, or a time."""

    limit: Limit = 50
    before: Before | None = None
    status: Status | None = None


class ThreadRun(msgspec.Struct, frozen=True):
    """A run in the list of its thread."""

    run_id: str
    status: Status
    created_at: str


class ListedRun(msgspec.Struct, frozen=True):
    """A run in the organization's list; totals are of its usage so far."""

    run_id: str
    org_id: str
    thread_id: str
    status: Status
    model: str | None
    persona_id: str | None
    total_input_tokens: int
    total_output_tokens: int
    total_cost_usd: Number
    duration_ms: int | None
    cache_hit_rate: Number | None
    credits_used: Number
    created_at: str
    completed_at: str | None
    failed_at: str | None
    created_by_user_id: str | None
    created_by_user_name: str | None
    created_by_email: str | None


class Run(msgspec.Struct, frozen=True):
    """A run."""

    run_id: str
    org_id: str
    thread_id: str
    created_by_user_id: str | None
    status: Status
    created_at: str
    trace_id: str | None


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The user's input, for a run that waits for it."""

    content: Annotated[str, Meta(description="At most 32 KiB of UTF-8.")]


class Done(msgspec.Struct, frozen=True):
    """It was done."""

    ok: bool


class Follow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the stream begins: after this seq. `ticket` stands in for the header that a browser cannot send."""

    after_seq: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    ticket: str | None = None


class RunEvent(msgspec.Struct, frozen=True):
    """A frame of the stream; seq counts all events of the run, those that are not shown here, too."""

    seq: int
    type: EventType
    data: dict[str, Any]
    created_at: str


class Refusal(msgspec.Struct, frozen=True):
    """Why a request was refused; act on `code`."""

    code: str
    message: str
    trace_id: str
    details: dict[str, Any]
