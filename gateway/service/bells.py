"""Waiting for work: whoever finds a queue empty is woken when something enters it."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from gateway import telemetry
from gateway.errors import StoreUnavailable, TooManyRequests
from gateway.hub.tail import Tail
from gateway.store import keys

LOOK_AGAIN_S = 2.0
"""A wake-up may be lost, and a reservation whose holder died shows again without one."""


class Bell:
    """One waiting claim."""

    def __init__(self) -> None:
        self._ropes: list[_Rope] = []
        self._rung = asyncio.Event()
        self._woken_before: frozenset[Bell] | None = None

    def ring(self, woken_before: frozenset[Bell] = frozenset()) -> None:
        """Wake the claim; `woken_before` are those that the same news woke."""
        known = self._woken_before
        self._woken_before = woken_before if known is None else woken_before & known
        self._rung.set()

    def line_up(self, rope: _Rope) -> None:
        """Be woken by what enters a queue."""
        self._ropes.append(rope)
        rope.line_up(self)

    async def wait(self, timeout_s: float, gone: asyncio.Event) -> None:
        """Wait until a queue may have work, it is time to look again, or the claimer is gone."""
        waits = [asyncio.create_task(event.wait()) for event in (self._rung, gone)]
        try:
            await asyncio.wait(waits, timeout=min(timeout_s, LOOK_AGAIN_S), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
            self._rung.clear()

    def pass_on(self) -> None:
        """Wake the next claim: this one took all it could, and there may be more."""
        self._pass_on(frozenset())

    def pass_by(self) -> None:
        """Wake the next claim in place of this one, if this one was woken: what is there is not for it."""
        if self._woken_before is not None:
            self._pass_on(self._woken_before)

    def _pass_on(self, woken_before: frozenset[Bell]) -> None:
        self._woken_before = None
        for rope in self._ropes:
            rope.ring(woken_before | {self})


class _Rope:
    """The claims of this process that wait for one queue, longest first; each message wakes one."""

    def __init__(self) -> None:
        self._waiting: deque[Bell] = deque()
        self.joining = asyncio.Lock()
        self.is_followed = False

    @property
    def is_idle(self) -> bool:
        return not self._waiting

    def line_up(self, bell: Bell) -> None:
        self._waiting.append(bell)

    def leave(self, bell: Bell) -> None:
        if bell in self._waiting:
            self._waiting.remove(bell)

    def ring(self, woken_before: frozenset[Bell] = frozenset()) -> None:
        for bell in self._waiting:
            if bell not in woken_before:
                # It stands behind the others until it has looked.
                self._waiting.remove(bell)
                self._waiting.append(bell)
                bell.ring(woken_before)
                return

    def ring_all(self) -> None:
        for bell in self._waiting:
            bell.ring()


class Bells:
    """Waiting claims by queue; the process listens to a queue while somebody waits for it.

    Args:
        most_claims: How many may wait at once, three quarters of them of one tenant.
    """

    def __init__(self, tail: Tail, *, most_claims: int) -> None:
        self._tail = tail
        self._most_claims = most_claims
        self._claims: Counter[str] = Counter()
        self._ropes: dict[str, _Rope] = {}
        self.closed = False

    @asynccontextmanager
    async def listen(self, tenant: str, queues: Sequence[str]) -> AsyncIterator[Bell]:
        """Give a bell that rings when one of the queues may have work; what enters from now on is not missed.

        Raises:
            TooManyRequests: as many claims wait as may.
        """
        self._check_room(tenant)
        channels = [keys.queue_channel(tenant, name) for name in dict.fromkeys(queues)]
        bell = Bell()
        self._claims[tenant] += 1
        try:
            for channel in channels:
                await self._join(channel, bell)
            with telemetry.CLAIMS_WAITING.track_inprogress():
                yield bell
        finally:
            self._claims[tenant] -= 1
            if not self._claims[tenant]:
                del self._claims[tenant]
            for channel in channels:
                self._leave(channel, bell)

    def _check_room(self, tenant: str) -> None:
        share = max(1, self._most_claims * 3 // 4)
        if self._claims.total() >= self._most_claims or self._claims[tenant] >= share:
            telemetry.REFUSED.labels("claims_waiting").inc()
            raise TooManyRequests("As many claims wait here as may.", limit="claims_waiting", retry_after_s=1)

    async def _join(self, channel: str, bell: Bell) -> None:
        rope = self._ropes.setdefault(channel, _Rope())
        bell.line_up(rope)
        async with rope.joining:
            # Whoever comes second waits, too: before the confirmation no news is heard.
            if not rope.is_followed:
                # Where the store is away the claim itself will say so; the channel stays wanted.
                with suppress(StoreUnavailable):
                    await self._tail.follow(channel, lambda _payload: rope.ring())
                rope.is_followed = True

    def _leave(self, channel: str, bell: Bell) -> None:
        rope = self._ropes.get(channel)
        if rope is None:
            return
        rope.leave(bell)
        if rope.is_idle:
            del self._ropes[channel]
            self._tail.unfollow(channel)

    def close(self) -> None:
        """Have every waiting claim answered with what it has: this process is about to stop."""
        self.closed = True
        for rope in self._ropes.values():
            rope.ring_all()
