"""A channel over the real store whose notifications the test hands over: late, twice, in any order, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from gateway.domain.cursor import Cursor
from gateway.domain.resume import judge
from gateway.hub.channel import Channel, ChannelLimits
from gateway.hub.cohort import Pushing
from gateway.hub.memory import RingMemory
from gateway.hub.outlet import Outlet
from gateway.hub.reader import Encoder, Reader
from gateway.store.subscription import Subscription
from tests.hub.clients import Client, Plain
from tests.hub.logs import Log

SMALL = ChannelLimits(ring_entries=16, ring_bytes=4096, chunk_bytes=1024)
"""Bounds that a few events exceed."""


class Following:
    """A channel, what its log published, and the tasks that a hub would run for it."""

    def __init__(
        self,
        log: Log,
        limits: ChannelLimits,
        pushing: Pushing | None = None,
        memory: RingMemory | None = None,
    ) -> None:
        self.log = log
        self.hints: list[bytes] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._clients: list[Client] = []
        self.pushing = pushing or Pushing()
        self._published = asyncio.Event()
        self.channel = Channel(
            log.name,
            log.reader,
            limits,
            pushing=self.pushing,
            spawn=self.spawn,
            wait_store=self._wait_store,
            memory=memory or RingMemory(),
        )

    async def _wait_store(self) -> None:
        await asyncio.sleep(0.01)

    def spawn(self, coro: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine as a hub would."""
        task = asyncio.create_task(coro)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def append(self, *texts: str) -> bytes:
        """Append events, and return what was published of it; nobody has heard it yet."""
        self._published.clear()
        await self.log.append(*texts)
        return await self.published()

    async def published(self) -> bytes:
        """Return what was published last, once it has come."""
        async with asyncio.timeout(5):
            await self._published.wait()
        self._published.clear()
        return self.hints[-1]

    def keep(self, hint: bytes) -> None:
        """Take what the store published."""
        self.hints.append(hint)
        self._published.set()

    async def grow(self, *texts: str) -> None:
        """Append events, and have them heard."""
        self.channel.hear(await self.append(*texts))
        await self.settle()

    async def open(
        self,
        client: Client,
        encoder: Encoder | None = None,
        *,
        finish: bool = False,
        after: Cursor | None = None,
        direct: bool = False,
        linger_s: float = 0.0,
    ) -> Outlet:
        """Connect a client that goes on where it stands, by the resume rule.

        Args:
            direct: Have it take bytes at once, as a transport does.
        """
        self._clients.append(client)
        outlet = Outlet(
            client.send,
            self.spawn,
            hang_up=client.hang_up,
            transport="test",
            write=client.write if direct else None,
            linger_s=linger_s,
            finish=[{"finish": True}] if finish else [],
            farewell=lambda reason: [{"control": "stream.closed", "reason": reason}],
        )
        outlet.add(await self.reader(outlet, encoder or Plain(), after or client.at))
        return outlet

    async def reader(self, outlet: Outlet, encoder: Encoder, after: Cursor) -> Reader:
        """Return a reader that stands at `after`, judged by the log as it is."""
        head, entries = await self.log.reader.read(self.log.name, after.seq, entries=1, payload_bytes=1)
        found = entries[0].tag if entries and entries[0].seq == after.seq else None
        verdict = judge(after, head_seq=head.seq, head_tag=head.tag, first_seq=head.first_seq, found_tag=found)
        reader = Reader(self.channel, outlet, encoder, after=after)
        reader.follow(verdict, head.seq)
        return reader

    async def head(self) -> Cursor:
        """Return the place of a reader that has all of the log."""
        head, _ = await self.log.reader.read(self.log.name, 0, entries=0, payload_bytes=0)
        return Cursor(head.seq, head.tag)

    async def sweep(self) -> None:
        """Compare the channel with its log, as a hub's sweep does, and repair it."""
        (head,) = await self.log.reader.heads([self.log.name])
        if self.channel.differs(head):
            self.channel.repair.request()
        await self.settle()

    async def settle(self) -> None:
        """Do everything that there is to do; what waits for a client that does not read is left."""
        while True:
            if self.pushing.wanted:
                await self.pushing.flush()
            elif self._lingers() or len(self._tasks) > sum(client.blocked for client in self._clients):
                await asyncio.sleep(0.0005)
            else:
                return

    def _lingers(self) -> bool:
        return any(cohort._timer is not None for cohort in self.channel._cohorts.values())

    async def aclose(self) -> None:
        """End what is still under way."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


@asynccontextmanager
async def follow(
    url: str, log: Log, limits: ChannelLimits = SMALL, *, pushing: Pushing | None = None
) -> AsyncIterator[Following]:
    """Follow a log that exists; its notifications go to `hints` only."""
    following = Following(log, limits, pushing)
    subscription = Subscription(url, "test-hints", timeout_s=5, on_restored=lambda: None)
    running = asyncio.create_task(subscription.run())
    try:
        await subscription.subscribe(log.name.channel, following.keep)
        await following.channel.prime()
        yield following
        await following.settle()
    finally:
        await following.aclose()
        running.cancel()
        await asyncio.wait([running])
