"""The query parameters of the native API, as types, for whoever reads its description.

A test asks every route for its parameters, so that neither can move alone.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.dialects.native.project import STATUS_WORDS

Text = Annotated[str, Meta(max_length=4_096)]
Cursor = Annotated[str, Meta(pattern=r"^(0|[1-9][0-9]{0,14})(-(0|[1-9][0-9]{0,8}))?\Z")]
Pair = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}:[^,&]{0,256}\Z")]
Seq = Annotated[int, Meta(ge=0, le=2**53)]
Time = Annotated[
    str, Meta(extra_json_schema={"format": "date-time", "pattern": "^(197[1-9]|19[89][0-9]|[2-9][0-9]{3})-"})
]
StatusWord = Annotated[str, Meta(extra_json_schema={"enum": sorted(STATUS_WORDS)})]
Pairs = Annotated[list[Pair], Meta(min_length=1, description="key:value; repeat it for more.")]
Contained = Annotated[
    str,
    Meta(
        description="What the run's input contains.",
        extra_json_schema={"contentMediaType": "application/json", "contentSchema": {"type": "object"}},
    ),
]
Page = Annotated[int, Meta(ge=1, le=100)]
Next = Annotated[
    str,
    Meta(pattern=r"^[0-9]{1,16}-[0-7][0-9A-HJKMNP-TV-Z]{25}\Z", description="The next_cursor of the page before."),
]
_TYPE = r"(\*|[a-z0-9_-]{1,32}(\.[a-z0-9_-]{1,32})?(\.\*)?)"
Types = Annotated[
    str,
    Meta(
        pattern=rf"^({_TYPE}(,{_TYPE}){{0,8}})?\Z",
        description="Types of event that are wanted, such as message.delta,tool.*",
    ),
]


Linger = Annotated[
    int, Meta(ge=0, le=1_000, description="Least pause in ms between two writes of events; the first is never late.")
]


class Ticketed(msgspec.Struct, frozen=True, kw_only=True):
    """What a browser may show in place of a header."""

    ticket: Annotated[str, Meta(description="A ticket, where no header can be sent.")] | None = None


class Follow(Ticketed, frozen=True, kw_only=True):
    """Where a stream begins."""

    after: Annotated[Cursor, Meta(description="The cursor of the last event that was seen.")] | None = None
    after_seq: Annotated[Seq, Meta(description="Its number alone.")] | None = None


class FollowRun(Follow, frozen=True, kw_only=True):
    """Which part of a run's stream is wanted."""

    types: Types | None = None
    snapshot: bool = False
    linger_ms: Linger | None = None


class FollowChunks(Follow, frozen=True, kw_only=True):
    """Where the text of a run begins."""

    snapshot: bool = False
    linger_ms: Linger | None = None


class FollowMany(FollowRun, frozen=True, kw_only=True):
    """Which runs to follow on one stream."""

    run: Annotated[list[Annotated[str, Meta(min_length=26, max_length=26)]], Meta(min_length=1, max_length=16)]


class FollowThread(Ticketed, frozen=True, kw_only=True):
    """Where a thread's stream begins."""

    after: str | None = None
    types: Types | None = None


class ReadEvents(Follow, frozen=True, kw_only=True):
    """Which page of a run's log is wanted."""

    limit: Annotated[int, Meta(ge=1, le=1_000)] = 100
    types: Types | None = None


class FollowEvents(ReadEvents, frozen=True, kw_only=True):
    """What a page takes, and with `Accept: text/event-stream` what a stream takes."""

    snapshot: bool = False
    linger_ms: Linger | None = None


class Create(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the answer is the new run's stream, and what of it."""

    stream: bool = False
    types: Types | None = None
    linger_ms: Linger | None = None


class Choose(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs are meant; all that are given must hold."""

    agent_id: Text | None = None
    thread_id: Text | None = None
    tag: Pairs | None = None
    metadata: Pairs | None = None
    payload: Contained | None = None
    trigger: Text | None = None
    batch_id: Text | None = None
    schedule_id: Text | None = None
    parent_run_id: Text | None = None
    created_after: Time | None = None
    created_before: Time | None = None


class Paging(msgspec.Struct, frozen=True, kw_only=True):
    """Which page is wanted."""

    limit: Page = 50
    cursor: Next | None = None


class PageByName(msgspec.Struct, frozen=True, kw_only=True):
    """Which page of agents, queues or schedules is wanted: after which id or name."""

    limit: Page = 50
    cursor: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@+-]{0,127}\Z")] | None = None


class ChooseStatus(Choose, frozen=True, kw_only=True):
    """Which runs are meant, by status too; other systems' status words are understood."""

    status: list[StatusWord] = []


class Find(ChooseStatus, frozen=True, kw_only=True):
    """Which page of which runs to list."""

    limit: Page = 50
    cursor: Next | None = None


class FindDead(Choose, frozen=True, kw_only=True):
    """Which page of which dead letters to list."""

    limit: Page = 50
    cursor: Next | None = None


class Act(ChooseStatus, frozen=True, kw_only=True):
    """Which runs to act on, and where to go on."""

    cursor: Next | None = None


class Inbox(Paging, frozen=True, kw_only=True):
    """Which questions to list."""

    status: Literal["open"] | None = None


class PageOfFold(msgspec.Struct, frozen=True, kw_only=True):
    """Which page of a fold is wanted; `cursor` is a seq."""

    limit: Annotated[int, Meta(ge=1, le=1_000)] = 1_000
    cursor: Seq | None = None


class NameFile(msgspec.Struct, frozen=True, kw_only=True):
    """What the file is called."""

    name: Annotated[str, Meta(min_length=1, max_length=255)] | None = None


class NameOutput(NameFile, frozen=True, kw_only=True):
    """What the file is called, and which attempt and step made it."""

    attempt: Annotated[int, Meta(ge=1, le=2**53)] | None = None
    step_id: Annotated[str, Meta(max_length=128)] | None = None


class FindFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Which page of files is wanted, of which run; `cursor` is a file's id."""

    run_id: str | None = None
    limit: Page = 50
    cursor: Annotated[str, Meta(pattern=r"^[0-7][0-9A-HJKMNP-TV-Z]{25}\Z")] | None = None


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """What a signed address brings with it."""

    expires: Annotated[int, Meta(ge=0, le=2**53)]
    signature: str


class Include(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted beside the record."""

    include: list[Literal["steps"]] = []


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """For what, and how long, to wait."""

    timeout_s: Annotated[float, Meta(ge=0, le=60)] = 30.0
    until: Literal["ended", "waiting"] = "ended"


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """Which version of the agent."""

    version: Annotated[int, Meta(ge=1, le=2**53)] | None = None


class FindReaders(msgspec.Struct, frozen=True, kw_only=True):
    """Which open streams are wanted; `behind_s=0` for all that lack events, `tenant=*` for those of every tenant."""

    limit: Page = 50
    cursor: Annotated[str, Meta(pattern=r"^[0-9]{1,17}-[0-9a-f]{1,32}-[0-9]{1,17}\Z")] | None = None
    tenant: Annotated[str, Meta(pattern=r"^(\*|[A-Za-z0-9._-]{1,64})\Z")] | None = None
    run_id: str | None = None
    behind_s: Annotated[float, Meta(ge=0, le=86_400)] | None = None


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """Whose keys; the caller's own tenant by default."""

    tenant: str | None = None
