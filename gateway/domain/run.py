"""The run: what it was created with, where it stands, and how each event changes that."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.domain.lifecycle import QUEUED, TERMINAL, Status
from gateway.domain.retry import Policy


class Actor(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who did something: `kind` is `key`, `ticket`, `token` or `system`; `triggered_by` is free text of the caller."""

    kind: str
    id: str | None = None
    name: str | None = None
    email: str | None = None
    triggered_by: str | None = None


SYSTEM = Actor("system", "gateway")


class Dependency(msgspec.Struct, frozen=True):
    """Another run that has to end before this one is queued: `completed`, `failed`, or just `finished`."""

    run_id: str
    agent_id: str
    condition: str = "completed"


class RunSpec(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What never changes of a run; times in Unix ms, `created_us` in Unix µs, unique per tenant."""

    id: str
    tenant: str
    agent_id: str
    mode: str
    thread_id: str
    created_us: int
    actor: Actor
    input: Any = None
    title: str | None = None
    tags: dict[str, str] = {}
    metadata: dict[str, Any] = {}
    trigger: str = "manual"
    triggered_by: str | None = None
    parent_run_id: str | None = None
    retry_of: str | None = None
    replay_of: str | None = None
    root_run_id: str | None = None
    lineage_depth: int = 0
    batch_id: str | None = None
    schedule_id: str | None = None
    tick_ms: int | None = None
    scheduled_ms: int | None = None
    start_timeout_ms: int | None = 600_000
    timeout_ms: int | None = None
    heartbeat_ms: int | None = None
    file_ids: tuple[str, ...] = ()
    extensions: dict[str, Any] = {}
    agent_version: int = 0
    queue: str = "default"
    priority: int = 0
    concurrency_key: str | None = None
    max_concurrent: int | None = None
    policy: Policy = Policy()
    overrides: dict[str, Any] = {}
    lease_ms: int = 30_000
    depends_on: tuple[Dependency, ...] = ()
    preset: str | None = None
    trace_id: str | None = None
    parent_span_id: str | None = None
    idempotency_key: str | None = None

    @property
    def is_queued(self) -> bool:
        """Whether a worker has to claim the run before it can be written."""
        return self.mode == QUEUED


class Question(msgspec.Struct, frozen=True, omit_defaults=True):
    """An open question of a run."""

    request_id: str
    prompt: str
    asked_ms: int
    schema: Any = None
    deadline_ms: int | None = None
    on_timeout: str = "keep"
    default: Any = None


class Settled(msgspec.Struct, frozen=True, omit_defaults=True):
    """A question that is open no more; the mark `settled:<slot>` has the seq of what closed it.

    `is_old`: it was asked by an attempt that was abandoned since, so its id may be asked with again.
    """

    request_id: str
    slot: int
    answered: bool = False
    is_old: bool = False


class RunState(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What changes of a run through its events; times in Unix ms.

    `leased`: a worker has claimed the run, and its lease has not been lost or given back.
    `held`: somebody is writing it: a direct run that was started, or a claimed one.
    `paused_for_ms` is how long the present attempt stood still, the present pause not included.
    `supersedes_from` is the seq from which on the next start does again what was done.
    `continues`: the present attempt was interrupted at a question, and the next start goes on after it.
    `next_attempt` is the one that a failed attempt is followed by once the run is queued again.
    `failures` and `unstarted` count attempts that failed, and claims in a row that never started one.
    `checkpoint_seq` is the checkpoint that a restart named.
    `met` are the runs that ended as this one needs it while it still waits for others.
    `place_ms` is since when the run has its place in its queue: one that goes on keeps it.
    `settled` are the last questions that were answered or closed, oldest first, and `settled_count` counts them all.
    """

    status: Status
    attempt: int = 1
    held: bool = False
    leased: bool = False
    worker: str | None = None
    scheduled_ms: int | None = None
    queued_ms: int | None = None
    place_ms: int | None = None
    claimed_ms: int | None = None
    claim_took_ms: int | None = None
    next_retry_ms: int | None = None
    next_attempt: int | None = None
    failures: int = 0
    unstarted: int = 0
    continues: bool = False
    met: tuple[str, ...] = ()
    dependencies_met: bool = False
    checkpoint_seq: int | None = None
    preset: str | None = None
    debug_mode: bool = False
    key_reset: bool = False
    expires_ms: int | None = None
    started_ms: int | None = None
    attempt_started_ms: int | None = None
    paused_ms: int | None = None
    paused_for_ms: int = 0
    resumed_ms: int | None = None
    ended_ms: int | None = None
    cancel_deadline_ms: int | None = None
    supersedes_from: int | None = None
    open: tuple[Question, ...] = ()
    settled: tuple[Settled, ...] = ()
    settled_count: int = 0
    output: Any = None
    error: Any = None

    @property
    def terminal(self) -> bool:
        """Whether the run has ended."""
        return self.status in TERMINAL


class Totals(msgspec.Struct, frozen=True):
    """Running totals of `usage.recorded`: tokens, and money in micro-dollars, credits in millionths."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cost_microusd: int = 0
    credits_micro: int = 0


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run as the store holds it.

    `rev` counts state changes, not events. `marks` name the seq of events that later decisions and readers need:
    `origin` (where the run last began at the beginning), `restart`, `attempt`, `checkpoint`, `input`, `cancel`,
    `pause`, `resume`, `settled:<slot>` of the last questions that were answered or closed, and `output`, the last
    named output that was set.
    `holder_seq` is the last event that a holder of the run wrote.
    `output_ms` is when the present attempt first said something, 0 when it did not.
    `hooked` are the patterns of events that its webhooks want, joined by commas; empty without any.
    `model` is the one that the last `usage.recorded` names.
    """

    spec: RunSpec
    state: RunState
    rev: int
    head_seq: int
    head_tag: int
    first_seq: int
    updated_ms: int
    beat_ms: int = 0
    holder_seq: int = 0
    output_ms: int = 0
    log_expired: bool = False
    hooked: str = ""
    marks: dict[str, int] = {}
    totals: Totals = Totals()
    model: str | None = None

    @property
    def id(self) -> str:
        """The run's id, a ULID."""
        return self.spec.id

    @property
    def status(self) -> Status:
        """Where the run stands."""
        return self.state.status

    @property
    def checkpoint_seq(self) -> int | None:
        """The seq of the checkpoint that the next attempt goes on from, None to begin at the beginning."""
        latest = self.marks.get("checkpoint", 0)
        return latest if latest > self.marks.get("restart", 0) else self.state.checkpoint_seq
