"""What callers of the agents API send and get, field by field."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Word = Literal["queued", "running", "succeeded", "failed", "paused", "cancelled"]
StepWord = Literal["running", "succeeded", "failed", "cancelled"]

Instant = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]

LIMIT = 50


class ListQuery(msgspec.Struct, frozen=True):
    """`GET …/runs`: any other parameter is ignored. A limit above the largest page means the largest page."""

    limit: Annotated[int, Meta(ge=1, le=2**53, description="Max runs to return.")] = LIMIT
    status: Annotated[Word | None, Meta(description="Filter by run state.")] = None


class ActQuery(msgspec.Struct, frozen=True):
    """A control action: on whose behalf; any other parameter is ignored, and the body too."""

    triggered_by: Annotated[str, Meta(max_length=1_000, description="Appears on the run's audit trail.")] | None = None


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A run as a list shows it; times are RFC 3339 UTC to the second, null until then."""

    run_id: str
    workflow_id: str
    status: Word
    started_at: Instant | None
    completed_at: Instant | None
    inputs: Any


class StepResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one step came to; `completed_at`, `output` and `error` are null while there is none."""

    step_id: str
    name: str
    status: StepWord
    started_at: Instant | None
    completed_at: Instant | None
    output: Any
    error: Any


class OutputFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file the run made; `url` opens it without a key until `url_expires_at`, null when the file is no more."""

    name: str
    size_bytes: int
    url: Annotated[str, Meta(extra_json_schema={"format": "uri"})] | None
    url_expires_at: Instant | None


class RunRecord(RunSummary, frozen=True, kw_only=True):
    """The full run record."""

    step_results: list[StepResult]
    output_files: list[OutputFile]


class RunList(msgspec.Struct, frozen=True):
    """Runs of an agent, newest first."""

    runs: list[RunSummary]


class Refusal(msgspec.Struct, frozen=True):
    """Why a request came to nothing: `error` for programs, `message` for people, `details` the facts of it."""

    error: str
    message: str
    request_id: str
    details: dict[str, Any]
