"""Whose request is worked on next: a bounded number at once, and every tenant in its turn.

Without it, a tenant that keeps a thousand requests under way has the event loop at work on a thousand of its steps
between any two steps of another. Here its requests beyond its share wait before they cost anything.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from typing import Final

from gateway import telemetry
from gateway.errors import TooManyRequests

TURN_S: Final = 0.25
"""How long a turn is kept that others wait for: what takes longer waits itself, for a body or for work to come."""


class Turn:
    """One request's, from `Turns.enter` to `Turns.leave`."""

    __slots__ = ("since_s", "tenant")

    def __init__(self, tenant: str, since_s: float) -> None:
        self.tenant = tenant
        self.since_s = since_s


class Turns:
    """The requests that are worked on, and those that wait, each tenant's in a line of its own.

    No tenant has more than three quarters of the turns, so that another always finds one.

    Args:
        at_once: Requests that are worked on at the same time.
        waiting: Requests of one tenant that may wait.
        wait_s: How long each of them waits.
    """

    def __init__(self, at_once: int, *, waiting: int, wait_s: float) -> None:
        self._free = at_once
        self._share = share_of(at_once)
        self._most_waiting = waiting
        self._wait_s = wait_s
        self._held: Counter[str] = Counter()
        # Oldest first.
        self._turns: dict[Turn, None] = {}
        self._lines: OrderedDict[str, deque[asyncio.Future[Turn]]] = OrderedDict()
        self._expiry: asyncio.TimerHandle | None = None

    def enter_now(self, tenant: str) -> Turn | None:
        """Return this request's turn, None if it has to wait for it."""
        return self._give(tenant) if tenant not in self._lines and self._fits(tenant) else None

    async def enter(self, tenant: str) -> Turn:
        """Return this request's turn, as soon as it has one.

        Raises:
            TooManyRequests: the tenant has too many waiting, or this one waited too long.
        """
        turn = self.enter_now(tenant)
        if turn is not None:
            return turn
        line = self._lines.get(tenant)
        if line is not None and len(line) >= self._most_waiting:
            raise self._refusal(f"{self._most_waiting:,} requests of this tenant wait already.")
        return await self._wait(tenant)

    async def _wait(self, tenant: str) -> Turn:
        called: asyncio.Future[Turn] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(tenant, deque()).append(called)
        self._expire()
        try:
            with telemetry.REQUESTS_WAITING.track_inprogress():
                async with asyncio.timeout(self._wait_s):
                    return await called
        except BaseException as error:
            self._forget(tenant, called)
            if isinstance(error, TimeoutError):
                raise self._refusal(f"This request waited {self._wait_s:g} s for its turn.") from None
            raise

    def _forget(self, tenant: str, called: asyncio.Future[Turn]) -> None:
        """Take back what was given to a request that has just stopped waiting, or its place in the line."""
        if called.done() and not called.cancelled():
            self.leave(called.result())
            return
        line = self._lines.get(tenant)
        if line is not None and called in line:
            line.remove(called)
            if not line:
                del self._lines[tenant]

    def leave(self, turn: Turn) -> None:
        """Give a turn back; nothing happens to one that was taken away meanwhile."""
        if turn in self._turns:
            self._take(turn)
            self._call()

    def _fits(self, tenant: str) -> bool:
        if self._free and self._held[tenant] < self._share:
            return True
        self._expire()
        return self._free > 0 and self._held[tenant] < self._share

    def _give(self, tenant: str) -> Turn:
        turn = Turn(tenant, time.monotonic())
        self._free -= 1
        self._held[tenant] += 1
        self._turns[turn] = None
        return turn

    def _take(self, turn: Turn) -> None:
        del self._turns[turn]
        self._free += 1
        self._held[turn.tenant] -= 1
        if not self._held[turn.tenant]:
            del self._held[turn.tenant]

    def _call(self) -> None:
        """Give what is free to those who wait: one of each tenant, then the next of each."""
        while self._free and self._lines:
            tenant = next((tenant for tenant in self._lines if self._held[tenant] < self._share), None)
            if tenant is None:
                return
            line = self._lines.pop(tenant)
            called = line.popleft()
            if line:
                self._lines[tenant] = line
            if not called.done():
                called.set_result(self._give(tenant))

    def _expire(self) -> None:
        """Take turns away that were kept for too long, and see to it again while somebody waits."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        now_s = time.monotonic()
        while self._turns and (oldest := next(iter(self._turns))).since_s + TURN_S <= now_s:
            self._take(oldest)
        self._call()
        if self._lines and self._turns:
            rest_s = next(iter(self._turns)).since_s + TURN_S - now_s
            self._expiry = asyncio.get_running_loop().call_later(rest_s, self._expire)

    def _refusal(self, detail: str) -> TooManyRequests:
        telemetry.REFUSED.labels("requests_waiting").inc()
        return TooManyRequests(detail, limit="requests_waiting", retry_after_s=1)


def share_of(most: int) -> int:
    """Return what one tenant may have of something that all share: three quarters, and at least one."""
    return max(1, most * 3 // 4)
