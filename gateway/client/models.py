"""What the gateway answers with, as frozen structs. Times are RFC 3339 text in UTC, as it wrote them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from gateway.client.errors import ApiError

TERMINAL_STATUSES = frozenset(
    {"completed", "failed", "cancelled", "timed_out", "crashed", "system_failed", "expired", "dead_letter"}
)
"""Statuses that a run leaves only by being restarted."""


class Question(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A question that a run waits on. From the inbox it also names its run."""

    request_id: str
    prompt: Any = None
    schema: Any = None
    deadline_at: str | None = None
    on_timeout: str | None = None
    created_at: str | None = None
    run_id: str | None = None
    agent_id: str | None = None
    thread_id: str | None = None
    title: str | None = None


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How a failed attempt is tried again: how often in all, and after how many seconds."""

    max_attempts: int = 1
    backoff: str = "exponential"
    initial_delay_s: float = 1.0
    max_delay_s: float = 300.0


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds a run, and until when without a sign of life."""

    expires_at: str
    claimed_at: str | None = None
    worker: str | None = None


class Dependency(msgspec.Struct, frozen=True, kw_only=True):
    """A run that has to end first; `condition` is completed, failed or finished."""

    run_id: str
    condition: str = "completed"
    agent_id: str | None = None


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run's record. `head_seq` is its newest event; `error` has code, message and perhaps details.

    `usage` has running totals of tokens, `cost_microusd` and `credits_micro`.
    """

    id: str
    agent_id: str
    status: str
    mode: str = "direct"
    thread_id: str | None = None
    attempt: int = 1
    input: Any = None
    output: Any = None
    error: dict[str, Any] | None = None
    title: str | None = None
    tags: dict[str, str] = {}
    metadata: dict[str, Any] = {}
    created_at: str | None = None
    scheduled_at: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    updated_at: str | None = None
    expires_at: str | None = None
    cancel_deadline_at: str | None = None
    timeout_s: float | None = None
    heartbeat_s: float | None = None
    first_seq: int = 1
    head_seq: int = 0
    log_expired: bool = False
    open_requests: list[Question] = []
    usage: dict[str, int] = {}
    trigger: str | None = None
    triggered_by: str | None = None
    created_by: Any = None
    parent_run_id: str | None = None
    root_run_id: str | None = None
    retry_of: str | None = None
    replay_of: str | None = None
    lineage_depth: int = 0
    batch_id: str | None = None
    file_ids: list[str] = []
    extensions: dict[str, Any] = {}
    agent_version: int = 0
    queue: str = "default"
    priority: int = 0
    concurrency_key: str | None = None
    retry: RetryPolicy | None = None
    dead_letter: bool = False
    failed_attempts: int = 0
    next_retry_at: str | None = None
    queue_expiry_s: float | None = None
    lease_s: float | None = None
    lease: Holder | None = None
    heartbeat_at: str | None = None
    checkpoint_seq: int | None = None
    depends_on: list[Dependency] = []
    preset: str | None = None
    trace_id: str | None = None
    idempotency_key: str | None = None
    debug_mode: bool = False
    execution_trace: dict[str, int | None] = {}
    webhooks: list[dict[str, Any]] = []
    """Its own, only in the answer to its creation: with the secrets that were made up."""

    @property
    def ended(self) -> bool:
        """Whether the run is over: nothing but a restart adds to its log."""
        return self.status in TERMINAL_STATUSES


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one run of a batch: the run, or why there is none."""

    run: Run | None = None
    error: ApiError | None = None


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What all runs of a batch are found by, and what came of each, in the order in which they were named."""

    id: str
    results: list[Made]

    @property
    def runs(self) -> list[Run]:
        """Those that were created."""
        return [made.run for made in self.results if made.run is not None]


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One entry of a run's log. `cursor` is the position just after it: resume a stream with it.

    `data` is an object for every type but `custom.*`, where it may be any JSON.
    From a JSON page only the last event of the page has the verified `seq-tag` form of cursor.
    """

    seq: int
    type: str
    run_id: str
    created_at: str
    attempt: int
    step_id: str | None = None
    parent_id: str | None = None
    data: Any
    cursor: str = ""


