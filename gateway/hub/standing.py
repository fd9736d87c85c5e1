"""Where a connection stands: what it lacks, why, and since when, as told to whoever watches over readers."""

from __future__ import annotations

import heapq
import time
from typing import Any, Final

import msgspec

from gateway.domain.addresses import address_class
from gateway.hub.lag import lag_events
from gateway.hub.outlet import Outlet
from gateway.hub.reader import Reader

MOST_LOGS: Final = 10


class LogPlace(msgspec.Struct, frozen=True):
    """One log of a connection: the run (or the feed's tenant), the last seq sent of it, and its head."""

    log: str
    seq: int
    head_seq: int


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A connection; times in Unix ms.

    `address` is the kind of its peer's, never the address itself.
    `reason` is None for one that has everything; `behind_since_ms` also while it is about to be pushed to.
    `logs` are those of which most is lacking, at most ten of `log_count`.
    """

    id: str
    tenant: str
    key_id: str
    principal: str
    transport: str
    address: str
    request_id: str | None
    trace_id: str | None
    opened_ms: int
    sent_ms: int
    passed: int
    unsent_bytes: int
    lag_events: int
    reason: str | None
    behind_since_ms: int | None
    log_count: int
    logs: list[LogPlace]


def why_behind(outlet: Outlet) -> str | None:
    """Return what a connection waits for that lacks events: `connection`, `log`, `store`, `pause` (the one that it
    asked for between two writes), `turn` (it is about to be pushed to); None when it has everything."""
    if outlet.busy:
        return outlet.waits_for
    if not lag_events(outlet):
        return None
    return "pause" if outlet.linger_s else "turn"


def stand(outlet: Outlet, stand_id: str, grant: Any) -> Standing:
    """Return where a connection of `grant` stands at this moment."""
    now_s, epoch_s = time.monotonic(), time.time() - time.monotonic()
    readers = outlet.readers
    return Standing(
        id=stand_id,
        tenant=grant.tenant,
        key_id=grant.key_id,
        principal=grant.principal.id,
        transport=outlet.transport,
        address=address_class(outlet.peer()),
        request_id=outlet.origin.get("request_id"),
        trace_id=outlet.origin.get("trace_id"),
        opened_ms=round((epoch_s + outlet.opened_s) * 1_000),
        sent_ms=round((epoch_s + min(outlet.sent_s, now_s)) * 1_000),
        passed=outlet.passed + sum(max(reader.seq - reader.began_seq, 0) for reader in readers),
        unsent_bytes=outlet.unsent(),
        lag_events=lag_events(outlet),
        reason=why_behind(outlet),
        behind_since_ms=round((epoch_s + outlet.behind_since_s) * 1_000) if outlet.busy else None,
        log_count=len(readers),
        logs=[_place(reader) for reader in heapq.nlargest(MOST_LOGS, readers, key=_lacks)],
    )


def _lacks(reader: Reader) -> int:
    return reader.channel.ring.head_seq - reader.seq


def _place(reader: Reader) -> LogPlace:
    channel = reader.channel
    return LogPlace(channel.name.label, reader.seq, channel.ring.head_seq)
