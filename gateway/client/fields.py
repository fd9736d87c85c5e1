"""What callers may say of runs: the fields of a new one, filters of lists, reasons of actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Required, TypedDict

from gateway.client.work import RetryFields


class RunFields(TypedDict, total=False):
    """What a new run may be given; times are RFC 3339 text, durations seconds.

    From `queue` on they are for runs that workers claim (`mode="queued"`), and say otherwise than the agent does;
    `depends_on` lists `{"run_id", "condition"}`, `webhooks` `{"url", "events", "secret", "id"}`.
    """

    mode: str
    thread_id: str | None
    input: Any
    title: str | None
    tags: Mapping[str, str]
    metadata: Mapping[str, Any]
    triggered_by: str
    trigger: str
    parent_run_id: str
    batch_id: str
    scheduled_at: str
    delay_s: float
    timeout_s: float
    heartbeat_s: float
    file_ids: Sequence[str]
    extensions: Mapping[str, Any]
    queue: str
    priority: int
    concurrency_key: str
    retry: RetryFields
    dead_letter: bool
    queue_expiry_s: float
    lease_s: float
    depends_on: Sequence[Mapping[str, str]]
    preset: str
    webhooks: Sequence[Mapping[str, Any]]


class NewRun(RunFields, total=False):
    """One run of a batch: the fields of a new run, and its agent."""

    agent_id: Required[str]


class RunFilters(TypedDict, total=False):
    """What a list of runs may be narrowed to; `tag` and `metadata` are `key:value` text."""

    status: str
    agent_id: str
    thread_id: str
    tag: str
    metadata: str
    payload: Mapping[str, Any]
    trigger: str
    batch_id: str
    schedule_id: str
    parent_run_id: str
    created_after: str
    created_before: str


class Why(TypedDict, total=False):
    """Who asks for an action and why, for the audit trail."""

    reason: str
    triggered_by: str
