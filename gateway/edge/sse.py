"""The SSE response: headers at once, then whatever pushes through the connection, until either side ends it.

sse-starlette's response runs three tasks a connection; here the connection's one task waits for the disconnect, and
whoever has events steps `send` itself. Headers and media type are sse-starlette's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from sse_starlette import EventSourceResponse
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.edge.server import drop

HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",
}

Connect = Callable[[Callable[[dict[str, Any]], Awaitable[None]], Callable[[], None]], Callable[[], None]]
"""Takes the connection's `send` and its `hang_up`, starts pushing, and returns what to call when it is gone."""


class EventStream(EventSourceResponse):
    """An SSE response that is pushed to.

    Args:
        connect: Called once the headers are out.
    """

    def __init__(self, connect: Connect) -> None:
        super().__init__(_nothing(), headers=HEADERS, ping=0)
        self._connect = connect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and return when the connection is gone or the response complete."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] == "HEAD":
            self._connect(_discard, _nobody)()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        leave = self._connect(scope["extensions"].get("gateway.send", send), scope["extensions"]["gateway.drop"])
        try:
            while (await receive())["type"] != "http.disconnect":
                pass
        finally:
            leave()


async def _discard(_message: dict[str, Any]) -> None:
    """Take what a request for headers only does not want."""


def _nobody() -> None:
    """Hang up on nobody."""


class Dropped(Response):
    """The answer that is none: the connection ends before it. A browser tries again after that, not after a 503."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """End the connection."""
        await drop(scope, receive)


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
