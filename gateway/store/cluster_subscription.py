"""Notifications of a cluster: each channel is heard at the node that has its slot, one connection a node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from redis.exceptions import ResponseError

from gateway.errors import StoreUnavailable
from gateway.store.refusals import Redirected, translate
from gateway.store.slots import SLOTS, SlotMap
from gateway.store.store_url import StoreUrl, host_of
from gateway.store.subscription import Displaced, Handler, Subscription

AGAIN_S: Final = 0.05


class ClusterSubscription:
    """All channels of this process, as `Subscription` has them at one server.

    A channel whose slot moves is subscribed at the node that has it now; once that confirmed, `on_restored` is
    called, since what was published meanwhile is lost.
    """

    def __init__(self, url: StoreUrl, name: str, *, timeout_s: float, on_restored: Callable[[], None]) -> None:
        self._url = url
        self._name = name
        self._timeout_s = timeout_s
        self._on_restored = on_restored
        self._slots = SlotMap(url, f"{name}-slots")
        self._handlers: dict[str, Handler] = {}
        self._homes: dict[str, str] = {}
        self._probes: list[str] = []
        self._nodes: dict[str, Subscription] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._tasks: asyncio.TaskGroup | None = None

    @property
    def restores(self) -> int:
        """How often notifications were restored, the first time of all nodes counted as one."""
        return 1 + sum(max(node.restores - 1, 0) for node in self._nodes.values())

    async def subscribe(self, channel: str, handler: Handler) -> None:
        """Call `handler` with each message of `channel` from now on; returns once its node confirmed.

        Raises:
            StoreUnavailable: no confirmation in time; the channel stays wanted.
        """
        self._handlers[channel] = handler
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    if await self._subscribed(channel, handler):
                        return
                    await asyncio.sleep(AGAIN_S)
        except TimeoutError:
            raise StoreUnavailable("The store did not confirm a subscription.", outcome="not_written") from None

    async def _subscribed(self, channel: str, handler: Handler) -> bool:
        address = self._homes.get(channel) or self._slots.owner_of(channel)
        if not address or self._tasks is None:
            self._slots.want()
            return False
        self._homes[channel] = address
        try:
            await self._node(address).subscribe(channel, handler)
        except Displaced:
            return False
        return True

    def unsubscribe(self, channel: str) -> None:
        """Stop listening to `channel`."""
        self._handlers.pop(channel, None)
        node = self._nodes.get(self._homes.pop(channel, ""))
        if node is not None:
            node.unsubscribe(channel)

    def probes(self, channel: str) -> list[str]:
        """Return channels named after `channel`, one of each node that has slots."""
        if {self._slots.owner_of(name) for name in self._probes} != self._slots.nodes:
            self._probes = self._find_probes(channel)
        return self._probes

    def _find_probes(self, channel: str) -> list[str]:
        found: dict[str, str] = {}
        for number in range(SLOTS):
            name = f"{channel}:{number}"
            found.setdefault(self._slots.owner_of(name), name)
            if found.keys() >= self._slots.nodes:
                break
        return [name for address, name in found.items() if address in self._slots.nodes]

    async def reset(self, channel: str) -> None:
        """Drop the connection on which a channel is heard; it is made again."""
        node = self._nodes.get(self._homes.get(channel, ""))
        if node is not None:
            await node.reset()
        self._slots.want()

    async def run(self) -> None:
        """Own the connections; for ever."""
        self._nodes.clear()
        self._running.clear()
        self._homes.clear()
        try:
            async with asyncio.TaskGroup() as self._tasks:
                await self._slots.run(self._settle)
        finally:
            self._tasks = None

    def _node(self, address: str) -> Subscription:
        node = self._nodes.get(address)
        if node is None:
            assert self._tasks is not None, "a node is known only while this runs"

            def displaced(channels: Sequence[str], refusal: ResponseError | None) -> None:
                self._displaced(address, channels, refusal)

            node = self._nodes[address] = Subscription(
                self._url.node(address),
                self._name,
                timeout_s=self._timeout_s,
                on_restored=self._on_restored,
                on_displaced=displaced,
                on_lost=self._slots.want,
            )
            self._running[address] = self._tasks.create_task(node.run())
        return node

    def _displaced(self, address: str, channels: Sequence[str], refusal: ResponseError | None) -> None:
        for channel in channels:
            if self._homes.get(channel) == address:
                del self._homes[channel]
        moved = None if refusal is None else translate(refusal)
        if isinstance(moved, Redirected):
            elsewhere = moved.address if host_of(moved.address) else host_of(address) + moved.address
            self._slots.move(moved.slot, elsewhere)
        self._slots.want()

    def _settle(self) -> None:
        """Have each channel heard where its slot is, and leave the nodes that have none."""
        for channel, handler in self._handlers.items():
            address = self._slots.owner_of(channel)
            home = self._homes.get(channel, "")
            if address and address != home:
                if home in self._nodes:
                    self._nodes[home].release(channel)
                self._homes[channel] = address
                self._node(address).adopt(channel, handler)
        for address in self._nodes.keys() - self._slots.nodes - set(self._homes.values()):
            del self._nodes[address]
            self._running.pop(address).cancel()
