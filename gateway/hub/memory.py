"""The memory of all rings of a process: those that were longest untouched make room for the others."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Protocol

from gateway import telemetry

RINGS_BYTES: Final = 256 * 1024 * 1024


class Holder(Protocol):
    """Whoever keeps entries that could be read again."""

    def give_up(self) -> None:
        """Keep none of them."""


class RingMemory:
    """How much each channel keeps. What one gives up is read from the log by whoever still lacks it.

    Args:
        most_bytes: What all of them may keep together.
    """

    def __init__(self, most_bytes: int = RINGS_BYTES) -> None:
        self._most = most_bytes
        # Longest untouched first.
        self._sizes: OrderedDict[Holder, int] = OrderedDict()
        self.total_bytes = 0

    def note(self, holder: Holder, size: int) -> None:
        """Take what a channel keeps now; others may have to give up all of theirs."""
        self.total_bytes += size - self._sizes.pop(holder, 0)
        if size:
            self._sizes[holder] = size
        while self.total_bytes > self._most and len(self._sizes) > 1:
            other, held = self._sizes.popitem(last=False)
            self.total_bytes -= held
            other.give_up()
            telemetry.REFUSED.labels("rings_bytes").inc()
