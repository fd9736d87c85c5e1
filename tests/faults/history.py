"""What everybody who wrote and read one run knows of it: appends, readings, and the log in the end.

Times are of one machine's monotonic clock, in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import msgspec

from tests.support.transcripts import Seen, Told
from tests.support.writers import Outcome


class Append(msgspec.Struct, frozen=True, kw_only=True):
    """One batch that a writer wanted stored, and what it knew of it when it let go.

    Args:
        marks: One for each event; no other event has it.
        first_seq: Where an acknowledgement said that it stands.
        code: Why it was refused.
        expected: Which of its own numbers the gateway wants instead: all from there on are lost, it said.
        tries: How many requests it took.
    """

    writer: str
    number: int
    marks: tuple[str, ...]
    outcome: Outcome
    first_seq: int | None = None
    code: str | None = None
    expected: int | None = None
    tries: int = 1
    began_s: float = 0
    ended_s: float = 0


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """All that one reader was given, in the order in which it came, over as many connections as it took."""

    reader: str
    heard: list[Seen | Told]
    heard_at_s: list[float] = []
    ended: bool = True


class History(msgspec.Struct, frozen=True, kw_only=True):
    """One run as its writers and readers know it.

    Args:
        appends: In the order in which each writer let go of them.
        log: Seq and mark of every event of the log, read when all was over.
        lossy: Whether the store was made to forget what it had acknowledged.
    """

    appends: list[Append]
    readings: list[Reading]
    log: list[tuple[int, str]]
    lossy: bool = False

    @property
    def acknowledged(self) -> int:
        """How many events were acknowledged; one that was written again after a loss counts once."""
        return len({mark for append in self.appends if append.outcome is Outcome.ACKNOWLEDGED for mark in append.marks})

    @property
    def delivered(self) -> int:
        """How many events readers were given, all together."""
        return sum(isinstance(item, Seen) for reading in self.readings for item in reading.heard)

    def write_pause_s(self) -> float:
        """Return the longest time in which no append was acknowledged."""
        return longest_pause(append.ended_s for append in self.appends if append.outcome is Outcome.ACKNOWLEDGED)

    def read_pause_s(self) -> float:
        """Return the longest time in which some reader was given nothing."""
        return max((longest_pause(reading.heard_at_s) for reading in self.readings), default=0)


def longest_pause(times_s: Iterable[float]) -> float:
    """Return the longest distance between two moments that follow one another."""
    return max((later - earlier for earlier, later in pairwise(sorted(times_s))), default=0)
