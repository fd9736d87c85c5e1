"""Waits for a client that end early when the process is about to stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.errors import Draining


class Waits:
    """Deadlines that all come at once when the process is about to stop."""

    def __init__(self) -> None:
        self._over = False
        self._deadlines: set[asyncio.Timeout] = set()

    def end(self) -> None:
        """End every wait, and those to come."""
        self._over = True
        now_s = asyncio.get_running_loop().time()
        for deadline in self._deadlines:
            # One that has come in this very turn cannot be moved any more.
            if not deadline.expired():
                deadline.reschedule(now_s)

    @asynccontextmanager
    async def at_most(self, wait_s: float) -> AsyncIterator[None]:
        """Let what is within take `wait_s`.

        Raises:
            TimeoutError: it took longer.
            Draining: the process is about to stop.
        """
        try:
            async with asyncio.timeout(0 if self._over else wait_s) as deadline:
                self._deadlines.add(deadline)
                try:
                    yield
                finally:
                    self._deadlines.discard(deadline)
        except TimeoutError:
            if self._over:
                raise Draining("This process is about to stop.") from None
            raise
