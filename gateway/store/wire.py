"""One connection that speaks RESP2: commands as bytes out, replies in order in, and nothing between them.

redis-py's connection costs several microseconds a reply in coroutines; this one is called by the event loop with
what the parser made of the bytes. URLs and TLS are redis-py's.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Final, cast

import hiredis
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection, parse_url
from redis.exceptions import ResponseError

Argument = str | bytes | int | float

Packed = bytes | Callable[[], bytes]
"""A command as it goes over the wire, or what is asked for it when it leaves."""

CONNECT_S: Final = 2.0
HANDSHAKE: Final = "store handshake"

pack: Final = cast(Callable[[tuple[Argument, ...]], bytes], hiredis.pack_command)
"""Return a command as it goes over the wire."""


class ProtocolBroken(ConnectionError):
    """What came is no RESP, or was not asked for; nothing on this connection can be trusted any more."""


class Wire(asyncio.Protocol):
    """A connection whose owner takes each reply, an error of the server among them, as it comes.

    It has no timeout: one that is merely idle is no dead one, and whoever owns it watches over it.
    """

    def __init__(self) -> None:
        self._parser = hiredis.Reader(protocolError=ProtocolBroken, replyError=ResponseError)
        self._transport: asyncio.Transport | None = None
        self._unsent: list[Packed] = []
        self._paused = False
        self._flushing = False
        # Asked once: who asks for the running loop asks the system for the process's id.
        self.loop: Final = asyncio.get_running_loop()
        self.take: Callable[[Any], None] = _refuse
        self.lost: asyncio.Future[None] = self.loop.create_future()

    def send(self, packed: Packed) -> None:
        """Send a command together with all others of this turn of the event loop: they share a round trip."""
        self._unsent.append(packed)
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send what waits for the end of the turn now."""
        self._flushing = False
        if self._unsent and not self._paused and self._transport is not None:
            self._transport.write(b"".join([part if isinstance(part, bytes) else part() for part in self._unsent]))
            self._unsent.clear()

    def take_unsent(self) -> list[Packed]:
        """Return the commands that have not left, and forget them."""
        unsent, self._unsent = self._unsent, []
        return unsent

    async def ask(self, *command: Argument) -> Any:
        """Send one command and return its reply, while nobody owns the connection yet.

        Raises:
            ResponseError: the server refused it.
        """
        reply: asyncio.Future[Any] = self.loop.create_future()
        self.take = reply.set_result
        self.send(pack(command))
        await asyncio.wait([reply, self.lost], return_when=asyncio.FIRST_COMPLETED)
        self.take = _refuse
        if not reply.done():
            raise ProtocolBroken("the connection was lost")
        if isinstance(reply.result(), ResponseError):
            raise reply.result()
        return reply.result()

    def close(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            # Not from within its own call: over TLS it would go on with what is gone.
            asyncio.get_running_loop().call_soon(self._transport.abort)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Hand over every reply that is whole now."""
        try:
            self._parser.feed(data)
            while (reply := self._parser.gets()) is not False:
                self.take(reply)
        except ProtocolBroken as error:
            self._end(error)
            self.close()

    def pause_writing(self) -> None:
        """Keep what is sent from now on: the server does not read."""
        self._paused = True

    def resume_writing(self) -> None:
        """Go on."""
        self._paused = False
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing comes any more."""
        self._transport = None
        self._end(exc or ProtocolBroken("the store closed the connection"))

    def _end(self, error: Exception) -> None:
        if not self.lost.done():
            self.lost.set_exception(error)
            # Whoever does not wait for it need not know.
            self.lost.exception()


def _refuse(_reply: Any) -> None:
    raise ProtocolBroken("a reply that nobody asked for")


async def open_wire(url: str, name: str) -> Wire:
    """Return a connection that is authenticated, in its database, and known to the server by `name`.

    Args:
        url: `redis://`, `rediss://` or `unix://`, with the options that redis-py takes for these.

    Raises:
        OSError, TimeoutError: nobody answers there.
        ResponseError: the server does not take the credentials, or the database.
    """
    options: dict[str, Any] = dict(parse_url(url))
    async with asyncio.timeout(CONNECT_S):
        wire = await _connect(options)
        try:
            if options.get("password"):
                user = [options["username"]] if options.get("username") else []
                await wire.ask("AUTH", *user, options["password"])
            await wire.ask("CLIENT", "SETNAME", name)
            if options.get("db"):
                await wire.ask("SELECT", options["db"])
        except BaseException:
            wire.close()
            raise
    return wire


async def _connect(options: dict[str, Any]) -> Wire:
    loop = asyncio.get_running_loop()
    kind = options.pop("connection_class", Connection)
    if issubclass(kind, UnixDomainSocketConnection):
        _, wire = await loop.create_unix_connection(Wire, options["path"])
        return wire
    host, port = options.get("host", "localhost"), options.get("port", 6379)
    if issubclass(kind, SSLConnection):
        return await _connect_securely(host, port, kind(**options).ssl_context.get())
    _, wire = await loop.create_connection(Wire, host, port)
    return wire


async def _connect_securely(host: str, port: int, context: ssl.SSLContext) -> Wire:
    # uvloop does not stand to be told to stop within a handshake: one that nobody waits for any more comes to its end.
    connecting = asyncio.create_task(_shake_hands(host, port, context), name=HANDSHAKE)
    try:
        return await asyncio.shield(connecting)
    except asyncio.CancelledError:
        connecting.add_done_callback(_drop)
        raise


async def _shake_hands(host: str, port: int, context: ssl.SSLContext) -> Wire:
    async with asyncio.timeout(2 * CONNECT_S):
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_connection(Wire, host, port, ssl=context, ssl_handshake_timeout=CONNECT_S)
        return wire


def _drop(connecting: asyncio.Task[Wire]) -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().close()
