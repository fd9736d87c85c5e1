"""One pipelined connection to the store: calls share round trips, and a failed call says what is known of it.

Calls made in one turn of the event loop go out in one write (group commit), or in a few: see `Link.flush`.
Replies come in order, so the oldest open call gets the next reply.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable
from typing import Any, Protocol

from redis.exceptions import ResponseError

from gateway import telemetry
from gateway.errors import StoreUnavailable
from gateway.store import wire
from gateway.store.refusals import translate
from gateway.store.sentinel import open_store
from gateway.store.wire import ProtocolBroken, Wire, pack

logger = logging.getLogger(__name__)

Argument = wire.Argument

# An address may lead elsewhere after a failover; a connection younger than this was made to where it leads now.
SETTLED_S = 1.0

BACKOFF_S = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0)


class Answerable(Protocol):
    """What waits for a reply: an `asyncio.Future`, or what is told as one is."""

    def done(self) -> bool:
        """Whether nobody waits any more."""

    def set_result(self, reply: Any, /) -> None:
        """Take the reply."""

    def set_exception(self, error: Exception, /) -> None:
        """Take what came in the place of one."""


class Late(Answerable, Protocol):
    """A command that may still grow until it leaves."""

    def seal(self) -> tuple[Argument, ...]:
        """Return the command as it is now; it grows no more."""


class Link(Protocol):
    """What leads to the store: one connection, or one to each node of a cluster."""

    @property
    def is_up(self) -> bool:
        """Whether a connection stands."""

    @property
    def calls_open(self) -> int:
        """How many calls wait for a reply."""

    @property
    def oldest_call_s(self) -> float:
        """How long the oldest of them waits."""

    @property
    def trouble(self) -> str:
        """Why no connection stands, as far as the last try told; empty while one does."""

    async def wait_up(self, timeout_s: float) -> bool:
        """Wait for a connection; False when none came in time."""

    def call(self, *command: Argument) -> Awaitable[Any]:
        """Send one command and return what waits for its reply: bytes, int, None or a list of them.

        Raises:
            StoreUnavailable: `outcome` is `not_written` or `unknown`.
            ResponseError: the server refused the command itself.
        """

    def send_late(self, late: Late) -> bool:
        """Send a command with the others of this turn, to be settled as it leaves.

        False, and nothing is sent, where no connection stands, or where a command's keys say which one is its own.
        """

    def flush(self) -> None:
        """Send now what waits for the end of the turn, where one connection takes all."""

    async def call_many(self, commands: list[tuple[Argument, ...]]) -> list[Any]:
        """Send several commands at once and return their replies in order; the first error is raised."""

    async def check_primary(self, key: str, /) -> None:
        """Make sure that a primary answers for a key: a replica may lack what its primary has.

        Raises:
            StoreUnavailable: a replica answered, or nobody.
        """

    async def run(self) -> None:
        """Connect, serve calls, and connect again when that ends; for ever."""


class NodeLink:
    """A connection that owns its reconnection; `call` is safe from any number of tasks.

    Args:
        url: Of one server, or of sentinels, which are asked for it each time.
        timeout_s: A call older than this breaks the connection; its outcome is unknown.
        patience_s: How long a call waits for a connection before it fails, not written.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        timeout_s: float = 5.0,
        patience_s: float = 1.0,
    ) -> None:
        self._url = url
        self._name = name
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._connection: Wire | None = None
        self._up = asyncio.Event()
        self._open: deque[tuple[Answerable, float]] = deque()
        self._connected_at_s = 0.0
        self.connects = 0
        self.trouble = ""

    @property
    def connection(self) -> Wire | None:
        """The connection, while it stands."""
        return self._connection

    @property
    def is_up(self) -> bool:
        """Whether a connection stands."""
        return self._up.is_set()

    @property
    def calls_open(self) -> int:
        """How many calls wait for a reply."""
        return len(self._open)

    @property
    def oldest_call_s(self) -> float:
        """How long the oldest of them waits."""
        return time.monotonic() - self._open[0][1] if self._open else 0.0

    async def wait_up(self, timeout_s: float) -> bool:
        """Wait for a connection; False when none came in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        except TimeoutError:
            return False
        return True

    def call(self, *command: Argument) -> Awaitable[Any]:
        """Send one command and return what waits for its reply: bytes, int, None or a list of them.

        Raises:
            StoreUnavailable: `outcome` is `not_written` or `unknown`.
            ResponseError: the server refused the command itself.
        """
        connection = self._connection
        return self._call_later(command) if connection is None else self.begin(connection, *command)

    def send_late(self, late: Late) -> bool:
        """Send a command with the others of this turn, to be settled as it leaves; False without a connection."""
        connection = self._connection
        if connection is None:
            return False
        connection.send(lambda: pack(late.seal()))
        self._open.append((late, time.monotonic()))
        return True

    def flush(self) -> None:
        """Send now what waits for the end of the turn."""
        if self._connection is not None:
            self._connection.flush()

    async def _call_later(self, command: tuple[Argument, ...]) -> Any:
        return await self.begin(await self._connected(), *command)

    async def call_many(self, commands: list[tuple[Argument, ...]]) -> list[Any]:
        """Send several commands in one write and return their replies in order; the first error is raised."""
        if not commands:
            return []
        connection = await self._connected()
        replies = await asyncio.gather(*(self.begin(connection, *c) for c in commands), return_exceptions=True)
        for reply in replies:
            if isinstance(reply, BaseException):
                raise reply
        return list(replies)

    async def _connected(self) -> Wire:
        connection = self._connection
        if connection is None:
            await self.wait_up(self._patience_s)
            connection = self._connection
            if connection is None:
                raise not_connected()
        return connection

    def begin(self, connection: Wire, *command: Argument) -> asyncio.Future[Any]:
        """Queue one command for the next write and return the future of its reply."""
        reply: asyncio.Future[Any] = connection.loop.create_future()
        connection.send(pack(command))
        self._open.append((reply, time.monotonic()))
        return reply

    async def call_importing(self, *command: Argument) -> Any:
        """Send a command for keys that move here from another node of a cluster.

        Raises:
            StoreUnavailable, ResponseError: as `call`.
        """
        connection = await self._connected()
        # The server remembers the first for the second only: nothing may come between.
        permission = self.begin(connection, "ASKING")
        reply = self.begin(connection, *command)
        await asyncio.wait([permission])
        permission.exception()
        return await reply

    async def run(self) -> None:
        """Connect, serve calls, and connect again when that ends; for ever."""
        failures = 0
        while True:
            try:
                async with asyncio.timeout(self._timeout_s):
                    connection = await open_store(self._url, self._name)
                self.connects += 1
                failures = 0
                await self._serve(connection)
            except (ResponseError, OSError, TimeoutError) as error:
                self.trouble = f"{type(error).__name__}: {error}"
                logger.debug("store connection %s: %s", self._name, error)
            await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
            failures += 1

    async def _serve(self, connection: Wire) -> None:
        connection.take = self._take
        self._connection = connection
        self._connected_at_s = time.monotonic()
        self.trouble = ""
        self._up.set()
        watching = asyncio.create_task(self._watch(connection))
        try:
            await asyncio.wait([watching, connection.lost], return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
            self._connection = None
            self._up.clear()
            connection.close()
            self._fail_open_calls(connection)
            await asyncio.wait([watching])

    def _take(self, reply: Any) -> None:
        if not self._open:
            raise ProtocolBroken("a reply that nobody asked for")
        future, _ = self._open.popleft()
        if future.done():
            return
        if isinstance(reply, ResponseError):
            future.set_exception(translate(reply))
            if str(reply).startswith("READONLY"):
                self._leave_replica()
        else:
            future.set_result(reply)

    async def check_primary(self, _key: str = "") -> None:
        """Make sure that a primary answers: a replica may lack what its primary has.

        Raises:
            StoreUnavailable: a replica answered, or nobody.
        """
        try:
            reply = await self.call("HELLO")
        except ResponseError:
            # Something between that does not know the question; it cannot be told apart.
            return
        if _is_replica(reply):
            self._leave_replica()
            raise StoreUnavailable("A replica answers in the store's place.", outcome="not_written")

    def _leave_replica(self) -> None:
        """End a connection to a server that was the primary once."""
        if self._connection is not None and time.monotonic() - self._connected_at_s > SETTLED_S:
            logger.warning("the store has become a replica; connecting anew")
            self._connection.close()

    def _take_role(self, reply: asyncio.Future[Any]) -> None:
        if not reply.cancelled() and reply.exception() is None and _is_replica(reply.result()):
            self._leave_replica()

    async def _watch(self, connection: Wire) -> None:
        """Return once a call has waited too long; who only reads does not learn by the way that it reads a replica."""
        while True:
            self.begin(connection, "HELLO").add_done_callback(self._take_role)
            await asyncio.sleep(self._timeout_s / 5)
            if self._open and time.monotonic() - self._open[0][1] > self._timeout_s:
                logger.debug("store connection %s: no reply for %g s", self._name, self._timeout_s)
                return

    def _fail_open_calls(self, connection: Wire) -> None:
        """Tell whoever waits for a reply that none will come; what had not left yet is not written."""
        unwritten = len(connection.take_unsent())
        while self._open:
            outcome = "not_written" if len(self._open) <= unwritten else "unknown"
            future, _ = self._open.popleft()
            if not future.done():
                telemetry.STORE_ERRORS.labels(outcome).inc()
                future.set_exception(StoreUnavailable("The store's connection was lost.", outcome=outcome))


def not_connected() -> StoreUnavailable:
    """Return, and count, what whoever asks is told while no connection stands."""
    telemetry.STORE_ERRORS.labels("not_written").inc()
    return StoreUnavailable("The store cannot be reached.", outcome="not_written")


def _is_replica(hello: Any) -> bool:
    """Tell what a server says of itself, in pairs of a name and a value."""
    return isinstance(hello, list) and dict(zip(hello[::2], hello[1::2], strict=True)).get(b"role") == b"replica"
