"""What callers send to the job system's API, and what it answers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

RUNS_BULK = 100
RUNS_DEAD = 500
RUNS_PAGE = 100
CHILDREN_PAGE = 1_000
EVENTS_PAGE = 1_000

StatusWord = Literal[
    "delayed",
    "queued",
    "dequeued",
    "executing",
    "waiting",
    "paused",
    "completed",
    "failed",
    "timed_out",
    "crashed",
    "system_failed",
    "canceled",
    "expired",
    "dead_letter",
]
Trigger = Literal["manual", "cron", "spawn", "workflow", "retry", "event"]

Moment = Annotated[datetime, Meta(tz=True)]
Instant = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
Object = dict[str, Any]
"""Any JSON object; a native value that is none is shown as `{"value": …}`."""

Name = Annotated[str, Meta(min_length=1, max_length=256)]
RunName = Annotated[str, Meta(min_length=1, max_length=64)]
"""A run's id as a caller spells it; in a list one that cannot be an id is told of by itself."""


ObjectText = Annotated[
    str, Meta(extra_json_schema={"contentMediaType": "application/json", "contentSchema": {"type": "object"}})
]


StatusWords = Annotated[tuple[StatusWord, ...], Meta(min_length=1)]
"""Several at once; none at all would be a filter that lets everything pass."""


