"""A link to a cluster: one connection a node, each call to the node that has its key, wherever that moves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any, Final

from redis.crc import key_slot

from gateway import telemetry
from gateway.errors import StoreUnavailable
from gateway.store import keys
from gateway.store.link import Argument, Late, NodeLink
from gateway.store.refusals import Redirected, Refused
from gateway.store.slots import NoLayout, SlotMap
from gateway.store.store_url import StoreUrl, host_of

RESTS_S: Final = (0.0, 0.01, 0.02, 0.05, 0.1)
RETIRED_POLL_S: Final = 0.05
SCRIPTS: Final = frozenset({"EVALSHA", "EVAL"})
KEYLESS: Final = frozenset({"PING", "TIME", "INFO", "HELLO", "CONFIG", "CLUSTER", "CLIENT", "PUBSUB", "SCRIPT", "ACL"})
HOME_SLOT: Final = key_slot(keys.API_KEYS.encode())
"""What has no key is asked of the node that has this slot: all processes read the same clock."""

# What another moment, or the node that takes this one's place, will do.
CURABLE: Final = frozenset({"CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY", "TRYAGAIN"})


def slot_of(command: tuple[Argument, ...]) -> int:
    """Return the slot of a command's first key; all its keys share one."""
    if command[0] in SCRIPTS:
        key = command[3] if command[2] else None
    else:
        key = None if command[0] in KEYLESS else command[1]
    if key is None:
        return HOME_SLOT
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


class NoNode(StoreUnavailable):
    """No connection stands to the node that has a slot, or nobody is known to have it."""

    def __init__(self) -> None:
        super().__init__("The store's node cannot be reached.", outcome="not_written")


