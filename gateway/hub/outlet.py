"""One connection's way out: readers push through it, and a slow one catches up by itself.

A message that has its bytes as they go over the wire is written at once where the connection takes it. Any other goes
through ASGI's `send`: one whose transport takes the bytes finishes without suspending; it is stepped here, in whatever
task pushes, and costs no task switch. One that suspends makes the outlet busy: a task of its own finishes the send,
then brings every reader of the connection to its log's head. While it is busy nobody else writes to it, so that frames
stay in order and at most one chunk is held for a connection that does not read.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from gateway import telemetry, tracing
from gateway.errors import GatewayError
from gateway.hub.stepping import resume

if TYPE_CHECKING:
    from gateway.hub.reader import Reader

logger = logging.getLogger(__name__)

FAREWELL_S = 0.5
"""How long a connection that is busy may take until it has been told why it is closed."""

_SERIALS: Final = count(1)

Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]
Write = Callable[[bytes], bool]
Spawn = Callable[[Coroutine[Any, Any, None]], None]


def _none_unsent() -> int:
    """Know of nothing that waits."""
    return 0


def _unknown_peer() -> str | None:
    """Know nothing of who is there."""
    return None


def _take_nothing(_wire: bytes) -> bool:
    """Have everything sent the ASGI way."""
    return False


class Outlet:
    """The sending side of one connection.

    Args:
        send: The connection's ASGI `send`, which waits while the connection takes no more.
        write: Takes a message's `wire` at once, or returns False with nothing taken.
        unsent: How many bytes were written that the connection has not taken.
        peer: The address of who is there; None where it has none.
        hang_up: Ends the connection without a clean end of the response.
        ping: The keep-alive messages.
        finish: The messages that end the connection cleanly when the last reader ended; empty keeps it open.
        farewell: The messages that say why the connection is about to be hung up.
        on_leave: Told of each reader whose log has ended or is gone. A connection that has this outlives them; of
            any other, a reader whose log is gone is the end.
        grant: Whatever the access rules need to know of who listens; the hub does not look into it.
        linger_s: The least time between two pushes of events; a reader that was behind is not made to wait.
    """

    __slots__ = (
        "_drained",
        "_finish",
        "_finished",
        "_hang_up",
        "_leaving",
        "_on_leave",
        "_ping_due",
        "_postponed",
        "_send",
        "_spawn",
        "behind_since_s",
        "busy",
        "closed",
        "farewell",
        "grant",
        "linger_s",
        "opened_s",
        "origin",
        "parent_span",
        "passed",
        "peer",
        "ping",
        "readers",
        "sent_s",
        "serial",
        "transport",
        "unsent",
        "waits_for",
        "write",
    )

    def __init__(
        self,
        send: Send,
        spawn: Spawn,
        *,
        hang_up: Callable[[], None],
        transport: str,
        write: Write | None = None,
        unsent: Callable[[], int] = _none_unsent,
        peer: Callable[[], str | None] = _unknown_peer,
        ping: Sequence[Message] = (),
        finish: Sequence[Message] = (),
        farewell: Callable[[str], Sequence[Message]] = lambda _reason: (),
        on_leave: Callable[[Reader], None] | None = None,
        grant: Any = None,
        linger_s: float = 0.0,
    ) -> None:
        self._send = send
        self._spawn = spawn
        self._hang_up = hang_up
        self._finish = finish
        self._postponed: Sequence[Message] = ()
        self._on_leave = on_leave
        self._drained: asyncio.Event | None = None
        self.write = write or _take_nothing
        self.unsent = unsent
        self.peer = peer
        self.linger_s = linger_s
        self.ping = ping
        self.farewell = farewell
        self.transport = transport
        self.grant = grant
        self.readers: list[Reader] = []
        self.busy = False
        self.closed = False
        self.opened_s = self.sent_s = time.monotonic()
        # For those who watch over it: since when it is busy and with what, how many events it has passed on, and
        # what its request was called.
        self.behind_since_s = 0.0
        self.waits_for = "log"
        self.passed = 0
        self.origin = telemetry.origin()
        self.serial = next(_SERIALS)
        self.parent_span = tracing.subject.get() or tracing.current.get()
        self._ping_due = False
        self._leaving: str | None = None
        self._finished = False

    def add(self, *readers: Reader) -> None:
        """Bring readers to their logs' heads and keep them there."""
        for reader in readers:
            if not self.closed:
                self.readers.append(reader)
                reader.attach()
        for reader in readers:
            if reader.attached and reader.channel.gone:
                self.lose_log(reader)
        self.wake()

    def remove(self, reader: Reader) -> None:
        """Drop a reader; its channel no longer pushes to it."""
        reader.detach()
        if reader in self.readers:
            self.readers.remove(reader)

    def offer(self, messages: Sequence[Message]) -> None:
        """Send now what the transport takes now, the rest from a task; only while not busy."""
        if self.closed or not messages:
            return
        self.sent_s = time.monotonic()
        try:
            if self._write_all(messages):
                return
        except Exception as error:
            self._lose(error)
            return
        for index, message in enumerate(messages):
            try:
                coro: Any = self._send(message)
                waits_for = coro.send(None)
            except StopIteration:
                continue
            except Exception as error:
                self._lose(error)
                return
            self._occupy(self._finish_sending(coro, waits_for, messages[index + 1 :]))
            return

    def _write_all(self, messages: Sequence[Message]) -> bool:
        """Write messages in one go, if all of them are bytes and the connection takes them."""
        wires = [message["wire"] for message in messages if "wire" in message]
        if len(wires) < len(messages):
            return False
        return not wires or self.write(wires[0] if len(wires) == 1 else b"".join(wires))

    def say(self, messages: Sequence[Message]) -> None:
        """Send messages that belong to no reader, in order with everything else."""
        if self.busy and not self.closed:
            self._postpone(messages)
        else:
            self.offer(messages)

    def wake(self) -> None:
        """Have readers that are behind caught up, unless that is under way."""
        if self.busy or self.closed:
            return
        try:
            done = self._catch_up_at_once()
        except Exception:
            logger.exception("a stream failed")
            self.close(hang_up=True)
        else:
            if not done:
                self._occupy(self._catch_up())

    def _catch_up_at_once(self) -> bool:
        """Send what the only reader that is behind lacks, if it is at hand; False when that is not all there is to do.

        Of several each has its turn, what is to be said of all before what is next in each.
        """
        behind = [reader for reader in self.readers if not reader.settled]
        if self._leaving is not None or len(behind) > 1:
            return False
        if not behind:
            return True
        self.offer(behind[0].next_at_once())
        # Whoever made it busy goes on from here.
        return self.busy or self.closed or behind[0].settled

    def keep_alive(self, quiet_since_s: float) -> None:
        """Send a sign of life if nothing was sent since then; once what is under way allows."""
        if self.sent_s <= quiet_since_s:
            self._ping_due = self.busy
            if not self.busy:
                self.offer(self.ping)

    def dismiss(self, reason: str) -> None:
        """Say why, then hang up. A connection that takes nothing is hung up unsaid after `FAREWELL_S`."""
        if self._leaving is None and not self.closed:
            self._leaving = reason
            self.wake()
            asyncio.get_running_loop().call_later(FAREWELL_S, self._leave_at_once, reason)

    async def drained(self) -> None:
        """Wait until nothing that was said waits behind the readers; for who must not say more before."""
        if self._drained is not None:
            await self._drained.wait()

    def close(self, farewell: Sequence[Message] = (), *, hang_up: bool = False) -> None:
        """Stop sending. A farewell reaches only a connection that takes it at once; hanging up reaches any."""
        if self.closed:
            return
        if farewell and not self.busy:
            self.offer(farewell)
        self.closed = True
        self._set_drained()
        for reader in self.readers:
            reader.detach()
        self.readers.clear()
        if hang_up:
            self._hang_up()

    def lose_log(self, reader: Reader) -> None:
        """Send a reader away whose log does not exist any more."""
        if self._on_leave is None:
            self.dismiss("run_gone")
        else:
            self.remove(reader)
            self.say(reader.encoder.control("stream.closed", {"reason": "run_gone", "resume_after": None}))
            self._on_leave(reader)

    @property
    def cause(self) -> str:
        """Why it is closed: all logs have ended, what it was dismissed for, or that its client has gone."""
        return "end" if self._finished else self._leaving or "gone"

    def _occupy(self, work: Coroutine[Any, Any, None]) -> None:
        self.busy = True
        self.behind_since_s = time.monotonic()
        self._spawn(work)

    def _lose(self, error: Exception) -> None:
        logger.debug("connection lost while sending: %r", error)
        self.close(hang_up=True)

    async def _finish_sending(self, coro: Any, waits_for: Any, rest: Sequence[Message]) -> None:
        telemetry.READERS_LAGGING.inc()
        self.waits_for = "connection"
        try:
            await resume(coro, waits_for)
        except Exception as error:
            self._lose(error)
        finally:
            telemetry.READERS_LAGGING.dec()
            self.waits_for = "log"
        await self._send_all(rest)
        await self._catch_up()

    async def _catch_up(self) -> None:
        """Bring every reader to its head; busy ends in the same step in which all of them are there."""
        try:
            while not self.closed:
                await self._send_postponed()
                if self._finished:
                    return self.close()
                if self._leaving is not None:
                    return await self._leave(self._leaving)
                behind = [reader for reader in self.readers if not reader.settled]
                if not behind:
                    self.busy = False
                    return None
                for reader in behind:
                    # Not after all readers: an answer would wait for as many chunks as there are.
                    await self._send_postponed()
                    await self._move_on(reader)
        except GatewayError as error:
            logger.info("stream closed: %s", error.detail)
            self.close(hang_up=True)
        except Exception:
            logger.exception("a stream failed")
            self.close(hang_up=True)

    def _leave_at_once(self, reason: str) -> None:
        if not self.closed:
            self.close(self.farewell(reason), hang_up=True)

    async def _leave(self, reason: str) -> None:
        """Say why the connection ends, after what would make its position wrong if it were left out."""
        for reader in list(self.readers):
            await self._send_all(reader.notes())
        await self._send_all(self.farewell(reason))
        self.close(hang_up=True)

    async def _move_on(self, reader: Reader) -> None:
        """Send a reader's next chunk, unless it was removed meanwhile: nothing follows what was said of that."""
        if reader not in self.readers:
            return
        messages = await reader.next_messages()
        if reader in self.readers:
            await self._send_all(messages)
        if reader in self.readers and reader.at_end:
            self._end(reader)

    def _end(self, reader: Reader) -> None:
        self.remove(reader)
        self._postpone(reader.end_messages())
        if self._finish and not self.readers:
            self._postpone(self._finish)
            self._finished = True
        if self._on_leave is not None:
            self._on_leave(reader)

    def _postpone(self, messages: Sequence[Message]) -> None:
        if messages:
            self._postponed = (*self._postponed, *messages)
            if self._drained is None:
                self._drained = asyncio.Event()

    async def _send_postponed(self) -> None:
        """Send what was said; in the step after it none of that is left."""
        while self._postponed and not self.closed:
            messages, self._postponed = self._postponed, ()
            await self._send_all(messages)
        if self._ping_due:
            self._ping_due = False
            await self._send_all(self.ping)
        self._set_drained()

    def _set_drained(self) -> None:
        if self._drained is not None:
            self._drained.set()
            self._drained = None

    async def _send_all(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if self.closed:
                return
            self.sent_s = time.monotonic()
            self.waits_for = "connection"
            try:
                await self._send(message)
            except Exception as error:
                self._lose(error)
            self.waits_for = "log"
