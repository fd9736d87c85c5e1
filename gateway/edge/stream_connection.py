"""What is left of a connection whose answer has begun and only streams: a transport, and whether it takes more.

The server keeps a task, a request, its headers and a parser for every answer that goes on: several KiB that a stream
to which others push has no use for. `HttpProtocol.take_over` puts this protocol in their place; when the stream has
ended cleanly, the connection goes back to HTTP for the next request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from gateway.edge.peers import peer_of

FLUSH_S: Final = 5.0
SHUTDOWN_FLUSH_S: Final = 0.5
EARLY_BYTES: Final = 16 * 1024
"""What a client may send behind its request while that is answered: more of it ends the connection."""

LAST_CHUNK: Final = b"0\r\n\r\n"

Registry = set[Any]
GoBack = Callable[[asyncio.Transport, bytes], None]


class StreamConnection(asyncio.Protocol):
    """One streamed answer, chunks written straight to its transport.

    `taking` is true while a write is worth trying: the transport is below its high-water mark, and nothing has ended.

    Args:
        registry: The server's connections, which it shuts down and waits for.
        go_back: Lets HTTP have the transport again, and what the client sent meanwhile; None closes it instead.
    """

    __slots__ = (
        "_aborting",
        "_early",
        "_ended",
        "_go_back",
        "_head",
        "_on_gone",
        "_registry",
        "_transport",
        "_waiting",
        "taking",
    )

    def __init__(self, transport: asyncio.Transport, registry: Registry, go_back: GoBack | None) -> None:
        self._transport = transport
        self._registry = registry
        self._go_back = go_back
        self._on_gone: Callable[[], None] | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._aborting: asyncio.TimerHandle | None = None
        self._early = self._head = b""
        self._ended = False
        self.taking = True
        registry.add(self)
        transport.set_protocol(self)
        # HTTP stops reading behind a body; a client that leaves would not be seen.
        transport.resume_reading()

    def watch(self, on_gone: Callable[[], None]) -> None:
        """Have `on_gone` called once, soon after nothing can be sent any more."""
        if self._ended:
            asyncio.get_running_loop().call_soon(on_gone)
        else:
            self._on_gone = on_gone

    def write(self, wire: bytes) -> bool:
        """Write a whole chunk, framed already; False, with nothing written, while the transport takes no more."""
        if not self.taking:
            return bool(self._head) and self._begin_with(wire)
        self._transport.write(wire)
        return True

    def owe(self, head: bytes) -> None:
        """Have `head` written with the first chunk, or by `begin`, whichever comes first; both in the present step."""
        if self.taking:
            self._head, self.taking = head, False
        else:
            self._transport.write(head)

    def begin(self) -> None:
        """Write the head, where it is owed."""
        if self._head:
            self._begin_with(b"")

    def _begin_with(self, wire: bytes) -> bool:
        head, self._head = self._head, b""
        self.taking = True
        self._transport.write(head + wire)
        return True

    def unsent(self) -> int:
        """Return how many bytes were written that the peer has not taken."""
        return self._transport.get_write_buffer_size()

    def peer(self) -> str | None:
        """Return the address of the other end; None on a socket that is a file."""
        return peer_of(self._transport)

    async def send(self, message: Any) -> None:
        """Write a message once the transport takes it: `{"wire": chunk}`, or the end of the body. ASGI's `send`."""
        self.begin()
        while not self.taking and not self._ended:
            if self._waiting is None:
                self._waiting = asyncio.get_running_loop().create_future()
            # Shielded: of several who wait, one may be cancelled.
            await asyncio.shield(self._waiting)
        if self._ended:
            return
        if "wire" in message:
            self._transport.write(message["wire"])
        else:
            self._finish()

    def drop(self, flush_s: float = FLUSH_S) -> None:
        """End the connection without ending its answer, once the peer has what was written, or `flush_s` passed."""
        if not self._transport.is_closing():
            self.begin()
            self._aborting = asyncio.get_running_loop().call_later(flush_s, self._transport.abort)
            self._end()
            self._transport.close()

    def _finish(self) -> None:
        self._transport.write(LAST_CHUNK)
        self._end()
        if self._go_back is None:
            self._transport.close()
        elif not self._transport.is_closing():
            self._registry.discard(self)
            self._go_back(self._transport, self._early)

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._resume(taking=False)
        if self._on_gone is not None:
            # Soon: whoever sends is not to be told in the middle of that.
            asyncio.get_running_loop().call_soon(self._on_gone)
            self._on_gone = None

    def _resume(self, *, taking: bool) -> None:
        self.taking = taking
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
        self._waiting = None

    def data_received(self, data: bytes) -> None:
        """Keep what comes behind the request for when its answer is complete."""
        self._early += data
        if len(self._early) > EARLY_BYTES:
            self._early = b""
            self.drop()

    def pause_writing(self) -> None:
        """Take nothing more: the peer reads more slowly than it is written to."""
        self.taking = False

    def resume_writing(self) -> None:
        """Take more again."""
        if not self._ended:
            self._resume(taking=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer is gone, or everything that it was owed has been sent."""
        if self._aborting is not None:
            self._aborting.cancel()
        self._registry.discard(self)
        self._go_back = None
        self._end()

    def shutdown(self) -> None:
        """End for a server that is about to stop: whoever streams had been told before."""
        self.drop(SHUTDOWN_FLUSH_S)
