"""What the native API answers to workers, of agents, of access and of files, as types; see `answers.py`."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from gateway.dialects.native.answers import Page, RetryPolicy, Run
from gateway.dialects.native.webhook_answers import Hook
from gateway.domain.lifecycle import Status
from gateway.domain.run import Actor
from gateway.service.writing import Pending


class Lease(msgspec.Struct, frozen=True):
    """What a worker proves with that it holds the run."""

    token: str
    attempt: int
    expires_at: str
    lease_s: float


class Preset(msgspec.Struct, frozen=True):
    """The configuration that the attempt is run with."""

    name: str
    config: Any


class Claimed(msgspec.Struct, frozen=True):
    """A claimed run, its lease, and what its attempt goes on from."""

    run: Run
    lease: Lease
    traceparent: str | None
    continues: bool
    answers: list[dict[str, Any]]
    preset: Preset | UnsetType = UNSET
    checkpoint: dict[str, Any] | UnsetType = UNSET


class Claims(msgspec.Struct, frozen=True):
    """What a worker holds from now on."""

    data: list[Claimed]


class LeaseEnd(msgspec.Struct, frozen=True):
    """When a lease ends without another heartbeat."""

    expires_at: str


class Beat(msgspec.Struct, frozen=True):
    """The lease holds on; what the worker has not seen."""

    status: Status
    attempt: int
    lease: LeaseEnd
    pending: list[Pending]


class Queue(msgspec.Struct, frozen=True):
    """What a queue holds."""

    name: str
    waiting: int
    held: int
    oldest_queued_at: str | None


class Agent(msgspec.Struct, frozen=True):
    """A registered agent."""

    id: str
    version: int
    runtime: Literal["workflow", "conversational"]
    queue: str
    retry: RetryPolicy
    dead_letter: bool
    run_timeout_s: float | None
    queue_expiry_s: float | None
    lease_s: float | None
    max_concurrent: int | None
    presets: dict[str, Any]
    title: str | None
    metadata: dict[str, Any]
    webhooks: list[Hook]
    created_at: str | None
    updated_at: str | None


class Ticket(msgspec.Struct, frozen=True):
    """A short-lived credential."""

    ticket: str
    expires_at: str
    scopes: list[str]
    single_use: bool
    origin: str | None


class KeyPrincipal(msgspec.Struct, frozen=True):
    """Whoever acts with a key."""

    id: str
    name: str | None = None
    email: str | None = None


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file's record; `expires_at` is when it is removed for its age."""

    file_id: str
    name: str
    size_bytes: int
    content_type: str
    sha256: str
    run_id: str | None
    created_at: str
    created_by: Actor
    expires_at: str | None


class LinkedFile(File, frozen=True, kw_only=True):
    """A file, and an address that opens it without a key for a while."""

    url: str
    url_expires_at: str


class OutputFile(File, frozen=True, kw_only=True):
    """A file that a run made, and the event that says so."""

    seq: int


class Removed(msgspec.Struct, frozen=True):
    """The file is gone."""

    file_id: str
    deleted: bool


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key's record."""

    id: str
    tenant: str
    name: str | None
    principal: KeyPrincipal
    scopes: list[str]
    agents: list[str] | None
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    rotated_to: str | None


class ReaderLog(msgspec.Struct, frozen=True):
    """One log of a stream: a run, or the feed of a tenant; `seq` is the last event that was sent."""

    log: str
    seq: int
    head_seq: int


class Reader(msgspec.Struct, frozen=True, kw_only=True):
    """An open stream; `reason` and `behind_since` are null for one that has everything."""

    id: str
    tenant: str
    key_id: str
    principal: str
    transport: Literal["sse", "ws"]
    address: Literal["loopback", "private", "public", "unknown"]
    request_id: str | None
    trace_id: str | None
    opened_at: str
    sent_at: str
    events: int
    unsent_bytes: int
    lag_events: int
    reason: Literal["connection", "log", "store", "pause", "turn"] | None
    behind_since: str | None
    log_count: int
    logs: list[ReaderLog]


class ReaderProcesses(msgspec.Struct, frozen=True):
    """How many processes have told theirs of how many that were asked; null while the store is away."""

    asked: int | None
    answered: int


class Readers(Page[Reader], frozen=True, kw_only=True):
    """A page of open streams."""

    processes: ReaderProcesses


class NewKey(Key, frozen=True, kw_only=True):
    """A key, shown this once; null when its creation is repeated."""

    key: str | None