class WhichRuns(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which runs of the project; `payload_contains` is the text of a JSON object."""

    project_id: str | None = None
    job_id: Name | None = None
    triggered_by: Trigger | None = None
    batch_id: Name | None = None
    payload_contains: ObjectText | None = None
    tag_key: Name | None = None
    tag_value: str | None = None
    metadata_key: Name | None = None
    metadata_value: str | None = None


class WhichOfAll(WhichRuns, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Query of `POST /v1/runs/bulk-cancel-all`."""

    status: StatusWords | None = None


class FindDead(WhichRuns, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`GET /v1/runs/dlq`: newest first, those created before `cursor`."""

    limit: Annotated[int, Meta(ge=1, le=RUNS_PAGE)] = 50
    cursor: Moment | None = None


class FindRuns(FindDead, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`GET /v1/runs`: newest first, those created before `cursor`."""

    status: StatusWords | None = None


class FindChildren(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`GET /v1/runs/{id}/children`: newest first, those created before `cursor`."""

    limit: Annotated[int, Meta(ge=1, le=CHILDREN_PAGE)] = CHILDREN_PAGE
    cursor: Moment | None = None


class CancelAll(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /v1/runs/bulk-cancel-all`: filters like those of the query, which they are added to."""

    project_id: str | None = None
    status: StatusWord | None = None
    job_id: Name | None = None
    triggered_by: Trigger | None = None
    batch_id: Name | None = None
    payload_contains: Object | None = None
    tag_key: Name | None = None
    tag_value: str | None = None
    metadata_key: Name | None = None
    metadata_value: str | None = None


class BulkCancel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/runs/bulk-cancel`; without runs nothing is cancelled."""

    run_ids: Annotated[list[RunName], Meta(max_length=RUNS_BULK)] = []


class BulkReplay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/runs/bulk-replay`."""

    run_ids: Annotated[list[RunName], Meta(min_length=1, max_length=RUNS_BULK)]


class BulkDlqReplay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/runs/bulk-dlq-replay`: these dead letters, or without `run_ids` the newest `limit` of them."""

    run_ids: Annotated[list[RunName], Meta(min_length=1, max_length=RUNS_DEAD)] | None = None
    project_id: str | None = None
    limit: Annotated[int, Meta(ge=1, le=RUNS_DEAD)] | None = None


class Restart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/runs/{id}/restart`: another preset of the job's; `machine_preset` is another name for it."""

    preset: Name | None = None
    machine_preset: Name | None = None


class Reschedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/runs/{id}/reschedule`; a time that has passed means at once."""

    scheduled_at: Moment


class DebugMode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/runs/{id}/debug`."""

    debug_mode: bool = False


class FindEvents(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`GET /v1/runs/{id}/events`: in the order of the log, those after the event whose id is `cursor`."""

    level: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    type: Annotated[str, Meta(min_length=1, max_length=4_096)] | None = None
    limit: Annotated[int, Meta(ge=1, le=EVENTS_PAGE)] = EVENTS_PAGE
    cursor: Annotated[str, Meta(min_length=1, max_length=64)] | None = None


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request that takes no query parameters."""


class Follow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a stream begins, and who asks where no header can be sent; `Last-Event-ID` wins over both places."""

    after: str | None = None
    after_seq: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    ticket: str | None = None


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time of the present attempt went, in ms; null where it has not come to that."""

    queue_wait_ms: int | None
    dequeue_ms: int | None
    connect_ms: int | None
    ttfb_ms: int | None
    transfer_ms: int | None
    total_ms: int | None
    dispatch_ms: int | None


class JobRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run; every field is always there."""

    id: str
    job_id: str
    project_id: str
    status: StatusWord
    attempt: int
    payload: Object | None
    result: Object | None
    metadata: dict[str, str]
    error: str | None
    triggered_by: Trigger
    scheduled_at: Instant | None
    started_at: Instant | None
    finished_at: Instant | None
    heartbeat_at: Instant | None
    next_retry_at: Instant | None
    expires_at: Instant | None
    parent_run_id: str | None
    priority: int
    idempotency_key: str | None
    job_version: int
    workflow_step_run_id: str | None
    max_attempts_override: int | None
    timeout_secs_override: int | None
    retry_backoff: str
    retry_initial_delay_secs: int
    retry_max_delay_secs: int
    execution_trace: Trace
    debug_mode: bool
    continuation_of: str | None
    lineage_depth: int
    tags: dict[str, str]
    job_version_id: str | None
    created_by: str | None
    batch_id: str | None
    concurrency_key: str | None
    created_at: Instant


class RunEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a run's log; `level` is debug, info, warn, error, or what a log line calls its own."""

    id: str
    run_id: str
    type: str
    level: str
    message: str
    data: Object | None
    created_at: Instant


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a model's output as it was written."""

    id: str
    run_id: str
    message_id: str | None
    role: str | None
    content: str
    created_at: Instant


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What a later attempt may go on from; `sequence` grows from one to the next."""

    id: str
    run_id: str
    sequence: int
    source: str
    state: Object | None
    created_at: Instant


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What one call of a model took; `cost_microusd` is null where nobody said."""

    id: str
    run_id: str
    provider: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cost_microusd: int | None
    created_at: Instant


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a tool; `status` is running, abandoned, or what its result said."""

    id: str
    run_id: str
    tool_name: str | None
    input: Object | None
    output: Object | None
    duration_ms: int | None
    status: str
    created_at: Instant | None


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """A named result."""

    id: str
    run_id: str
    output_key: str
    schema: Object | None
    value: Object | None
    created_at: Instant


class DebugBundle(msgspec.Struct, frozen=True, kw_only=True):
    """All that somebody needs who looks for what went wrong; `events` are the newest thousand."""

    run: JobRun
    events: list[RunEvent]
    checkpoints: list[Checkpoint]
    usage: list[Usage]
    tool_calls: list[ToolCall]
    outputs: list[Output]


class Dependency(msgspec.Struct, frozen=True, kw_only=True):
    """A run that another was created to wait for; `id` is its id."""

    id: str
    job_id: str
    depends_on_job_id: str
    condition: str
    created_at: Instant


class DependencyStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a run waits for."""

    run_id: str
    job_id: str
    status: StatusWord
    dependencies: list[Dependency]
    dependencies_satisfied: bool


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody still has to do: the holder `cancel` or `pause`, a person or agent give `input`."""

    type: Literal["cancel", "pause", "input"]
    request_id: str | None
    prompt: str | None
    created_at: Instant | None


class RunState(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run stands, and what its next attempt would go on from: the state of its last checkpoint."""

    run_id: str
    status: StatusWord
    attempt: int
    state: Object | None
    pending: list[Pending]
    updated_at: Instant


class CancelResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one run; `status` is where it stands, null where there is no such run."""

    id: str
    status: StatusWord | None
    error: str | None


class BulkCancelled(msgspec.Struct, frozen=True, kw_only=True):
    """What came of many runs; the counts are of all, also where `results` are only the first thousand."""

    results: list[CancelResult]
    total: int
    canceled: int
    failed: int


class BulkReplayed(msgspec.Struct, frozen=True, kw_only=True):
    """Dead letters that are queued again."""

    replayed: list[JobRun]
    count: int


class KeyReset(msgspec.Struct, frozen=True, kw_only=True):
    """An idempotency key that stands for its run no more."""

    status: Literal["reset"]
    run_id: str


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request was refused, and its id in the gateway's log."""

    error: str
    request_id: str
