"""Which readers lag, why and since when: counted for metrics, and named in the log when it lasts."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from gateway import telemetry, tracing
from gateway.hub.outlet import Outlet

logger = logging.getLogger("gateway.readers")
streams_log = logging.getLogger("gateway.access")

SURVEY_S: Final = 1.0
SURVEY_SLICE: Final = 2_000
"""Connections looked at before the event loop gets a turn."""
TOLD_S: Final = 10.0
"""Whoever has been behind for as long is named in the log, once."""
TOLD_AT_ONCE: Final = 10
"""Most that are named by one look: a thousand clients on a bad network are one trouble, not a thousand."""
REASONS: Final = ("connection", "log", "store")


class Survey:
    """One process's readers, looked at again and again."""

    def __init__(self) -> None:
        self._told: set[Outlet] = set()
        self._pairs: set[tuple[str, str]] = set()
        self.begin()

    def begin(self) -> None:
        """Begin a look at all of them."""
        self._now_s = time.monotonic()
        self._behind: dict[tuple[str, str], int] = {}
        self._lag_events, self._lag_s = 0, 0.0
        self._slow: list[Outlet] = []

    def look(self, outlet: Outlet) -> None:
        """Count one connection; one that is closed or has everything costs next to nothing."""
        if not outlet.busy or outlet.closed:
            return
        key = outlet.transport, outlet.waits_for
        self._behind[key] = self._behind.get(key, 0) + 1
        self._lag_events = max(self._lag_events, lag_events(outlet))
        behind_s = self._now_s - outlet.behind_since_s
        self._lag_s = max(self._lag_s, behind_s)
        if behind_s >= TOLD_S:
            self._slow.append(outlet)

    def end(self) -> None:
        """Publish what was counted, and name those who have been behind for long."""
        self._pairs |= self._behind.keys()
        for pair in self._pairs:
            telemetry.READERS_BEHIND.labels(*pair).set(self._behind.get(pair, 0))
        telemetry.READER_LAG_EVENTS.set(self._lag_events)
        telemetry.READER_LAG_SECONDS.set(self._lag_s)
        # Whoever has caught up is named again the next time.
        self._told.intersection_update(self._slow)
        fresh = sorted((one for one in self._slow if one not in self._told), key=lambda one: one.behind_since_s)
        for outlet in fresh[:TOLD_AT_ONCE]:
            logger.warning("a reader lags", extra=describe(outlet))
            self._told.add(outlet)


def lag_events(outlet: Outlet) -> int:
    """Return how many events the connection's readers lack, in the log in which that is most."""
    return max((reader.channel.ring.head_seq - reader.seq for reader in outlet.readers), default=0)


def describe(outlet: Outlet) -> dict[str, Any]:
    """Return who it is, what it lacks, why, and since when."""
    grant = outlet.grant
    behind_s = time.monotonic() - outlet.behind_since_s if outlet.busy else 0.0
    facts = {
        **outlet.origin,
        "transport": outlet.transport,
        "logs": [reader.channel.name.label for reader in outlet.readers[:3]],
        "tenant": getattr(grant, "tenant", None),
        "key_id": getattr(grant, "key_id", None),
        "reason": outlet.waits_for if outlet.busy else None,
        "lag_events": lag_events(outlet),
        "behind_s": round(behind_s, 1),
        "behind_since": telemetry.moment(time.time() - behind_s) if outlet.busy else None,
    }
    return {name: fact for name, fact in facts.items() if fact is not None}


def _record(outlet: Outlet) -> None:
    """Have a stream told as one span, below that of its run; one of several runs below its request's."""
    parent = outlet.parent_span
    if parent is None:
        return
    now_s, now_ns = time.monotonic(), time.time_ns()
    facts = {
        "gateway.transport": outlet.transport,
        "gateway.cause": outlet.cause,
        "gateway.events": outlet.passed,
        "gateway.request_id": outlet.origin.get("request_id"),
        "gateway.run_id": outlet.origin.get("run_id"),
        "gateway.key_id": getattr(outlet.grant, "key_id", None),
    }
    span = tracing.Span(
        "deliver",
        tracing.Place(parent.trace_id, tracing.new_span_id()),
        parent.span_id,
        now_ns - round((now_s - outlet.opened_s) * 1e9),
        now_ns,
        "producer",
        facts,
        milestones={"last write": now_ns - round((now_s - outlet.sent_s) * 1e9)},
    )
    tracing.record(span)


def tell_end(outlet: Outlet) -> None:
    """Count, trace and log that a stream is over."""
    cause = outlet.cause
    if tracing.is_on():
        _record(outlet)
    telemetry.STREAMS_ENDED.labels(outlet.transport, cause).inc()
    if telemetry.tells_all():
        grant = outlet.grant
        facts = {
            **outlet.origin,
            "transport": outlet.transport,
            "cause": cause,
            "events": outlet.passed,
            "duration_ms": round((time.monotonic() - outlet.opened_s) * 1_000),
            "tenant": getattr(grant, "tenant", None),
            "key_id": getattr(grant, "key_id", None),
        }
        streams_log.info("stream ended", extra={name: fact for name, fact in facts.items() if fact is not None})
