"""Which node of a cluster has which slot: asked of the cluster itself, again and again, and at once when in doubt."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import msgspec
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import ResponseError

from gateway.store.store_url import StoreUrl, host_of, join_address
from gateway.store.wire import CONNECT_S, open_wire

logger = logging.getLogger(__name__)

REFRESH_S: Final = 10.0
REST_S: Final = 0.2
"""Least time between two looks, however many calls are in doubt."""

ASKED_AT_ONCE: Final = 2
SLOTS: Final = REDIS_CLUSTER_HASH_SLOTS


class Layout(msgspec.Struct, frozen=True):
    """What one node says of the cluster: the address of each slot's primary, empty where it has none.

    Args:
        works: Whether the node takes calls; one that is cut off from the others does not.
        epoch: Greater in what is told later.
    """

    owners: tuple[str, ...]
    works: bool
    epoch: int


class NoLayout(ConnectionError):
    """No node of the cluster could be asked; the text has what each of them said."""


class SlotMap:
    """The layout of a cluster as it was told last; `run` keeps it fresh.

    Args:
        name: By which the connections are known that ask for it.
    """

    def __init__(self, url: StoreUrl, name: str) -> None:
        self._url = url
        self._name = name
        self._owners: list[str] = [""] * SLOTS
        self._epoch = 0
        self._wanted = asyncio.Event()
        self._told = asyncio.Event()
        self.nodes: frozenset[str] = frozenset()
        self.trouble = ""

    def owner(self, slot: int) -> str:
        """Return the address of the node that has a slot, empty when nobody is known to have it."""
        return self._owners[slot]

    def owner_of(self, key: str) -> str:
        """Return the address of the node that has a key or a channel."""
        return self._owners[key_slot(key.encode())]

    def move(self, slot: int, address: str) -> None:
        """Take a node's word that another has a slot, and look at all of them soon."""
        self._owners[slot] = address
        self.want()

    def want(self) -> None:
        """Have the cluster asked soon: something was not where it should be."""
        self._wanted.set()

    async def wait_told(self, timeout_s: float) -> bool:
        """Wait until the layout was told once; False when it was not in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._told.wait()
        return self._told.is_set()

    async def run(self, on_told: Callable[[], None]) -> None:
        """Ask the cluster for its layout, and call `on_told` each time that it was told; for ever."""
        while True:
            self._wanted.clear()
            try:
                await self.refresh()
                on_told()
            except NoLayout as error:
                self.trouble = str(error)
                self._wanted.set()
                logger.debug("store cluster: %s", error)
            await asyncio.sleep(REST_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_S):
                    await self._wanted.wait()

    async def refresh(self) -> None:
        """Ask the cluster for its layout once.

        Raises:
            NoLayout: nobody answered.
        """
        self._take(await self._ask_cluster())

    async def find_owner(self, key: str) -> str:
        """Ask the cluster anew who has a key.

        Raises:
            NoLayout: nobody answered.
        """
        layout = await self._ask_cluster()
        return layout.owners[key_slot(key.encode())]

    def _take(self, layout: Layout) -> None:
        self._owners = list(layout.owners)
        self._epoch = layout.epoch
        self.nodes = frozenset(layout.owners) - {""}
        self.trouble = ""
        self._told.set()

    async def _ask_cluster(self) -> Layout:
        """Return what the first node says that works and is not behind what is known, else the best that was said."""
        known = random.sample(sorted(self.nodes), len(self.nodes))
        addresses = list(dict.fromkeys([*known, *self._url.hosts]))
        best: Layout | None = None
        said: list[str] = []
        for start in range(0, len(addresses), ASKED_AT_ONCE):
            for layout in await self._ask_some(addresses[start : start + ASKED_AT_ONCE], said):
                if best is None or (layout.works, layout.epoch) > (best.works, best.epoch):
                    best = layout
            if best is not None and best.works and best.epoch >= self._epoch:
                return best
        if best is None:
            raise NoLayout(f"no node of the cluster answers: {'; '.join(said)}")
        return best

    async def _ask_some(self, addresses: list[str], said: list[str]) -> list[Layout]:
        """Ask a few nodes at once; returns what they say as soon as one does that works."""
        asked = {asyncio.create_task(self._ask(address)) for address in addresses}
        layouts: list[Layout] = []
        try:
            while asked and not any(layout.works for layout in layouts):
                done, asked = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    try:
                        layouts.append(task.result())
                    except (ResponseError, OSError, TimeoutError, ValueError) as error:
                        said.append(str(error) or type(error).__name__)
        finally:
            for task in asked:
                task.cancel()
        return layouts

    async def _ask(self, address: str) -> Layout:
        async with asyncio.timeout(CONNECT_S):
            wire = await open_wire(self._url.node(address), self._name)
            try:
                info = await wire.ask("CLUSTER", "INFO")
                ranges = await wire.ask("CLUSTER", "SLOTS")
            finally:
                wire.close()
        return read_layout(info, ranges, address)


def read_layout(info: bytes, ranges: list[Any], asked: str) -> Layout:
    """Read what `CLUSTER INFO` and `CLUSTER SLOTS` answered.

    Args:
        asked: The address that was asked: a node may leave its own host unsaid.

    Raises:
        ValueError: no cluster answers so.
    """
    told = dict(line.partition(":")[::2] for line in info.decode().splitlines())
    owners = [""] * SLOTS
    for first, last, primary, *_replicas in ranges:
        host = primary[0].decode() if primary[0] else ""
        if host != "?":
            address = join_address(host or host_of(asked), primary[1])
            owners[first : last + 1] = [address] * (last + 1 - first)
    return Layout(tuple(owners), told.get("cluster_state") == "ok", int(told.get("cluster_current_epoch", 0)))
