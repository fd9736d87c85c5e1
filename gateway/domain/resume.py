"""Whether a log still agrees with what a reader has, and where the reader goes on."""

from __future__ import annotations

import msgspec

from gateway.domain.cursor import Cursor


class Gap(msgspec.Struct, frozen=True):
    """Events are gone: the reader wanted `requested`, the log begins at `first_seq`."""

    requested: int
    first_seq: int


class Reset(msgspec.Struct, frozen=True):
    """The log is not the one the reader saw; what it has beyond `valid_through` is void."""

    reason: str
    valid_through: int


class Verdict(msgspec.Struct, frozen=True):
    """Go on after `after_seq`, once the client was told of a reset and of a gap, in that order."""

    after_seq: int
    reset: Reset | None = None
    gap: Gap | None = None


def judge(cursor: Cursor, *, head_seq: int, head_tag: int, first_seq: int, found_tag: int | None) -> Verdict:
    """Apply the resume rule.

    Args:
        head_seq: The log's last seq, 0 when it is empty; all facts are of one moment.
        first_seq: The oldest seq the log still holds.
        found_tag: The tag of the entry at `cursor.seq`, None when that entry is not there.
    """
    seq = cursor.seq
    if seq > head_seq:
        return start_over("ahead_of_log", first_seq=first_seq)
    known = head_tag if seq == head_seq else found_tag
    if seq and cursor.tag is not None and known is not None and known != cursor.tag:
        return start_over("log_changed", first_seq=first_seq)
    if seq + 1 < first_seq and seq < head_seq:
        return Verdict(first_seq - 1, gap=Gap(seq + 1, first_seq))
    return Verdict(seq)


def start_over(reason: str, *, first_seq: int, valid_through: int = 0) -> Verdict:
    """Return the verdict that voids everything after `valid_through`."""
    reset = Reset(reason, valid_through)
    if valid_through + 1 < first_seq:
        return Verdict(first_seq - 1, reset=reset, gap=Gap(valid_through + 1, first_seq))
    return Verdict(valid_through, reset=reset)
