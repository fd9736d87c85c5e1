"""A run's events as lists."""

from __future__ import annotations

import re
from collections import deque
from typing import Final

from gateway.dialects.jobs import wire
from gateway.dialects.jobs.events import level_of, run_event
from gateway.dialects.jobs.project import event_id
from gateway.domain.access import Grant
from gateway.domain.cursor import MAX_SEQ, START, Cursor
from gateway.domain.events import TypeFilter, decode
from gateway.entry.services import Services
from gateway.errors import BadRequest

LOOK_EVENTS: Final = 1_000
LOOK_BYTES: Final = 1024 * 1024
LOOKS: Final = 200
"""Reads that one request makes for events of a level that are rare."""

LIST_BYTES: Final = 4 * 1024 * 1024

_ID: Final = re.compile(r"([0-9A-Z]{26})-([0-9]{1,16})", re.IGNORECASE)


def read_place(cursor: str | None, run_id: str) -> Cursor:
    """Return where a list of events goes on: after the event whose id `cursor` is.

    Raises:
        BadRequest: it is no id of an event of this run.
    """
    if cursor is None:
        return START
    match = _ID.fullmatch(cursor)
    if match is None or match[1].upper() != run_id or int(match[2]) > MAX_SEQ:
        raise BadRequest(f"cursor: {cursor!r} is not the id of an event of this run.", parameter="cursor")
    return Cursor(int(match[2]))


async def find_events(
    services: Services, grant: Grant, run_id: str, query: wire.FindEvents
) -> tuple[list[wire.RunEvent], str | None]:
    """Return a run's events of a type and level, oldest first, and the id after which the rest follows, if any."""
    types = None if query.type is None else TypeFilter.parse(query.type)
    after = read_place(query.cursor, run_id)
    found: list[wire.RunEvent] = []
    size_bytes = 0
    for _ in range(LOOKS):
        page = await services.streams.page(
            grant, run_id, after, limit=LOOK_EVENTS, payload_bytes=LOOK_BYTES, types=types
        )
        for entry in page.entries:
            event = decode(entry.line)
            if query.level is not None and level_of(event) != query.level:
                continue
            if len(found) == query.limit or size_bytes > LIST_BYTES:
                return found, found[-1].id
            found.append(run_event(event))
            size_bytes += len(entry.line)
        after = page.after
        if not page.has_more:
            return found, None
    return found, event_id(run_id, after.seq)


async def newest_events(services: Services, grant: Grant, run_id: str) -> list[wire.RunEvent]:
    """Return the newest thousand events of a run, or as many of them as fit, in their order."""
    run = await services.runs.get(grant, run_id)
    after = Cursor(max(0, run.head_seq - wire.EVENTS_PAGE))
    lines: deque[bytes] = deque()
    size_bytes, has_more = 0, True
    while has_more and after.seq <= run.head_seq:
        page = await services.streams.page(
            grant, run_id, after, limit=LOOK_EVENTS, payload_bytes=LOOK_BYTES, types=None
        )
        for entry in page.entries:
            lines.append(entry.line)
            size_bytes += len(entry.line)
            while len(lines) > wire.EVENTS_PAGE or (size_bytes > LIST_BYTES and len(lines) > 1):
                size_bytes -= len(lines.popleft())
        after, has_more = page.after, page.has_more
    return [run_event(decode(line)) for line in lines]
