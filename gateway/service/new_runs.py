"""What a caller may say of a run that it creates, and how much of it."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.domain.agents import Overrides
from gateway.errors import InvalidBody, TooLarge
from gateway.service.hooks import HookOrder

DELAY_MOST_S = 366 * 86_400


def check_schedule(scheduled_ms: int, now_ms: int) -> None:
    """Refuse a start further away than a year: no timer is meant to wait for it.

    Raises:
        InvalidBody: it is.
    """
    if scheduled_ms > now_ms + DELAY_MOST_S * 1000:
        days = DELAY_MOST_S // 86_400
        raise InvalidBody(f"scheduled_at is more than {days} days away.", path="$.scheduled_at")


class Need(msgspec.Struct, frozen=True):
    """A run that a new one depends on, and how it has to end: `completed`, `failed`, or just `finished`."""

    run_id: str
    condition: str = "completed"


class NewRun(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller may say of a run it creates; times in ms."""

    agent_id: str
    mode: str
    thread_id: str | None = None
    input: Any = None
    title: str | None = None
    tags: dict[str, str] = {}
    metadata: dict[str, Any] = {}
    trigger: str = "manual"
    parent_run_id: str | None = None
    batch_id: str | None = None
    schedule_id: str | None = None
    tick_ms: int | None = None
    scheduled_ms: int | None = None
    delay_ms: int | None = None
    heartbeat_ms: int | None = None
    file_ids: tuple[str, ...] = ()
    extensions: dict[str, Any] = {}
    priority: int = 0
    concurrency_key: str | None = None
    overrides: Overrides = Overrides()
    depends_on: tuple[Need, ...] = ()
    preset: str | None = None
    trace_id: str | None = None
    webhooks: tuple[HookOrder, ...] = ()


def said_of(new: NewRun) -> object:
    """Return what a repeat is recognised by; it may come from another trace, as of a job that is done again."""
    return msgspec.to_builtins(msgspec.structs.replace(new, trace_id=None))


class RunLimits(msgspec.Struct, frozen=True):
    """Bounds of what a run may carry, and how long things wait."""

    payload_bytes: int
    metadata_bytes: int
    start_timeout_ms: int
    lease_ms: int
    idempotency_ms: int


def check_sizes(new: NewRun, limits: RunLimits, now_ms: int) -> None:
    """Refuse a run that carries too much, or shall start at two times or none that anybody waits for.

    Raises:
        TooLarge: `facts["path"]` says what.
        InvalidBody: of its start.
    """
    for name, value, most in (
        ("input", new.input, limits.payload_bytes),
        ("metadata", new.metadata, limits.metadata_bytes),
        ("extensions", new.extensions, limits.metadata_bytes),
    ):
        size = len(msgspec.json.encode(value))
        if size > most:
            raise TooLarge(f"{name} has {size} bytes; at most {most} are allowed.", path=name, limit_bytes=most)
    if new.scheduled_ms is not None and new.delay_ms is not None:
        raise InvalidBody("Give scheduled_at or delay_s, not both.", path="$.delay_s")
    if new.scheduled_ms is not None:
        check_schedule(new.scheduled_ms, now_ms)
