"""Bytes that requests hold in memory at the same time, bounded for all of them together."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

from gateway import telemetry
from gateway.edge.turns import share_of
from gateway.errors import Overloaded

WAIT_S: Final = 5.0


class Ledger:
    """Who holds how much; whoever would hold too much waits until others have let go.

    No tenant holds more than three quarters, so that slow senders of one do not shut out another.

    Args:
        most_bytes: What all may hold together; one that asks for more than a tenant's share gets that alone.
    """

    def __init__(self, most_bytes: int, *, wait_s: float = WAIT_S) -> None:
        self._most = most_bytes
        self._share = share_of(most_bytes)
        self._wait_s = wait_s
        self._held: Counter[str] = Counter()
        self._total = 0
        self._waiting: dict[asyncio.Future[None], tuple[str, int]] = {}

    @property
    def total_bytes(self) -> int:
        """What all hold together."""
        return self._total

    def take_now(self, tenant: str, size: int) -> bool:
        """Hold so many bytes if there is room for them at once."""
        fits = not self._waiting and self._fits(tenant, size)
        if fits:
            self._add(tenant, size)
        return fits

    async def take(self, tenant: str, size: int) -> None:
        """Hold so many bytes, as soon as there is room for them.

        Raises:
            Overloaded: there was none for as long as a request waits.
        """
        if self.take_now(tenant, size):
            return
        called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[called] = (tenant, size)
        self._call()
        try:
            async with asyncio.timeout(self._wait_s):
                await called
        except BaseException as error:
            if self._waiting.pop(called, None) is None:
                self.give_back(tenant, size)
            if isinstance(error, TimeoutError):
                telemetry.REFUSED.labels("bodies_bytes").inc()
                detail = "The bodies of other requests fill the memory that there is for them."
                raise Overloaded(detail, limit="bodies_bytes", outcome="not_written", retry_after_s=1) from None
            raise

    def give_back(self, tenant: str, size: int) -> None:
        """Hold so many bytes no more."""
        self._add(tenant, -size)
        if not self._held[tenant]:
            del self._held[tenant]
        if self._waiting:
            self._call()

    def _fits(self, tenant: str, size: int) -> bool:
        held = self._held[tenant]
        return self._total + size <= self._most and (held + size <= self._share or not held)

    def _add(self, tenant: str, size: int) -> None:
        self._held[tenant] += size
        self._total += size

    def _call(self) -> None:
        for called, (tenant, size) in list(self._waiting.items()):
            # Who gave up waiting takes its place in the line back itself.
            if not called.done() and self._fits(tenant, size):
                del self._waiting[called]
                self._add(tenant, size)
                called.set_result(None)
