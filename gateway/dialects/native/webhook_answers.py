"""What the routes of webhooks answer, as types; see `answers.py`."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType


class Hook(msgspec.Struct, frozen=True, kw_only=True):
    """Where to tell of which events; the secret is there once, where it has just been made up."""

    id: str
    url: str
    events: list[str]
    secret: str | UnsetType = UNSET


class RunHook(msgspec.Struct, frozen=True, kw_only=True):
    """A run's webhook, and how far it has come."""

    id: str
    url: str
    events: list[str]
    of_agent: bool
    state: Literal["active", "disabled"]
    delivered_through_seq: int
    failed_tries: int
    next_retry_at: str | None


class DeliveryTry(msgspec.Struct, frozen=True, kw_only=True):
    """One try to tell a webhook of an event: the receiver's status, or why there is none."""

    hook_id: str
    message_id: str
    seq: int
    type: str
    attempt: int
    outcome: Literal["delivered", "retrying", "failed", "disabled"]
    status: int | None
    error: Literal["timeout", "connect_failed", "connection_lost", "not_http", "address_refused"] | None
    duration_ms: int
    created_at: str
    next_retry_at: str | None
