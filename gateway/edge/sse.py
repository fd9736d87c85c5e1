"""The SSE response: headers at once, then whatever pushes through the connection, until either side ends it.

sse-starlette's response runs three tasks a connection. Here the gateway's own server leaves the connection to whoever
has events, and the request is over; with any other server its one task waits for the disconnect, and whoever has
events steps `send`. Headers and media type are sse-starlette's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from sse_starlette import EventSourceResponse
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.edge.frames import Message, body_of
from gateway.edge.server import drop
from gateway.errors import GatewayError

HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",
}


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


# Whether the connection is kept is the server's to say.
_RAW_HEADERS: Final = tuple(
    field for field in EventSourceResponse(_nothing(), headers=HEADERS, ping=0).raw_headers if field[0] != b"connection"
)


class Line(NamedTuple):
    """A connection to push through.

    `write` takes a message's `wire` at once, or returns False; None where the server has no such way.
    `unsent` tells how many bytes the peer has yet to take, `peer` its address.
    """

    send: Callable[[Message], Awaitable[None]]
    write: Callable[[bytes], bool] | None
    hang_up: Callable[[], None]
    unsent: Callable[[], int] = int
    peer: Callable[[], str | None] = lambda: None


Connect = Callable[[Line], Callable[[], None]]
"""Takes a connection, starts pushing, and returns what to call when it is gone."""


class EventStream(Response):
    """An SSE response that is pushed to.

    Args:
        connect: Called once the headers are out.
        enter: Waits, before them, until the stream may begin; the connection is dropped where it raises an error
            of ours.
        refuse: Called instead of `connect` then.
    """

    def __init__(
        self,
        connect: Connect,
        enter: Callable[[], Awaitable[None]] | None = None,
        refuse: Callable[[], None] = lambda: None,
    ) -> None:
        # Made once: what a response computes of its headers is most of what opening a stream would cost here.
        self.status_code = 200
        self.background = None
        self.body = b""
        self.raw_headers = list(_RAW_HEADERS)
        self.connect = connect
        self._enter = enter
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and return when the connection is gone or the response complete."""
        if not await self.enter():
            await drop(scope, receive)
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] == "HEAD":
            self.forsake()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        extensions = scope.get("extensions", {})
        take_over = extensions.get("gateway.take_over", _keep)
        stream = take_over(scope)
        if stream is not None:
            stream.watch(self.connect(Line(stream.send, stream.write, stream.drop, stream.unsent, stream.peer)))
        else:
            await self._stay(extensions.get("gateway.drop"), receive, extensions.get("gateway.send", send))

    async def enter(self) -> bool:
        """Wait until the stream may begin; False where it may not, and the connection is to be dropped."""
        if self._enter is not None:
            try:
                await self._enter()
            except GatewayError:
                self._refuse()
                return False
            except BaseException:
                self._refuse()
                raise
        return True

    def forsake(self) -> None:
        """Begin and end a stream that nobody reads."""
        self.connect(Line(_discard, None, _nobody))()

    async def _stay(self, hang_up: Callable[[], None] | None, receive: Receive, send: Send) -> None:
        """Have this task wait for the connection's end; without a way to hang up, returning early is one."""
        # A server that finds an answer incomplete cuts it.
        with suppress(TimeoutError):
            async with asyncio.timeout(None) as patience:
                leave = self.connect(Line(_through(send), None, hang_up or (lambda: patience.reschedule(0.0))))
                try:
                    while (await receive())["type"] != "http.disconnect":
                        pass
                finally:
                    leave()


def _through(send: Send) -> Callable[[Message], Awaitable[None]]:
    """Return an ASGI `send` that takes what `frames` makes."""
    return lambda message: send(body_of(message))


def _keep(_scope: Scope) -> Any:
    """Leave the connection to a server that does not give it away."""


async def _discard(_message: dict[str, Any]) -> None:
    """Take what a request for headers only does not want."""


def _nobody() -> None:
    """Hang up on nobody."""


class Dropped(Response):
    """The answer that is none: the connection ends before it. A browser tries again after that, not after a 503."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """End the connection."""
        await drop(scope, receive)
