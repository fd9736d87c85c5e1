"""Readers of one log that want the same form at the same pace, pushed to in passes that the event loop outlives.

This is the hot path: a pass makes the bytes once, and then does as little for each reader as there is to do, which
is one write to a transport that takes them. A reader that needs anything else is left to `Reader.push`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Hashable
from typing import TYPE_CHECKING

from prometheus_client import Counter

from gateway import telemetry

if TYPE_CHECKING:
    from gateway.hub.channel import Channel
    from gateway.hub.reader import Reader

logger = logging.getLogger(__name__)

PUSH_SLICE = 256
"""Readers served before the event loop gets a turn."""


class Pushing:
    """What is to be pushed to: every cohort has its turn, however many readers another one has."""

    def __init__(self) -> None:
        self._wanting: deque[Cohort] = deque()
        self._wanted = asyncio.Event()
        self._delivered: dict[Counter, int] = {}

    def want(self, cohort: Cohort) -> None:
        """Have a cohort's readers pushed to soon."""
        if not cohort.wanted:
            cohort.wanted = True
            self._wanting.append(cohort)
            self._wanted.set()

    @property
    def wanted(self) -> bool:
        """Whether anybody is to be pushed to."""
        return bool(self._wanting)

    def count(self, counter: Counter, events: int) -> None:
        """Count events that were handed over, all of a turn together: a count costs as much as a frame."""
        self._delivered[counter] = self._delivered.get(counter, 0) + events

    async def run(self) -> None:
        """Push whenever somebody wants it; for ever."""
        while True:
            await self._wanted.wait()
            await self.flush()

    async def flush(self) -> None:
        """Push until nobody wants more, giving the loop a turn every `PUSH_SLICE` readers."""
        while self._wanting:
            self._push_slice()
            if self._wanting:
                await asyncio.sleep(0)
        self._wanted.clear()

    def _push_slice(self) -> None:
        wanting, left = self._wanting, PUSH_SLICE
        try:
            while wanting and left > 0:
                cohort = wanting.popleft()
                cohort.wanted = False
                left -= cohort.push_some(left)
                if cohort.under_way:
                    # Behind those that have waited longer.
                    self.want(cohort)
        finally:
            for counter, events in self._delivered.items():
                counter.inc(events)
            self._delivered.clear()


class Cohort:
    """Readers that get the same bytes in the same pass.

    Args:
        key: Of the encoder that they share; None when each has its own.
        transport: What their connections are counted as.
        linger_s: The least time between two passes; the first event after a silence goes at once.
        pushing: Has `push_some` called soon, and again until nothing is under way.

    `wanted` says that it has yet to be: it is `Pushing`'s.
    """

    def __init__(
        self,
        channel: Channel,
        key: Hashable | None,
        transport: str,
        linger_s: float,
        pushing: Pushing,
    ) -> None:
        self.channel = channel
        self.readers: dict[Reader, None] = {}
        self._key = key
        self._delivered = telemetry.DELIVERIES.labels(transport, "live")
        self._linger_s = linger_s
        self._pushing = pushing
        self.wanted = False
        self._left: list[Reader] = []
        self._again = False
        self._due_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        """The log has something new: push it now, or when it is time."""
        if not self._linger_s:
            # Readers that the pass under way has been at lack what is new.
            self._again = bool(self._left)
            self._pushing.want(self)
        elif self._timer is None:
            wait_s = self._due_s - time.monotonic()
            if wait_s <= 0:
                self._begin()
            else:
                self._timer = asyncio.get_running_loop().call_later(wait_s, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._due_s = time.monotonic() + self._linger_s
        self._again = bool(self._left)
        self._pushing.want(self)

    def rest(self) -> None:
        """Want nothing more: nobody is left."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def under_way(self) -> bool:
        """Whether there are readers that the latest pass has not been at."""
        return bool(self._left) or self._again

    def push_some(self, most: int) -> int:
        """Go on with the pass, or begin one, for up to `most` readers; return how many."""
        if not self._left:
            self._again = False
            everybody = list(self.readers)
            if len(everybody) <= most:
                self._push(everybody)
                return max(len(everybody), 1)
            self._left = everybody[::-1]
        batch = self._left[: -most - 1 : -1]
        del self._left[-most:]
        self._push(batch)
        return max(len(batch), 1)

    def _push(self, batch: list[Reader]) -> None:
        channel, shared, now_s = self.channel, self._key is not None, time.monotonic()
        after, wire, seq, tag, settled = -1, b"", 0, None, False
        delivered = 0
        for reader in batch:
            outlet, before = reader.outlet, reader.seq
            # One that left since the last turn of the loop gets nothing more.
            if not reader.attached or outlet.busy or outlet.closed:
                continue
            try:
                if before != after and shared and reader.in_ring:
                    chunk = channel.chunk(reader.encoder, before)
                    if len(chunk.messages) == 1 and "wire" in chunk.messages[0]:
                        after, wire, seq, tag = before, chunk.messages[0]["wire"], chunk.seq, chunk.tag
                        settled = seq == channel.ring.head_seq and not channel.ended
                if before == after and reader.in_step and outlet.write(wire):
                    reader.seq, reader.tag = seq, tag
                    delivered += seq - before
                    outlet.sent_s = now_s
                    if not settled:
                        outlet.wake()
                else:
                    delivered += reader.push()
            except Exception:
                logger.exception("a reader of %s failed", channel.name.stream)
                outlet.close(hang_up=True)
        if delivered:
            self._pushing.count(self._delivered, delivered)
