"""Where a request wants a stream or a page to begin, and what it wants to see of it."""

from __future__ import annotations

from gateway.dialects.native.thread_position import ThreadPosition
from gateway.domain.events import TypeFilter
from gateway.edge import query as q
from gateway.entry.starts import AFTER_CHARS
from gateway.entry.starts import read_start as read_start
from gateway.entry.starts import read_starts as read_starts
from gateway.errors import BadRequest
from gateway.service.streams import Start

LINGER_MS = 1_000


def read_types(query: q.Query) -> TypeFilter | None:
    """Return the filter that `types=` spells."""
    text = q.read_text(query, "types")
    return TypeFilter.parse(text) if text else None


def read_feed_start(query: q.Query, last_event_id: str | None) -> Start | None:
    """Return where a reader of a feed begins, None for `after=now`; see `read_start`."""
    if query.get("after") != ["now"]:
        return read_start(query, last_event_id)
    # A page that reconnects keeps its address: then its last id says where it was.
    rest = {name: values for name, values in query.items() if name != "after"}
    start = read_start(rest, last_event_id)
    return start if last_event_id else None


def read_thread_start(query: q.Query, last_event_id: str | None) -> str | None:
    """Return the position of a thread's reader as it was told, `""` at the beginning; None for a malformed header.

    Raises:
        BadRequest: a malformed parameter.
    """
    asked = q.read_text(query, "after", max_chars=AFTER_CHARS) or ""
    ThreadPosition.parse(asked)
    if not last_event_id:
        return asked
    try:
        ThreadPosition.parse(last_event_id)
    except BadRequest:
        return None
    return last_event_id


def read_linger(query: q.Query) -> float | None:
    """Return the least pause between two writes that a reader asks for, in seconds; None for the gateway's own."""
    linger_ms = q.read_int(query, "linger_ms", low=0, high=LINGER_MS)
    return None if linger_ms is None else linger_ms / 1000
