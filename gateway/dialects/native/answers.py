"""What the native API answers, as types: the shapes of `project.py`, for whoever reads its description.

A test holds every answer of the routes against them, so that neither can move alone.
"""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from gateway.dialects.native.webhook_answers import Hook
from gateway.domain import fold_state
from gateway.domain.events import Event
from gateway.domain.lifecycle import Status
from gateway.domain.resume import Gap, Reset
from gateway.domain.run import Actor, Dependency, Totals
from gateway.domain.trace import ExecutionTrace
from gateway.service.writing import Pending

T = TypeVar("T")


class Problem(msgspec.Struct, frozen=True):
    """Why a request was refused (RFC 9457); act on `code` and on the facts beside it."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str


class OpenQuestion(msgspec.Struct, frozen=True):
    """An open question of a run."""

    request_id: str
    prompt: str
    schema: Any
    deadline_at: str | None
    on_timeout: str
    default: Any
    created_at: str


class InboxItem(OpenQuestion, frozen=True, kw_only=True):
    """An open question, and of which run."""

    run_id: str
    agent_id: str
    thread_id: str
    title: str | None


class RetryPolicy(msgspec.Struct, frozen=True):
    """How failed attempts are tried again."""

    max_attempts: int
    backoff: Literal["fixed", "linear", "exponential"]
    initial_delay_s: float
    max_delay_s: float


class HeldBy(msgspec.Struct, frozen=True):
    """Who holds the run, and until when."""

    worker: str | None
    claimed_at: str | None
    expires_at: str | None


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run; `steps` only where it was asked for, its own `webhooks` only in the answer to its creation."""

    id: str
    agent_id: str
    thread_id: str
    status: Status
    mode: Literal["direct", "queued"]
    attempt: int
    input: Any
    output: Any
    error: Any
    title: str | None
    tags: dict[str, str]
    metadata: dict[str, Any]
    trigger: str
    triggered_by: str | None
    created_by: Actor
    created_at: str
    scheduled_at: str | None
    expires_at: str | None
    started_at: str | None
    ended_at: str | None
    updated_at: str
    cancel_deadline_at: str | None
    timeout_s: float | None
    heartbeat_s: float | None
    first_seq: int
    head_seq: int
    log_expired: bool
    open_requests: list[OpenQuestion]
    usage: Totals
    model: str | None
    parent_run_id: str | None
    root_run_id: str | None
    retry_of: str | None
    replay_of: str | None
    lineage_depth: int
    batch_id: str | None
    schedule_id: str | None
    tick_at: str | None
    file_ids: list[str]
    extensions: dict[str, Any]
    agent_version: int
    queue: str
    priority: int
    concurrency_key: str | None
    retry: RetryPolicy
    dead_letter: bool
    failed_attempts: int
    next_retry_at: str | None
    queue_expiry_s: float | None
    lease_s: float
    lease: HeldBy | None
    heartbeat_at: str | None
    checkpoint_seq: int | None
    depends_on: list[Dependency]
    preset: str | None
    trace_id: str | None
    idempotency_key: str | None
    debug_mode: bool
    execution_trace: ExecutionTrace
    steps: list[fold_state.Step] | UnsetType = UNSET
    webhooks: list[Hook] | UnsetType = UNSET


class Page(msgspec.Struct, Generic[T], frozen=True):
    """A page of a list; `next_cursor` begins the next one."""

    data: list[T]
    next_cursor: str | None
    has_more: bool


class FoldPage(Page[T], Generic[T], frozen=True, kw_only=True):
    """A page of a fold, which holds all up to event `as_of_seq` and began at `kept_from_seq`."""

    kept_from_seq: int
    as_of_seq: int
    as_of: str


class UsagePage(FoldPage[fold_state.Usage], frozen=True, kw_only=True):
    """A page of what the run used; `totals` are of the whole log."""

    totals: Totals


class RunSnapshot(msgspec.Struct, frozen=True):
    """The run and its log folded."""

    run: Run
    state: fold_state.Folded
    as_of_seq: int
    as_of: str


class LastState(msgspec.Struct, frozen=True):
    """Where a worker that goes on would go on from."""

    run_id: str
    status: Status
    attempt: int
    state: Any
    checkpoint_seq: int | None
    open_requests: list[OpenQuestion]
    as_of_seq: int
    as_of: str


class DebugBundle(msgspec.Struct, frozen=True):
    """Everything somebody needs who looks for what went wrong."""

    run: Run
    history: list[fold_state.Change]
    steps: list[fold_state.Step]
    tool_calls: list[fold_state.ToolCall]
    messages: list[fold_state.Message]
    usage: list[fold_state.Usage]
    totals: Totals
    outputs: list[fold_state.Output]
    checkpoints: list[fold_state.Checkpoint]
    questions: list[fold_state.Question]
    logs: list[fold_state.Line]
    log_count: int
    kept_from_seq: int
    as_of_seq: int
    as_of: str


class Purged(msgspec.Struct, frozen=True):
    """The run is gone."""

    id: str
    purged: bool


class Written(msgspec.Struct, frozen=True):
    """Where the events stand in the log, and what the writer has not seen."""

    first_seq: int | None
    last_seq: int
    status: Status
    attempt: int
    pending: list[Pending]
    duplicate: bool
    request_ids: list[str] | UnsetType = UNSET


class EventPage(msgspec.Struct, frozen=True):
    """A page of a log; `gap` and `reset` are there where the log does not follow what `after` named."""

    data: list[Event]
    next_after: str
    next_after_seq: int
    head_seq: int
    has_more: bool
    gap: Gap | UnsetType = UNSET
    reset: Reset | UnsetType = UNSET


class Answered(msgspec.Struct, frozen=True):
    """Which question was answered, by which event."""

    ok: bool
    request_id: str
    seq: int


class NeedStatus(msgspec.Struct, frozen=True):
    """A run that another depends on."""

    run_id: str
    agent_id: str
    condition: str
    status: Status | None
    verdict: Literal["met", "waiting", "unsatisfiable"]


class DependencyStatus(msgspec.Struct, frozen=True):
    """What a run waits for, and how far that is."""

    run_id: str
    status: Status
    dependencies: list[NeedStatus]
    verdict: Literal["met", "waiting", "unsatisfiable"]
    dependencies_satisfied: bool


class MadeRun(msgspec.Struct, frozen=True):
    """What came of one run of a batch: the run, or why there is none."""

    index: int
    run: Run | None
    error: Problem | None


class BatchDone(msgspec.Struct, frozen=True):
    """What came of each run of a batch, in its order."""

    batch_id: str
    results: list[MadeRun]
    total: int
    succeeded: int
    failed: int


class BulkResult(msgspec.Struct, frozen=True):
    """What came of one run; `run_id` is that of the new run where a replay made one."""

    id: str
    run_id: str | None
    status: Status | None
    error: Problem | None


class BulkDone(msgspec.Struct, frozen=True):
    """What came of each run; a page of them where the runs were chosen by filters."""

    results: list[BulkResult]
    total: int
    succeeded: int
    failed: int
    next_cursor: str | UnsetType | None = UNSET
    has_more: bool | UnsetType = UNSET
