"""Store notifications to channels, and the proof that notifications arrive at all."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from gateway import telemetry
from gateway.errors import StoreUnavailable
from gateway.store import keys
from gateway.store.clock import StoreClock
from gateway.store.link import Link
from gateway.store.links import open_subscription

logger = logging.getLogger(__name__)

MISSED_PROBES = 3
SUBSCRIBE_S = 5.0


class Tail:
    """The subscription, probed through the store's publish path, at each node of a cluster.

    `healthy` is false once probes are published and none is heard: the connection of each that is not is made anew.
    """

    def __init__(self, url: str, link: Link, clock: StoreClock, *, process_id: str, probe_s: float) -> None:
        self._link = link
        self._clock = clock
        self._probe_s = probe_s
        self._process_id = process_id
        name = f"gateway-tail-{process_id}"
        self._subscription = open_subscription(url, name, timeout_s=SUBSCRIBE_S, on_restored=self._restored)
        self._missed: dict[str, int] = {}
        self._heard: dict[str, asyncio.Event] = {}
        self.on_restored: Callable[[], None] = lambda: None

    @property
    def healthy(self) -> bool:
        """Whether the latest probes came back, from one node of a cluster at least."""
        return self._link.is_up and min(self._missed.values(), default=0) < MISSED_PROBES

    async def follow(self, channel: str, handler: Callable[[bytes], None]) -> None:
        """Hear a channel; returns when the store confirmed."""
        await self._subscription.subscribe(channel, handler)

    def unfollow(self, channel: str) -> None:
        """Hear a channel no more."""
        self._subscription.unsubscribe(channel)

    async def tell(self, channel: str, payload: bytes) -> int:
        """Tell everybody who hears a channel, and return how many that are.

        Raises:
            StoreUnavailable: the store did not answer.
        """
        heard: int = await self._link.call("SPUBLISH", channel, payload)
        return heard

    async def wait_store(self) -> None:
        """Wait until the store is connected again, at least a moment."""
        await asyncio.sleep(0.02)
        await self._link.wait_up(1.0)

    async def run(self) -> None:
        """Own the subscription and probe it; for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._subscription.run())
            tasks.create_task(self._probe())

    def _restored(self) -> None:
        if self._subscription.restores > 1:
            telemetry.STORE_RECONNECTS.inc()
            logger.info("store notifications restored")
        self.on_restored()

    async def _probe(self) -> None:
        while True:
            channels = self._subscription.probes(keys.probe_channel(self._process_id))
            for channel in self._missed.keys() - set(channels):
                del self._missed[channel]
                self._heard.pop(channel, None)
                self._subscription.unsubscribe(channel)
            await asyncio.gather(self._sync_clock(), *map(self._probe_one, channels))
            await asyncio.sleep(self._probe_s)

    async def _sync_clock(self) -> None:
        # The node that has the clock may be away while others are not; the clock is carried on meanwhile.
        with suppress(StoreUnavailable):
            await self._clock.sync(self._link)

    async def _probe_one(self, channel: str) -> None:
        missed = self._missed.setdefault(channel, 0)
        try:
            await self._hear_probe(channel)
            self._missed[channel] = 0
        except (StoreUnavailable, TimeoutError):
            self._missed[channel] = missed + 1
            if self._missed[channel] % MISSED_PROBES == 0:
                logger.warning("store notifications do not arrive; connecting anew")
                await self._subscription.reset(channel)

    async def _hear_probe(self, channel: str) -> None:
        heard = self._heard.get(channel)
        if heard is None:
            heard = asyncio.Event()
            await self._subscription.subscribe(channel, lambda _payload: heard.set())
            self._heard[channel] = heard
        heard.clear()
        began = time.monotonic()
        await self.tell(channel, b"")
        async with asyncio.timeout(self._probe_s):
            await heard.wait()
        telemetry.PROBE_SECONDS.observe(time.monotonic() - began)
