"""Schedules: runs that are created whenever a timetable ticks."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.domain.cron import Timetable, parse_timetable

ALLOW, SKIP = "allow", "skip"
"""What a tick does while the last run has not ended: create another one all the same, or none."""


class ScheduleDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """When a schedule ticks, and the run that a tick creates."""

    agent_id: str
    cron: str
    timezone: str = "UTC"
    input: Any = None
    title: str | None = None
    tags: dict[str, str] = {}
    metadata: dict[str, Any] = {}
    priority: int = 0
    concurrency_key: str | None = None
    preset: str | None = None
    queue: str | None = None
    overlap: str = ALLOW
    enabled: bool = True

    def timetable(self) -> Timetable:
        """Return when it ticks.

        Raises:
            InvalidBody: the expression or the time zone means nothing (any more).
        """
        return parse_timetable(self.cron, self.timezone)


class Begun(msgspec.Struct, frozen=True):
    """A tick whose run is being created, under an id that stands before it exists: whoever goes on makes no second."""

    tick_ms: int
    run_id: str


class ScheduleError(msgspec.Struct, frozen=True):
    """Why a tick created no run."""

    code: str
    detail: str
    tick_ms: int | None


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule as the store holds it; times in Unix ms. `rev` counts its changes."""

    tenant: str
    id: str
    rev: int = 0
    definition: ScheduleDefinition
    created_ms: int
    updated_ms: int
    next_ms: int | None = None
    begun: Begun | None = None
    last_tick_ms: int | None = None
    last_run_id: str | None = None
    last_skipped_ms: int | None = None
    last_error: ScheduleError | None = None

    def look_ms(self, now_ms: int) -> int | None:
        """Return when somebody has to look at it: now where a tick was begun, else at the next one."""
        return now_ms if self.begun is not None else self.next_ms
