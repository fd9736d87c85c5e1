"""Pages of lists: how many, and from where on, as a query says it and a cursor spells it."""

from __future__ import annotations

import re

from gateway.edge import query as q
from gateway.errors import BadRequest
from gateway.service.listing import Place
from gateway.store.indexes import Position

PAGE = 50
PAGING = ("limit", "cursor")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]{0,127}")

_CURSOR = re.compile(r"([0-9]{1,16})-([0-7][0-9A-HJKMNP-TV-Z]{25})(?:-([0-9]{1,16})-(.{1,128}))?", re.DOTALL)


def read_limit(query: q.Query, most: int) -> int:
    """Return how many entries a page shall have."""
    limit = q.read_int(query, "limit", low=1, high=most)
    return min(PAGE, most) if limit is None else limit


def read_name(query: q.Query) -> str | None:
    """Return the name after which a page of a list by name begins, None for the beginning.

    Raises:
        BadRequest: no entry of the list can have this name.
    """
    cursor = q.read_text(query, "cursor")
    if cursor is not None and not _NAME.fullmatch(cursor):
        raise BadRequest(f"cursor: {cursor[:64]!r} is not a next_cursor of this list.", parameter="cursor")
    return cursor


def read_place(query: q.Query) -> Place | None:
    """Return where a page of the inbox begins, None for the beginning.

    Raises:
        BadRequest: not a cursor of such a list.
    """
    cursor = q.read_text(query, "cursor")
    if cursor is None:
        return None
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise BadRequest(f"cursor: {cursor[:64]!r} is not a next_cursor of this list.", parameter="cursor")
    created_us, run_id, asked_ms, request_id = match.groups()
    return Place(int(created_us), run_id, None if asked_ms is None else (int(asked_ms), request_id))


def read_position(query: q.Query) -> Position | None:
    """Return where a page of runs begins, None for the beginning.

    Raises:
        BadRequest: not a cursor of such a list.
    """
    place = read_place(query)
    return None if place is None else Position(place.created_us, place.run_id)


def write_cursor(place: Position | Place | None) -> str | None:
    """Return a place as the text that is read back, None at the end."""
    if place is None:
        return None
    text = f"{place.created_us}-{place.run_id}"
    if isinstance(place, Place) and place.asked is not None:
        asked_ms, request_id = place.asked
        text += f"-{asked_ms}-{request_id}"
    return text
