"""Answers to HTTP/1.0: what has no length ends with its connection, for nothing may come in chunks there."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class UnframedCycle(RequestResponseCycle):
    """A request of HTTP/1.0 and its answer; uvicorn's own would send chunks, with their sizes, to a client that takes
    them for the body (RFC 9112, section 6.1)."""

    async def send(self, message: Any) -> None:
        """Send a part of the answer. ASGI's `send`."""
        if not self.response_started:
            # Neither chunks nor a length to count down from.
            self.chunked_encoding = False
            return await super().send(message)
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected or self.response_complete:
            return None
        if self.scope["method"] != "HEAD":
            self.transport.write(message.get("body", b""))
        if not message.get("more_body", False):
            self.response_complete = True
            self.message_event.set()
            self.transport.close()
            self.on_response()
        return None
