"""What the routes of schedules answer, as types; see `answers.py`."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class TickError(msgspec.Struct, frozen=True):
    """Why a tick created no run."""

    code: str
    detail: str
    tick_at: str | None


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule, when it ticks next, and what became of its last tick."""

    id: str
    agent_id: str
    cron: str
    timezone: str
    enabled: bool
    overlap: Literal["allow", "skip"]
    input: Any
    title: str | None
    tags: dict[str, str]
    metadata: dict[str, Any]
    priority: int
    concurrency_key: str | None
    preset: str | None
    queue: str | None
    next_at: str | None
    last_tick_at: str | None
    last_run_id: str | None
    last_skipped_at: str | None
    last_error: TickError | None
    created_at: str
    updated_at: str


class RemovedSchedule(msgspec.Struct, frozen=True):
    """The schedule is gone."""

    id: str
    deleted: bool
