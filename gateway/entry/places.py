"""Places for open streams: as many as a process, a tenant and a key may have, and a line of those who wait for one."""

from __future__ import annotations

import asyncio
from collections import Counter

import msgspec

from gateway import telemetry
from gateway.domain.access import Grant
from gateway.errors import TooManyStreams


class PlaceLimits(msgspec.Struct, frozen=True):
    """How many streams may be open at once; 0 is no limit."""

    streams: int = 0
    tenant_streams: int = 0
    key_streams: int = 0


class Places:
    """Streams that are open, SSE and WebSocket alike.

    A stream is never refused with a status, which would end a browser's EventSource for good: it waits for a place.

    Args:
        wait_s: How long it waits.
    """

    def __init__(self, limits: PlaceLimits, *, wait_s: float) -> None:
        self._limits = limits
        self._wait_s = wait_s
        self._open = 0
        self._tenants: Counter[str] = Counter()
        self._keys: Counter[str] = Counter()
        # Longest first.
        self._waiting: dict[asyncio.Future[bool], Grant] = {}
        self._closed = False

    async def enter(self, grant: Grant) -> None:
        """Take a place, as soon as there is one; `leave` gives it back.

        Raises:
            TooManyStreams: there was none for as long as a stream waits, or this process is about to stop.
        """
        limit = self._full(grant)
        if limit is None:
            self._count(grant, 1)
            return
        telemetry.REFUSED.labels(limit).inc()
        if not await self._wait(grant):
            raise TooManyStreams("As many streams are open as may be.", limit=limit, retry_after_s=1)

    async def _wait(self, grant: Grant) -> bool:
        if self._closed:
            return False
        called: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[called] = grant
        try:
            with telemetry.STREAMS_WAITING.track_inprogress():
                async with asyncio.timeout(self._wait_s):
                    return await called
        except BaseException as error:
            if self._waiting.pop(called, None) is None and called.done() and not called.cancelled() and called.result():
                self.leave(grant)
            if isinstance(error, TimeoutError):
                return False
            raise

    def leave(self, grant: Grant) -> None:
        """Give a place back: the stream has ended."""
        self._count(grant, -1)
        called = next((called for called, other in self._waiting.items() if self._full(other) is None), None)
        if called is not None:
            self._count(self._waiting.pop(called), 1)
            called.set_result(True)

    def close(self) -> None:
        """Have nobody wait any more: this process is about to stop."""
        self._closed = True
        while self._waiting:
            self._waiting.popitem()[0].set_result(False)

    def _full(self, grant: Grant) -> str | None:
        """Return the limit that leaves no place, if one does."""
        limits = self._limits
        counted = (
            ("streams", self._open, limits.streams),
            ("tenant_streams", self._tenants[grant.tenant], limits.tenant_streams),
            ("key_streams", self._keys[grant.key_id], limits.key_streams),
        )
        return next((name for name, count, most in counted if most and count >= most), None)

    def _count(self, grant: Grant, change: int) -> None:
        self._open += change
        for counter, name in ((self._tenants, grant.tenant), (self._keys, grant.key_id)):
            counter[name] += change
            if not counter[name]:
                del counter[name]
