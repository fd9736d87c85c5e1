"""What callers of the interrupts API send, and what they get."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

Status = Literal["queued", "running", "interrupted", "completed", "error", "cancelled"]
StepStatus = Literal["running", "completed", "error", "cancelled"]


class Include(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Optional parts of a run, comma-separated: `steps`."""

    include: list[Literal["steps"]] = []


class Resume(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An interrupt's answer; without both the run goes on from a pause."""

    interrupt_id: Annotated[str, Meta(min_length=1, max_length=128, examples=["approval"])] | None = None
    input: Any | UnsetType = UNSET


class Requester(msgspec.Struct, frozen=True):
    """Who initiated the run: a user in a session, or the account of an API key."""

    type: Literal["user", "account"]
    id: str | None
    name: str | None
    email: str | None


class Interrupt(msgspec.Struct, frozen=True):
    """What the run waits for; `schema` is the JSON Schema of the input."""

    id: str
    prompt: str
    schema: Any
    created_at: str


class Step(msgspec.Struct, frozen=True):
    """A top-level step of the run."""

    id: str
    name: str | None
    status: StepStatus
    started_at: str | None
    ended_at: str | None
    output: Any
    error: Any


class AgentRun(msgspec.Struct, frozen=True):
    """A run; `steps` only where it was asked for."""

    object: Literal["agent_run"]
    id: Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
    created_at: str
    updated_at: str
    status: Status
    thread_id: Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
    agent: Annotated[str, Meta(description="Agent type that produced the run.", examples=["cip_orchestrator"])]
    requester: Requester | None
    started_at: str | None
    ended_at: str | None
    output: dict[str, Any] | None
    interrupts: list[Interrupt]
    steps: list[Step] | UnsetType = UNSET


class Fault(msgspec.Struct, frozen=True):
    """What is wrong, for programs (`code`, `details`) and for people (`message`)."""

    code: str
    message: str
    request_id: str
    details: dict[str, Any]


class Refusal(msgspec.Struct, frozen=True):
    """Why a request was refused."""

    error: Fault
