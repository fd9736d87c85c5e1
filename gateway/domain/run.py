"""The run: what it was created with, where it stands, and how each event changes that."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.domain.lifecycle import TERMINAL, Status


class Actor(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who did something: `kind` is `key`, `ticket` or `system`; `triggered_by` is free text of the caller."""

    kind: str
    id: str | None = None
    name: str | None = None
    email: str | None = None
    triggered_by: str | None = None


SYSTEM = Actor("system", "gateway")


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
    scheduled_ms: int | None = None
    start_timeout_ms: int = 600_000
    timeout_ms: int | None = None
    heartbeat_ms: int | None = None
    file_ids: tuple[str, ...] = ()
    extensions: dict[str, Any] = {}


class Question(msgspec.Struct, frozen=True, omit_defaults=True):
    """An open question of a run."""

    request_id: str
    prompt: str
    asked_ms: int
    schema: Any = None
    deadline_ms: int | None = None
    on_timeout: str = "keep"
    default: Any = None


class RunState(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What changes of a run through its events; times in Unix ms.

    `paused_for_ms` is how long the present attempt stood still, the present pause not included.
    """

    status: Status
    attempt: int = 1
    held: bool = False
    scheduled_ms: int | None = None
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

    `rev` counts state changes, not events. `marks` name the seq of events that later decisions need:
    `attempt`, `input`, `cancel`, `pause`, `answered:<request_id>`, `closed:<request_id>`.
    """

    spec: RunSpec
    state: RunState
    rev: int
    head_seq: int
    head_tag: int
    first_seq: int
    updated_ms: int
    beat_ms: int = 0
    log_expired: bool = False
    marks: dict[str, int] = {}
    totals: Totals = Totals()

    @property
    def id(self) -> str:
        """The run's id, a ULID."""
        return self.spec.id

    @property
    def status(self) -> Status:
        """Where the run stands."""
        return self.state.status
