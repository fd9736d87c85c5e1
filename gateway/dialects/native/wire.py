"""What callers send: bodies of the native API. Unknown members are refused, so that a typo is not a silence."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from gateway.domain.events import NewEvent
from gateway.domain.files import RUN_FILES

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

Trigger = Literal["manual", "cron", "spawn", "workflow", "retry", "event"]


class CreateRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/runs`: durations in seconds, times RFC 3339 with an offset."""

    agent_id: Segment
    mode: str
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


class Act(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A control action: why, in the caller's words, and on whose behalf."""

    reason: Text | None = None
    triggered_by: Text | None = None


class Cancel(Act, frozen=True, forbid_unknown_fields=True):
    """`force` skips the grace that the run's holder has."""

    force: bool = False


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
    writer: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    writer_seq: Count | None = None
    expected_seq: Seq | None = None
    attempt: Count | None = None


class Purge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to remove of an ended run: all of it, its log only, or its log up to a seq."""

    keep_record: bool = False
    through_seq: Count | None = None


class CreateTicket(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a ticket shall open: runs, a thread, or in so many words the whole tenant; and for how long."""

    tenant: bool = False
    runs: Annotated[list[RunId], Meta(min_length=1, max_length=64)] | None = None
    thread_id: Segment | None = None
    scopes: Annotated[list[str], Meta(min_length=1, max_length=8)] | None = None
    ttl_s: Annotated[int, Meta(ge=1)] | None = None


class PrincipalBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who acts with a key."""

    id: Annotated[str, Meta(min_length=1, max_length=128)]
    name: Annotated[str, Meta(max_length=200)] | None = None
    email: Annotated[str, Meta(max_length=320)] | None = None


class CreateKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new API key; its tenant is the caller's by default."""

    scopes: Annotated[list[str], Meta(min_length=1, max_length=8)]
    tenant: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    name: Annotated[str, Meta(max_length=200)] | None = None
    principal: PrincipalBody | None = None
    agents: Annotated[list[Segment], Meta(min_length=1, max_length=100)] | None = None
