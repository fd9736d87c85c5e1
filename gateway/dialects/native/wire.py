"""What callers send: bodies of the native API. Unknown members are refused, so that a typo is not a silence."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta

from gateway.domain.access import SCOPES, TICKET_SCOPES
from gateway.domain.events import NewEvent
from gateway.domain.files import RUN_FILES
from gateway.domain.lifecycle import MODES

# `$` would let a line break pass at the end, where `\Z` does not.
Name = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@/+-]*\Z")]
# A name that is a segment of a path.
Segment = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@+-]*\Z")]
Text = Annotated[str, Meta(max_length=1_000)]
TagKey = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[^:\x00-\x1f]+\Z")]
TagValue = Annotated[str, Meta(max_length=256)]
Moment = Annotated[datetime, Meta(tz=True)]
Duration = Annotated[float, Meta(gt=0, le=366 * 86_400)]
RunId = Annotated[str, Meta(min_length=26, max_length=26)]
FileId = Annotated[str, Meta(min_length=1, max_length=26, pattern=r"^[a-zA-Z0-9_-]+\Z")]
Seq = Annotated[int, Meta(ge=0, le=2**53)]
Count = Annotated[int, Meta(ge=1, le=2**53)]

# What is none of these is refused by the rules themselves, in their own words.
Mode = Annotated[str, Meta(extra_json_schema={"enum": list(MODES)})]
Scope = Annotated[str, Meta(extra_json_schema={"enum": sorted(SCOPES)})]
TicketScope = Annotated[str, Meta(extra_json_schema={"enum": sorted(TICKET_SCOPES)})]
Trigger = Literal["manual", "cron", "spawn", "workflow", "retry", "event"]


Backoff = Literal["fixed", "linear", "exponential"]
Delay = Annotated[float, Meta(ge=0, le=30 * 86_400)]
Attempts = Annotated[int, Meta(ge=1, le=1_000)]
Lease = Annotated[float, Meta(ge=0.1, le=3_600)]
Key = Annotated[str, Meta(min_length=1, max_length=256)]
WorkerName = Annotated[str, Meta(min_length=1, max_length=128)]
Writer = Annotated[str, Meta(min_length=1, max_length=128)]


class Retry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a failed attempt is tried again: how often in all, and after how long."""

    max_attempts: Attempts | None = None
    backoff: Backoff | None = None
    initial_delay_s: Delay | None = None
    max_delay_s: Delay | None = None


class DependsOn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A run that has to end first, and how."""

    run_id: RunId
    condition: Literal["completed", "failed", "finished"] = "completed"


class WebhookBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where to tell of which events; what is left out is made up, or the default."""

    url: Annotated[str, Meta(min_length=1, max_length=2_048)]
    events: Annotated[list[Annotated[str, Meta(max_length=128)]], Meta(min_length=1, max_length=32)] | None = None
    secret: Annotated[str, Meta(max_length=128)] | None = None
    id: Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z")] | None = None


WebhookBodies = Annotated[list[WebhookBody], Meta(max_length=8)]


