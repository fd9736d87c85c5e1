"""Whether a run may go on: closed while it is paused."""

from __future__ import annotations

import asyncio


class Gate:
    """Pauses and resumes by the seq of their events, told in any order and more than once."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._resumed_seq = 0
        self._for_good = False

    def close(self, seq: int) -> None:
        """Take note of a pause, unless a later resume is known."""
        if seq > self._resumed_seq and not self._for_good:
            self._open.clear()

    def open(self, seq: int) -> None:
        """Take note of a resume."""
        self._resumed_seq = max(self._resumed_seq, seq)
        self._open.set()

    def open_for_good(self) -> None:
        """Hold nobody any more: the run is to end."""
        self._for_good = True
        self._open.set()

    async def wait(self) -> None:
        """Return when the run may go on."""
        await self._open.wait()
