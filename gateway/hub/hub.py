"""The logs this process follows: one channel each, kept while somebody reads it and a little longer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from gateway import telemetry
from gateway.errors import GatewayError, StoreUnavailable
from gateway.hub.channel import Channel, ChannelLimits
from gateway.hub.cohort import PUSH_SLICE, Pushing
from gateway.hub.lag import SURVEY_S, SURVEY_SLICE, Survey, tell_end
from gateway.hub.memory import RINGS_BYTES, RingMemory
from gateway.hub.outlet import Outlet, Send
from gateway.hub.pressure import UNSENT_BYTES, relieve
from gateway.hub.tail import Tail
from gateway.store.log import LogName, LogReader

logger = logging.getLogger(__name__)

IDLE_CHANNEL_S = 5.0
SWEEP_BATCH = 500
RESTART_S = 0.2


class _Followed:
    __slots__ = ("channel", "forgetting", "ready", "users")

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.users = 0
        self.ready: asyncio.Future[None] | None = None
        self.forgetting: asyncio.TimerHandle | None = None


class Hub:
    """Channels by log, pushes to their readers, keep-alives to their connections.

    `run` owns every task; nothing works before it is entered.

    Args:
        keepalive_s: Silence after which a connection gets a sign of life.
        sweep_s: Silence after which a log is compared with its channel.
        idle_s: How long a channel is kept that nobody reads.
        linger_s: The least time between two pushes to a connection that does not say another.
        rings_bytes: What the latest events of all logs may take in memory.
        unsent_bytes: What may wait in memory for connections that do not take it.
    """

    def __init__(
        self,
        tail: Tail,
        reader: LogReader,
        limits: ChannelLimits,
        *,
        keepalive_s: float,
        sweep_s: float,
        idle_s: float = IDLE_CHANNEL_S,
        linger_s: float = 0.0,
        rings_bytes: int = RINGS_BYTES,
        unsent_bytes: int = UNSENT_BYTES,
    ) -> None:
        self._tail = tail
        self._reader = reader
        self._limits = limits
        self._keepalive_s = keepalive_s
        self._sweep_s = sweep_s
        self._idle_s = idle_s
        self._linger_s = linger_s
        self._unsent_bytes = unsent_bytes
        self.memory = RingMemory(rings_bytes)
        self._followed: dict[str, _Followed] = {}
        self._pushing = Pushing()
        self._compare_event = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self.outlets: set[Outlet] = set()
        self.stopping = False
        tail.on_restored = self._check_all

    def end_waits(self) -> None:
        """Have whoever waits for a log to change look once more, and wait no longer: this process is about to stop."""
        self.stopping = True
        for followed in self._followed.values():
            followed.channel.wake()

    def spawn(self, coro: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in the hub's task group."""
        if self._tasks is None:
            raise RuntimeError("the hub is not running")
        self._tasks.create_task(_contained(coro))

    async def run(self) -> None:
        """Push, sweep and keep alive; for ever."""
        async with asyncio.TaskGroup() as self._tasks:
            self.spawn(_for_ever(self._pushing.run))
            self.spawn(_for_ever(self._sweep))
            self.spawn(_for_ever(self._keep_alive))
            self.spawn(_for_ever(self._survey))

    async def wait_store(self) -> None:
        """Wait until the store may answer again, for a bounded time."""
        await self._tail.wait_store()

    @asynccontextmanager
    async def follow(self, name: LogName) -> AsyncIterator[Channel]:
        """Follow a log while the block runs.

        Raises:
            NotFound: there is no such run.
            StoreUnavailable: the store did not answer.
        """
        channel = await self.acquire(name)
        try:
            yield channel
        finally:
            self.release(channel)

    async def acquire(self, name: LogName) -> Channel:
        """Follow a log until `release`; subscribed before its history is read, so that nothing falls between."""
        followed = self._followed.get(name.channel)
        if followed is None or followed.channel.gone:
            followed = self._followed[name.channel] = _Followed(self._new_channel(name))
        followed.users += 1
        if followed.forgetting is not None:
            followed.forgetting.cancel()
        try:
            await self._make_ready(followed)
        except BaseException:
            self._leave(followed)
            raise
        return followed.channel

    def release(self, channel: Channel) -> None:
        """Stop following on behalf of one user; the channel stays warm for a moment."""
        followed = self._followed.get(channel.name.channel)
        if followed is not None and followed.channel is channel:
            self._leave(followed)

    def _leave(self, followed: _Followed) -> None:
        followed.users -= 1
        if followed.users == 0:
            followed.forgetting = asyncio.get_running_loop().call_later(self._idle_s, self._forget, followed)

    def _forget(self, followed: _Followed) -> None:
        name = followed.channel.name.channel
        if followed.users == 0 and self._followed.get(name) is followed:
            del self._followed[name]
            self._tail.unfollow(name)
            followed.channel.forget()

    def _new_channel(self, name: LogName) -> Channel:
        return Channel(
            name,
            self._reader,
            self._limits,
            pushing=self._pushing,
            spawn=self.spawn,
            wait_store=self._tail.wait_store,
            memory=self.memory,
        )

    async def _make_ready(self, followed: _Followed) -> None:
        """Subscribe and prime once; everybody who comes meanwhile waits for the same."""
        while followed.ready is not None and not followed.ready.done():
            await asyncio.wait([followed.ready])
        if followed.ready is not None and followed.ready.exception() is None:
            return
        followed.ready = asyncio.get_running_loop().create_future()
        try:
            await self._tail.follow(followed.channel.name.channel, followed.channel.hear)
            await followed.channel.prime()
        except BaseException as error:
            failure = error if isinstance(error, GatewayError) else StoreUnavailable("Interrupted.", outcome="unknown")
            followed.ready.set_exception(failure)
            # Whoever waits looks at it; where nobody does, it is still looked at.
            followed.ready.exception()
            raise
        followed.ready.set_result(None)

    def open_outlet(self, send: Send, *, linger_s: float | None = None, **settings: Any) -> Outlet:
        """Return a connection's outlet, kept alive until `close_outlet`; `settings` as `Outlet` takes them."""
        outlet = Outlet(send, self.spawn, linger_s=self._linger_s if linger_s is None else linger_s, **settings)
        self.outlets.add(outlet)
        telemetry.READERS.labels(outlet.transport).inc()
        return outlet

    def close_outlet(self, outlet: Outlet) -> None:
        """Forget a connection that is gone."""
        outlet.close()
        if outlet in self.outlets:
            self.outlets.discard(outlet)
            telemetry.READERS.labels(outlet.transport).dec()
            tell_end(outlet)

    def _check_all(self) -> None:
        """What was published while the connection was away is lost: compare everything with its log."""
        for followed in self._followed.values():
            followed.channel.agreed_s = float("-inf")
        self._compare_event.set()

    async def _sweep(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._sweep_s):
                    await self._compare_event.wait()
            self._compare_event.clear()
            try:
                await self._compare()
            except StoreUnavailable:
                await self._tail.wait_store()
                self._compare_event.set()

    async def _compare(self) -> None:
        """Compare the heads of logs that were silent with their channels."""
        silent_since = time.monotonic() - self._sweep_s
        channels = [followed.channel for followed in self._followed.values()]
        silent = [channel for channel in channels if channel.primed and channel.agreed_s <= silent_since]
        for start in range(0, len(silent), SWEEP_BATCH):
            batch = silent[start : start + SWEEP_BATCH]
            heads = await self._reader.heads([channel.name for channel in batch])
            for channel, head in zip(batch, heads, strict=True):
                if channel.differs(head):
                    channel.repair.request()

    async def _survey(self) -> None:
        survey = Survey()
        while True:
            await asyncio.sleep(SURVEY_S)
            survey.begin()
            for index, outlet in enumerate(list(self.outlets)):
                survey.look(outlet)
                if index % SURVEY_SLICE == SURVEY_SLICE - 1:
                    await asyncio.sleep(0)
            survey.end()

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, self._keepalive_s / 4))
            telemetry.RINGS_BYTES.set(self.memory.total_bytes)
            quiet_since_s = time.monotonic() - self._keepalive_s
            unsent: dict[Outlet, int] = {}
            for index, outlet in enumerate(list(self.outlets)):
                outlet.keep_alive(quiet_since_s)
                if size := outlet.unsent():
                    unsent[outlet] = size
                if index % PUSH_SLICE == PUSH_SLICE - 1:
                    await asyncio.sleep(0)
            relieve(unsent, self._unsent_bytes)


async def _for_ever(loop: Callable[[], Awaitable[None]]) -> None:
    """Run one of the hub's loops; a failure in a pass of it is logged, and the next pass comes."""
    while True:
        try:
            await loop()
        except Exception:
            logger.exception("a loop of the hub failed; it goes on")
        await asyncio.sleep(RESTART_S)


async def _contained(coro: Coroutine[Any, Any, None]) -> None:
    """Run one connection's or channel's work; its failure is its own."""
    try:
        await coro
    except Exception:
        logger.exception("a task of the hub failed")