class Gap(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="stream.gap"):
    """The log no longer has what was asked for; events go on at `first_seq`."""

    first_seq: int
    run_id: str | None = None
    requested: Any = None


class Reset(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="stream.reset"):
    """The log is not the one that was read before: discard every event after `valid_through`.

    Events go on at `valid_through` + 1, from the beginning when it is 0.
    """

    reason: str | None = None
    valid_through: int | None = 0
    head_seq: int | None = None
    run_id: str | None = None


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="stream.snapshot"):
    """The run folded up to and including `as_of_seq`; events go on after it."""

    as_of_seq: int
    state: Any
    run_id: str | None = None
    cursor: str = ""


StreamItem = Event | Gap | Reset | Snapshot
"""What a stream of a run's events yields."""


class Pending(msgspec.Struct, frozen=True):
    """Something that a run's writer should react to; the event `seq` of the log says it in full."""

    type: Literal["cancel", "pause", "input"] | str
    seq: int


class Appended(msgspec.Struct, frozen=True, kw_only=True):
    """The reply to an append. `duplicate` says that this same append had been stored before."""

    status: str
    first_seq: int | None = None
    last_seq: int | None = None
    attempt: int | None = None
    pending: list[Pending] = []
    duplicate: bool = False
    request_ids: list[str] = []


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker proves that it holds a run with; it ends `lease_s` seconds after the last sign of life."""

    token: str
    attempt: int
    expires_at: str
    lease_s: float = 30.0


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that counted; `reason` is `deadline` where nobody answered and the default counts."""

    request_id: str
    content: Any
    seq: int = 0
    actor: Any = None
    reason: str | None = None


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker saved to go on from; `numbers` is how far it had counted what it wrote."""

    seq: int
    created_at: str
    source: str
    state: Any
    numbers: dict[str, int] = {}


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """A named configuration of the agent that the run is to be executed with."""

    name: str
    config: Any = None


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is now the claimer's.

    `continues`: the attempt was let go at a question, and `answers` are those that it was given since it began.
    `checkpoint` is where it goes on from, None to begin at the beginning.
    `traceparent` is the W3C header under which spans of the work join the run's trace.
    """

    run: Run
    lease: Lease
    traceparent: str | None = None
    continues: bool = False
    answers: list[Answer] = []
    checkpoint: Checkpoint | None = None
    preset: Preset | None = None


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """The reply to a heartbeat."""

    status: str
    attempt: int
    pending: list[Pending] = []


class AgentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An agent as it is registered. Durations in seconds."""

    id: str
    version: int
    runtime: str = "workflow"
    queue: str = "default"
    retry: RetryPolicy = RetryPolicy()
    dead_letter: bool = False
    run_timeout_s: float | None = None
    queue_expiry_s: float | None = None
    lease_s: float | None = None
    max_concurrent: int | None = None
    presets: dict[str, Any] = {}
    title: str | None = None
    metadata: dict[str, Any] = {}
    created_at: str | None = None
    updated_at: str | None = None


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """The answer counted: `seq` is its event in the run's log."""

    request_id: str
    seq: int
    ok: bool = True


class File(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file that the gateway keeps; `run_id` is of the run that made it, `expires_at` of one that was uploaded.

    `url` opens it without a key until `url_expires_at`: `client.files.get` brings a fresh one.
    `seq` is the event that announced it, where it was just uploaded to a run.
    """

    file_id: str
    name: str
    size_bytes: int
    content_type: str
    sha256: str | None = None
    run_id: str | None = None
    created_at: str | None = None
    created_by: Any = None
    expires_at: str | None = None
    url: str | None = None
    url_expires_at: str | None = None
    seq: int | None = None


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """A short-lived pass for `?ticket=`, where headers cannot be sent."""

    ticket: str
    expires_at: str
    scopes: list[str] = []
    single_use: bool = False
    origin: str | None = None


class FeedItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run's change of status: `data` has status, previous, agent_id, thread_id, title, run_seq."""

    type: str
    run_id: str
    created_at: str
    seq: int = 0
    data: dict[str, Any] = {}
    cursor: str = ""