class Redeliver(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST …/redeliver`: after which seq to begin; without it at the beginning."""

    after_seq: Seq = 0


class CreateRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/runs`: durations in seconds, times RFC 3339 with an offset."""

    agent_id: Segment
    mode: Mode
    thread_id: Segment | None = None
    input: Any = None
    title: Annotated[str, Meta(max_length=300)] | None = None
    tags: Annotated[dict[TagKey, TagValue], Meta(max_length=16)] = {}
    metadata: Annotated[dict[str, Any], Meta(max_length=1_000)] = {}
    trigger: Trigger = "manual"
    triggered_by: Text | None = None
    parent_run_id: RunId | None = None
    batch_id: Name | None = None
    scheduled_at: Moment | None = None
    delay_s: Annotated[float, Meta(ge=0, le=366 * 86_400)] | None = None
    timeout_s: Duration | None = None
    heartbeat_s: Annotated[float, Meta(ge=1, le=86_400)] | None = None
    file_ids: Annotated[list[FileId], Meta(max_length=RUN_FILES)] = []
    extensions: dict[str, Any] = {}
    queue: Segment | None = None
    priority: Annotated[int, Meta(ge=-1_000, le=1_000)] = 0
    concurrency_key: Key | None = None
    retry: Retry = Retry()
    dead_letter: bool | None = None
    queue_expiry_s: Duration | None = None
    lease_s: Lease | None = None
    depends_on: Annotated[list[DependsOn], Meta(max_length=64)] = []
    preset: Name | None = None
    webhooks: WebhookBodies = []


Item = TypeVar("Item")


class NewBatch(msgspec.Struct, Generic[Item], frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/runs/batch`: runs, each as `POST /v1/runs` takes it, and by what they are found together."""

    runs: Annotated[list[Item], Meta(min_length=1, max_length=1_000)]
    batch_id: Name | None = None


class PutAgent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PUT /v1/agents/{id}`: all of an agent's definition; what is left out has its default."""

    runtime: Literal["workflow", "conversational"] = "workflow"
    queue: Segment = "default"
    retry: Retry = Retry()
    run_timeout_s: Duration | None = None
    queue_expiry_s: Duration | None = None
    lease_s: Lease | None = None
    max_concurrent: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    dead_letter: bool = False
    presets: Annotated[dict[Name, Any], Meta(max_length=64)] = {}
    title: Annotated[str, Meta(max_length=300)] | None = None
    metadata: Annotated[dict[str, Any], Meta(max_length=1_000)] = {}
    webhooks: WebhookBodies = []


class PutSchedule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PUT /v1/schedules/{id}`: all of a schedule; what is left out has its default."""

    agent_id: Segment
    cron: Annotated[str, Meta(min_length=1, max_length=256)]
    timezone: Annotated[str, Meta(min_length=1, max_length=64)] = "UTC"
    input: Any = None
    title: Annotated[str, Meta(max_length=300)] | None = None
    tags: Annotated[dict[TagKey, TagValue], Meta(max_length=16)] = {}
    metadata: Annotated[dict[str, Any], Meta(max_length=1_000)] = {}
    priority: Annotated[int, Meta(ge=-1_000, le=1_000)] = 0
    concurrency_key: Key | None = None
    preset: Name | None = None
    queue: Segment | None = None
    overlap: Literal["allow", "skip"] = "allow"
    enabled: bool = True


class TriggerSchedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/schedules/{id}/trigger`: on whose behalf."""

    triggered_by: Text | None = None


class Claim(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/claims`: from which queues, how many, and how long to wait for the first."""

    queues: Annotated[tuple[Segment, ...], Meta(min_length=1, max_length=16)] = ("default",)
    max: Annotated[int, Meta(ge=1, le=100)] = 1
    wait_s: Annotated[float, Meta(ge=0, le=30)] = 0.0
    worker: WorkerName | None = None


class Heartbeat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a holder says with every call; the lease may stand in the `Lease` header instead."""

    lease: Annotated[str, Meta(max_length=128)] | None = None
    attempt: Count | None = None


class KeepUp(Heartbeat, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/runs/{id}/heartbeat`: `start` also starts the attempt, where no append has done so yet."""

    start: bool = False


class Release(Heartbeat, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/runs/{id}/release`: why, for people; with `expected_seq` only while the log's head is there."""

    reason: Text | None = None
    expected_seq: Seq | None = None


class Act(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A control action: why, in the caller's words, and on whose behalf."""

    reason: Text | None = None
    triggered_by: Text | None = None


class Cancel(Act, frozen=True, forbid_unknown_fields=True):
    """`force` skips the grace that the run's holder has."""

    force: bool = False


class Restart(Act, frozen=True, forbid_unknown_fields=True):
    """`from_checkpoint`: `true` for the last one, or the seq of one; without it the run begins at the beginning."""

    preset: Name | None = None
    from_checkpoint: bool | Count = False


class DebugMode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether the run is looked at closely."""

    debug_mode: bool
    triggered_by: Text | None = None


RunIds = Annotated[list[Annotated[str, Meta(min_length=1, max_length=64)]], Meta(min_length=1, max_length=1_000)]


class BulkReplay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Runs to make new ones of."""

    run_ids: RunIds
    triggered_by: Text | None = None


class BulkCancel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Runs to cancel; `force` skips the grace that their holders have."""

    run_ids: RunIds
    reason: Text | None = None
    triggered_by: Text | None = None
    force: bool = False


class BulkCancelAll(Cancel, frozen=True, forbid_unknown_fields=True):
    """Why every run that matches the query is cancelled."""


class BulkDlqReplay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Dead letters to queue again; without `run_ids` every one that matches the query."""

    run_ids: RunIds | None = None
    triggered_by: Text | None = None


class Reschedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When the run shall start instead."""

    scheduled_at: Moment
    triggered_by: Text | None = None


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An answer; without `request_id` to the only open question."""

    content: Any
    request_id: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    triggered_by: Text | None = None


class IncomingEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One event as a writer sends it."""

    type: Annotated[str, Meta(min_length=1, max_length=128)]
    data: Any = msgspec.field(default_factory=dict)
    step_id: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    parent_id: Annotated[str, Meta(min_length=1, max_length=128)] | None = None

    def new_event(self) -> NewEvent:
        """Return it as the domain has it."""
        return NewEvent(self.type, self.data, self.step_id, self.parent_id)


class Append(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/runs/{id}/events`: a batch. An empty one is a heartbeat."""

    events: list[IncomingEvent]
    writer: Writer | None = None
    writer_seq: Count | None = None
    expected_seq: Seq | None = None
    attempt: Count | None = None


class AppendOne(IncomingEvent, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/runs/{id}/events`: one event, and beside it what a batch says beside its events."""

    writer: Writer | None = None
    writer_seq: Count | None = None
    expected_seq: Seq | None = None
    attempt: Count | None = None

    def batch(self) -> Append:
        """Return the batch of this event."""
        return Append([self], self.writer, self.writer_seq, self.expected_seq, self.attempt)


class Purge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to remove of an ended run: all of it, its log only, or its log up to a seq."""

    keep_record: bool = False
    through_seq: Count | None = None


Lifetime = Annotated[int, Meta(ge=1, le=3_650 * 86_400)]


class CreateTicket(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a ticket shall open: runs, a thread, or in so many words the whole tenant; and for how long."""

    tenant: bool = False
    runs: Annotated[list[RunId], Meta(min_length=1, max_length=64)] | None = None
    thread_id: Segment | None = None
    scopes: Annotated[list[TicketScope], Meta(min_length=1, max_length=8)] | None = None
    ttl_s: Annotated[int, Meta(ge=1)] | None = None
    single_use: Annotated[bool, Meta(description="It opens one connection: one stream, request or WebSocket.")] = False
    origin: (
        Annotated[str, Meta(min_length=1, max_length=256, description="Only pages of this origin may show it.")] | None
    ) = None


class PrincipalBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who acts with a key."""

    id: Annotated[str, Meta(min_length=1, max_length=128)]
    name: Annotated[str, Meta(max_length=200)] | None = None
    email: Annotated[str, Meta(max_length=320)] | None = None


class CreateKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new API key; its tenant is the caller's by default."""

    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=8)]
    tenant: Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+\Z")] | None = None
    name: Annotated[str, Meta(max_length=200)] | None = None
    principal: PrincipalBody | None = None
    agents: Annotated[list[Segment], Meta(min_length=1, max_length=100)] | None = None
    expires_in_s: Lifetime | None = None


class RotateKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long the old key works beside the new one, and the new one at all: by default as long as the old was to."""

    overlap_s: Annotated[int, Meta(ge=0, le=30 * 86_400)] = 86_400
    expires_in_s: Lifetime | None = None
