"""Random bytes for ids and tags, asked of the system for many at once: a call of it costs what fifty bytes do."""

from __future__ import annotations

import os
from typing import Final

RESERVE_BYTES: Final = 1024


class _Reserve:
    """What the system gave and nobody has taken; a process that is forked off begins with none."""

    def __init__(self) -> None:
        self._bytes, self._taken = b"", 0
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._bytes, self._taken = b"", 0

    def take(self, count: int) -> bytes:
        """Return bytes that nobody else gets."""
        end = self._taken + count
        if end > len(self._bytes):
            self._bytes, self._taken, end = os.urandom(max(count, RESERVE_BYTES)), 0, count
        taken, self._taken = self._bytes[self._taken : end], end
        return taken


take_random: Final = _Reserve().take
"""Return so many random bytes; not for secrets, which ask the system themselves. For one thread."""
