"""How long the head of a request may take, and how large it may be: a connection that never says what it wants ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

HEAD_S: Final = 15.0
HEAD_BYTES: Final = 64 * 1024


class HeadWatch:
    """The heads of one connection, from when one is awaited until it is complete.

    A connection that is kept open between two requests is the keep-alive's; the watch goes on with the next first byte.

    Args:
        give_up: Called when a head did not come in time.
        head_s, head_bytes: What a head may take.
    """

    __slots__ = ("_bytes", "_give_up", "_head_bytes", "_head_s", "_loop", "_timer")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        give_up: Callable[[], None],
        *,
        head_s: float = HEAD_S,
        head_bytes: int = HEAD_BYTES,
    ) -> None:
        self._loop = loop
        self._give_up = give_up
        self._head_s = head_s
        self._head_bytes = head_bytes
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def awaited(self) -> bool:
        """Whether a head is awaited."""
        return self._timer is not None

    def begin(self) -> None:
        """Await a head, if none is awaited yet."""
        if self._timer is None:
            self._timer = self._loop.call_later(self._head_s, self._give_up)

    def take(self, size: int) -> bool:
        """Count bytes that did not complete the head; return whether it is too large by now."""
        self._bytes += size
        return self._bytes > self._head_bytes

    def end(self) -> None:
        """Await none: it is complete, or the connection has ended."""
        self._bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
