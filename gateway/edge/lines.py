"""An NDJSON response whose lines leave while the request's body is still being read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from gateway.edge.server import drop
from gateway.errors import Draining

ANSWER_S: Final = 30.0


class LineResponse(Response):
    """Sends lines as they come; unlike Starlette's streaming response it leaves `receive` to the body's reader.

    Args:
        answer_s: How long a client may leave answers unread. One that sends all of its body before it reads any
            fills the buffers both ways, and then waits for a server that waits for it: its connection is dropped.
    """

    media_type = "application/x-ndjson"

    def __init__(self, lines: AsyncGenerator[bytes, None], *, answer_s: float = ANSWER_S) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._lines = lines
        self._answer_s = answer_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; a client that has left ends the lines by itself, a process that is about to stop cuts the answer."""
        try:
            async with aclosing(self._lines):
                await self._answer(send)
        except _Unread:
            await drop(scope, receive, flush_s=0)
        except Draining:
            await drop(scope, receive)

    async def _answer(self, send: Send) -> None:
        await self._send(send, {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for line in self._lines:
            await self._send(send, {"type": "http.response.body", "body": line, "more_body": True})
        await self._send(send, {"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send, message: Message) -> None:
        try:
            async with asyncio.timeout(self._answer_s):
                await send(message)
        except TimeoutError:
            raise _Unread from None


class _Unread(Exception):
    """The client does not take its answers."""
