"""One connection's way out: readers push through it, and a slow one catches up by itself.

An ASGI `send` whose transport takes the bytes finishes without suspending: it is stepped here, in whatever task
pushes, and costs no task switch. One that suspends makes the outlet busy: a task of its own finishes the send, then
brings every reader of the connection to its log's head. While it is busy nobody else writes to it, so that frames
stay in order and at most one chunk is held for a connection that does not read.
"""

from __future__ import annotations

import asyncio
import logging
import time
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from typing import TYPE_CHECKING, Any

from gateway import telemetry
from gateway.errors import GatewayError

if TYPE_CHECKING:
    from gateway.hub.reader import Reader

logger = logging.getLogger(__name__)

Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]
Spawn = Callable[[Coroutine[Any, Any, None]], None]


@types.coroutine
def _resume(coro: Any, waits_for: Any) -> Generator[Any, Any, None]:
    """Finish, inside a task, a coroutine that was stepped once outside of one and waits for `waits_for`."""
    while True:
        try:
            value = yield waits_for
        except BaseException as error:
            step, argument = coro.throw, error
        else:
            step, argument = coro.send, value
        try:
            waits_for = step(argument)
        except StopIteration:
            return


class Outlet:
    """The sending side of one connection.

    Args:
        send: The connection's ASGI `send`.
        hang_up: Ends the connection without a clean end of the response.
        ping: The keep-alive messages.
        finish: The messages that end the connection cleanly when the last reader ended; empty keeps it open.
        farewell: The messages that say why the connection is about to be hung up.
        grant: Whatever the access rules need to know of who listens; the hub does not look into it.
    """

    def __init__(
        self,
        send: Send,
        spawn: Spawn,
        *,
        hang_up: Callable[[], None],
        transport: str,
        ping: Sequence[Message] = (),
        finish: Sequence[Message] = (),
        farewell: Callable[[str], Sequence[Message]] = lambda _reason: (),
        grant: Any = None,
    ) -> None:
        self._send = send
        self._spawn = spawn
        self._hang_up = hang_up
        self._finish = finish
        self._postponed: list[Message] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self.ping = ping
        self.farewell = farewell
        self.transport = transport
        self.grant = grant
        self.readers: list[Reader] = []
        self.busy = False
        self.closed = False
        self.sent_s = time.monotonic()

    def add(self, reader: Reader) -> None:
        """Bring the reader to its log's head and keep it there."""
        if not self.closed:
            self.readers.append(reader)
            reader.attach()
            self.wake()

    def remove(self, reader: Reader) -> None:
        """Drop a reader; its channel no longer pushes to it."""
        reader.detach()
        if reader in self.readers:
            self.readers.remove(reader)

    def offer(self, messages: Sequence[Message]) -> None:
        """Send now what the transport takes now, the rest from a task; only while not busy."""
        if self.closed:
            return
        self.sent_s = time.monotonic()
        for index, message in enumerate(messages):
            coro: Any = self._send(message)
            try:
                waits_for = coro.send(None)
            except StopIteration:
                continue
            except Exception as error:
                self._lose(error)
                return
            self._occupy(self._finish_sending(coro, waits_for, messages[index + 1 :]))
            return

    def say(self, messages: Sequence[Message]) -> None:
        """Send messages that belong to no reader, in order with everything else."""
        if self.busy:
            self._postponed.extend(messages)
        else:
            self.offer(messages)

    def wake(self) -> None:
        """Have readers that are behind caught up, unless that is under way."""
        if not self.busy and not self.closed:
            self._occupy(self._catch_up())

    async def drained(self) -> None:
        """Wait until the connection took everything that was said; for who must not say more before."""
        await self._idle.wait()

    def close(self, farewell: Sequence[Message] = (), *, hang_up: bool = False) -> None:
        """Stop sending. A farewell reaches only a connection that takes it at once; hanging up reaches any."""
        if self.closed:
            return
        if farewell and not self.busy:
            self.offer(farewell)
        self.closed = True
        self._idle.set()
        for reader in self.readers:
            reader.detach()
        self.readers.clear()
        if hang_up:
            self._hang_up()

    def _occupy(self, work: Coroutine[Any, Any, None]) -> None:
        self.busy = True
        self._idle.clear()
        self._spawn(work)

    def _lose(self, error: Exception) -> None:
        logger.debug("connection lost while sending: %r", error)
        self.close()

    async def _finish_sending(self, coro: Any, waits_for: Any, rest: Sequence[Message]) -> None:
        telemetry.READERS_LAGGING.inc()
        try:
            await _resume(coro, waits_for)
            await self._send_all(rest)
        except Exception as error:
            self._lose(error)
            return
        finally:
            telemetry.READERS_LAGGING.dec()
        await self._catch_up()

    async def _catch_up(self) -> None:
        """Bring every reader to its head; busy ends in the same step in which all of them are there."""
        try:
            while not self.closed:
                messages, self._postponed = self._postponed, []
                await self._send_all(messages)
                behind = [reader for reader in self.readers if not reader.settled]
                if not behind and not self._postponed:
                    self.busy = False
                    self._idle.set()
                    return
                for reader in behind:
                    await self._send_all(await reader.next_messages())
                    if reader.at_end:
                        self._end(reader)
        except GatewayError as error:
            logger.info("stream closed: %s", error.detail)
            self.close(hang_up=True)
        except Exception as error:
            self._lose(error)

    def _end(self, reader: Reader) -> None:
        self.remove(reader)
        self._postponed.extend(reader.end_messages())
        if self._finish and not self.readers:
            self._postponed.extend(self._finish)

    async def _send_all(self, messages: Sequence[Message]) -> None:
        if messages:
            self.sent_s = time.monotonic()
        for message in messages:
            if self.closed:
                return
            await self._send(message)