class ClusterLink:
    """A `Link` to the primaries of a cluster.

    A call whose slot is being moved, or whose node is being replaced, is made again within its patience; it is never
    made again once it may have been done.

    Args:
        timeout_s: A call that waits longer for its reply has an unknown outcome; one that is refused because its
            keys are moving is made again for so long.
        patience_s: How long a call waits for a node that takes it before it fails, not written.
    """

    def __init__(self, url: StoreUrl, name: str, *, timeout_s: float = 5.0, patience_s: float = 1.0) -> None:
        self._url = url
        self._name = name
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._slots = SlotMap(url, f"{name}-slots")
        self._nodes: dict[str, NodeLink] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._tasks: asyncio.TaskGroup | None = None

    @property
    def is_up(self) -> bool:
        """Whether any node is connected: some runs can be served."""
        return any(node.is_up for node in self._nodes.values())

    @property
    def calls_open(self) -> int:
        """How many calls wait for a reply."""
        return sum(node.calls_open for node in self._nodes.values())

    @property
    def oldest_call_s(self) -> float:
        """How long the oldest of them waits."""
        return max((node.oldest_call_s for node in self._nodes.values()), default=0.0)

    @property
    def trouble(self) -> str:
        """Why nodes are not connected, as far as it was told; empty when all are."""
        said = [f"{address}: {node.trouble}" for address, node in self._nodes.items() if node.trouble]
        return "; ".join([self._slots.trouble, *said] if self._slots.trouble else said)

    async def wait_up(self, timeout_s: float) -> bool:
        """Wait for a node; False when none was connected in time."""
        until_s = time.monotonic() + timeout_s
        await self._slots.wait_told(timeout_s)
        waits = [asyncio.ensure_future(node.wait_up(until_s - time.monotonic())) for node in self._nodes.values()]
        if waits and not self.is_up:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        return self.is_up

    def call(self, *command: Argument) -> Awaitable[Any]:
        """Send one command to the node that has its key, as `Link.call`."""
        return self._call(command, slot_of(command))

    def send_late(self, _late: Late) -> bool:
        """Send nothing: each command goes to the node that has its key."""
        return False

    def flush(self) -> None:
        """Leave it to each node's connection: nothing is sent late."""

    async def call_many(self, commands: list[tuple[Argument, ...]]) -> list[Any]:
        """Send several commands, those for one node in one write, as `Link.call_many`."""
        replies = await asyncio.gather(*(self.call(*command) for command in commands), return_exceptions=True)
        for reply in replies:
            if isinstance(reply, BaseException):
                raise reply
        return list(replies)

    async def check_primary(self, key: str, /) -> None:
        """Make sure that the node that answered for a key is its primary, by its own word and that of the others.

        Raises:
            StoreUnavailable: it is not, or nobody can tell.
        """
        address = self._slots.owner_of(key)
        node = self._nodes.get(address)
        if node is None or not node.is_up:
            raise NoNode
        await node.check_primary()
        try:
            owner = await self._slots.find_owner(key)
        except NoLayout as error:
            raise StoreUnavailable("The store's nodes cannot be asked.", outcome="not_written") from error
        if owner != address:
            self._slots.want()
            raise StoreUnavailable("Another node answers in the place of this one.", outcome="not_written")

    async def run(self) -> None:
        """Keep a connection to each primary; for ever."""
        self._nodes.clear()
        self._running.clear()
        try:
            async with asyncio.TaskGroup() as self._tasks:
                await self._slots.run(self._follow_layout)
        finally:
            self._tasks = None

    async def _call(self, command: tuple[Argument, ...], slot: int) -> Any:
        node = self._nodes.get(self._slots.owner(slot))
        connection = None if node is None else node.connection
        if node is None or connection is None:
            return await self._insist(command, slot, NoNode())
        try:
            return await node.begin(connection, *command)
        except StoreUnavailable as failure:
            return await self._insist(command, slot, failure)

    async def _insist(self, command: tuple[Argument, ...], slot: int, failure: StoreUnavailable) -> Any:
        """Make a call again, elsewhere or later, for as long as it is certain that it was not done."""
        began_s = time.monotonic()
        tries = 0
        while True:
            asked = self._follow(failure, slot)
            if time.monotonic() - began_s > self._patience_of(failure):
                if isinstance(failure, NoNode):
                    # The others were counted where they failed.
                    telemetry.STORE_ERRORS.labels("not_written").inc()
                raise failure
            await asyncio.sleep(RESTS_S[min(tries, len(RESTS_S) - 1)])
            tries += 1
            try:
                return await self._try(command, slot, asked)
            except StoreUnavailable as again:
                failure = again

    def _patience_of(self, failure: StoreUnavailable) -> float:
        """Return how long a call is made again that failed so; below 0 when it may not be."""
        if failure.facts["outcome"] != "not_written":
            return -1.0
        if isinstance(failure, Refused):
            if failure.word not in CURABLE:
                return -1.0
            return self._timeout_s if failure.word == "TRYAGAIN" else self._patience_s
        return self._timeout_s if isinstance(failure, Redirected) else self._patience_s

    def _follow(self, failure: StoreUnavailable, slot: int) -> str:
        """Take note of a redirection; returns the address that may be asked once for what moves there."""
        if not isinstance(failure, Redirected):
            if not isinstance(failure, Refused) or failure.word != "TRYAGAIN":
                self._slots.want()
            return ""
        address = failure.address
        if not host_of(address):
            address = host_of(self._slots.owner(slot)) + address
        if failure.asks:
            return address
        self._slots.move(slot, address)
        self._node(address)
        return ""

    async def _try(self, command: tuple[Argument, ...], slot: int, asked: str) -> Any:
        if asked:
            return await self._node(asked).call_importing(*command)
        node = self._nodes.get(self._slots.owner(slot))
        connection = None if node is None else node.connection
        if node is None or connection is None:
            raise NoNode
        return await node.begin(connection, *command)

    def _node(self, address: str) -> NodeLink:
        node = self._nodes.get(address)
        if node is None:
            if self._tasks is None:
                raise NoNode
            url = self._url.node(address)
            node = NodeLink(url, self._name, timeout_s=self._timeout_s, patience_s=self._patience_s)
            self._nodes[address] = node
            self._running[address] = self._tasks.create_task(node.run())
        return node

    def _follow_layout(self) -> None:
        for address in self._slots.nodes:
            self._node(address)
        for address in self._nodes.keys() - self._slots.nodes:
            assert self._tasks is not None
            self._tasks.create_task(self._retire(self._nodes.pop(address), self._running.pop(address)))

    async def _retire(self, node: NodeLink, running: asyncio.Task[None]) -> None:
        """Let a node that has no slots any more answer what it was asked."""
        until_s = time.monotonic() + self._timeout_s
        while node.calls_open and time.monotonic() < until_s:  # noqa: ASYNC110 - soon, whatever happens
            await asyncio.sleep(RETIRED_POLL_S)
        running.cancel()
