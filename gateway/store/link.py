"""One pipelined connection to the store: calls share round trips, and a failed call says what is known of it.

Calls made while a write is under way go out together in the next one (group commit).
Replies come in order, so the oldest open call gets the next reply.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import Any

from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from gateway.errors import StoreUnavailable

logger = logging.getLogger(__name__)

Argument = str | bytes | int | float

# The server answered, and did not do it: another moment, or another node, may. redis-py takes the code off the
# text of those errors that have a class of their own.
_REFUSALS = (BusyLoadingError, ClusterDownError, OutOfMemoryError, ReadOnlyError, TryAgainError)
_REFUSAL_CODES = ("MISCONF", "NOREPLICAS", "BUSY")

BACKOFF_S = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0)


def make_connection(url: str, name: str) -> AbstractConnection:
    """Return an unconnected RESP2 connection without retries of its own: a resend is the caller's decision.

    It has no timeouts either, but while connecting: redis-py's would end a connection that is merely idle, and the
    one around its writes can swallow a cancellation. Whoever owns the connection watches over it.
    """
    options: dict[str, Any] = dict(parse_url(url))
    kind = options.pop("connection_class", Connection)
    options |= {"protocol": 2, "client_name": name, "retry": Retry(NoBackoff(), 0)}
    options |= {"socket_timeout": None, "socket_connect_timeout": 2.0}
    connection: AbstractConnection = kind(**options)
    return connection


class _Call:
    __slots__ = ("packed", "reply", "since")

    def __init__(self, packed: bytes, reply: asyncio.Future[Any], since: float) -> None:
        self.packed = packed
        self.reply = reply
        self.since = since


class Link:
    """A connection that owns its reconnection; `call` is safe from any number of tasks.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
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
        self._connection: AbstractConnection | None = None
        self._up = asyncio.Event()
        self._unsent: deque[_Call] = deque()
        self._open: deque[_Call] = deque()
        self._wake = asyncio.Event()
        self.connects = 0

    @property
    def is_up(self) -> bool:
        """Whether a connection stands."""
        return self._up.is_set()

    async def wait_up(self, timeout_s: float) -> bool:
        """Wait for a connection; False when none came in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        except TimeoutError:
            return False
        return True

    async def call(self, *command: Argument) -> Any:
        """Send one command and return its reply: bytes, int, None or a list of them.

        Raises:
            StoreUnavailable: `outcome` is `not_written` or `unknown`.
            ResponseError: the server refused the command itself.
        """
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

    async def _connected(self) -> AbstractConnection:
        connection = self._connection
        if connection is None:
            await self.wait_up(self._patience_s)
            connection = self._connection
            if connection is None:
                raise StoreUnavailable("The store cannot be reached.", outcome="not_written")
        return connection

    def begin(self, connection: AbstractConnection, *command: Argument) -> asyncio.Future[Any]:
        """Queue one command for the next write and return the future of its reply."""
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._unsent.append(_Call(b"".join(connection.pack_command(*command)), reply, time.monotonic()))
        self._wake.set()
        return reply

    async def run(self) -> None:
        """Connect, serve calls, and connect again when that ends; for ever."""
        failures = 0
        while True:
            connection = make_connection(self._url, self._name)
            try:
                async with asyncio.timeout(self._timeout_s):
                    await connection.connect()  # type: ignore[no-untyped-call]
                self.connects += 1
                failures = 0
                await self._serve(connection)
            except (RedisError, OSError, TimeoutError, EOFError) as error:
                logger.debug("store connection %s: %s", self._name, error)
            finally:
                self._connection = None
                self._up.clear()
                self._fail_open_calls()
                await connection.disconnect(nowait=True)
            await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
            failures += 1

    async def _serve(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self._up.set()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write(connection))
                tasks.create_task(self._read(connection))
                tasks.create_task(self._watch())
        except* (RedisError, OSError, TimeoutError, EOFError) as group:
            raise ConnectionError(str(group.exceptions[0])) from group

    async def _write(self, connection: AbstractConnection) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            calls = list(self._unsent)
            self._unsent.clear()
            self._open.extend(calls)
            await connection.send_packed_command([b"".join([call.packed for call in calls])], check_health=False)

    async def _read(self, connection: AbstractConnection) -> None:
        while True:
            try:
                reply = await connection.read_response(disable_decoding=True, timeout=None, disconnect_on_error=False)
            except (ResponseError, BusyLoadingError) as error:
                reply = error
            if not self._open:
                raise ConnectionError("a reply that nobody asked for")
            call = self._open.popleft()
            if call.reply.done():
                continue
            if isinstance(reply, Exception):
                call.reply.set_exception(_translate(reply))
            else:
                call.reply.set_result(reply)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._timeout_s / 5)
            if self._open and time.monotonic() - self._open[0].since > self._timeout_s:
                raise TimeoutError(f"no reply for {self._timeout_s:g} s")

    def _fail_open_calls(self) -> None:
        for calls, outcome in ((self._open, "unknown"), (self._unsent, "not_written")):
            while calls:
                reply = calls.popleft().reply
                if not reply.done():
                    reply.set_exception(StoreUnavailable("The store's connection was lost.", outcome=outcome))
        self._wake.clear()


def _translate(error: Exception) -> Exception:
    text = str(error)
    if isinstance(error, _REFUSALS) or text.startswith(_REFUSAL_CODES):
        return StoreUnavailable(f"The store does not take this now: {text}", outcome="not_written")
    return error
