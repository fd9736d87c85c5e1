"""A position in a run's log, and its text: `13-2886794313`, or `13` from someone who only counts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from gateway.errors import BadRequest

MAX_SEQ: Final = 2**53
MAX_TAG: Final = 2**32 - 1

_CURSOR = re.compile(r"(0|[1-9][0-9]{0,15})(?:-(0|[1-9][0-9]{0,9}))?")


class Cursor(msgspec.Struct, frozen=True):
    """What a reader has: all events up to `seq`, the last of which carried `tag`.

    Without a tag the position cannot be verified against the log.
    """

    seq: int
    tag: int | None = None

    @property
    def text(self) -> str:
        """The form that `parse` reads back."""
        return str(self.seq) if self.tag is None else f"{self.seq}-{self.tag}"


START: Final = Cursor(0)


def parse(text: str) -> Cursor:
    """Return the cursor that `text` spells.

    Raises:
        BadRequest: not a cursor; `facts["cursor"]` holds the beginning of what was given.
    """
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise _refuse(text)
    seq, tag = int(match[1]), None if match[2] is None else int(match[2])
    if seq > MAX_SEQ or (tag is not None and (tag > MAX_TAG or seq == 0)):
        raise _refuse(text)
    return Cursor(seq, tag)


def parse_many(text: str, count: int) -> list[Cursor]:
    """Return the `count` cursors of a comma-joined list, in its order; `0` means nothing yet.

    Raises:
        BadRequest: one of them is no cursor, or there are not exactly `count`.
    """
    # One split more than wanted is enough to see that there are too many.
    parts = text.split(",", count)
    if len(parts) != count:
        raise BadRequest(f"expected {count} cursors joined by commas", cursor=text[:64])
    return [parse(part) for part in parts]


def format_many(cursors: Iterable[Cursor]) -> str:
    """Return `cursors` joined by commas, as `parse_many` reads them."""
    return ",".join(cursor.text for cursor in cursors)


def _refuse(text: str) -> BadRequest:
    shown = text[:64]
    return BadRequest(
        f"{shown!r} is not a cursor: expected a seq such as 13, or seq-tag such as 13-2886794313",
        cursor=shown,
    )
