"""Frames of SSE, as the messages that carry them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

Message = dict[str, Any]

_encode = msgspec.json.Encoder().encode

# No blank line after it: with one, some clients see an event that never was.
PING: Final = b": ping\n"
END: Final[Message] = {"type": "http.response.body", "body": b"", "more_body": False}


def sse_body(chunk: bytes) -> Message:
    """Return the message that carries one piece of an SSE response: its bytes as HTTP/1.1 chunks them.

    They are the same for every reader, and framed once; `body_of` gives the piece to a server that frames by itself.
    """
    return {"type": "gateway.wire", "wire": b"%x\r\n%b\r\n" % (len(chunk), chunk)}


def body_of(message: Message) -> Message:
    """Return a message of this module as ASGI has it."""
    if message["type"] != "gateway.wire":
        return message
    wire: bytes = message["wire"]
    return {"type": "http.response.body", "body": wire[wire.index(b"\r\n") + 2 : -2], "more_body": True}


def sse_events(events: Iterable[tuple[bytes, bytes]]) -> list[Message]:
    """Return one message for (id, data) pairs whose data is a single line; none for no pairs."""
    chunk = b"".join([b"id: %b\ndata: %b\n\n" % pair for pair in events])
    return [sse_body(chunk)] if chunk else []


def sse_control(name: str, facts: object, *, event_id: str | None = None, retry_ms: int | None = None) -> Message:
    """Return a named frame; its data is JSON."""
    lines = [b"event: %b\ndata: %b\n" % (name.encode(), _encode(facts))]
    if event_id is not None:
        lines.insert(0, b"id: %b\n" % event_id.encode())
    if retry_ms is not None:
        lines.append(b"retry: %d\n" % retry_ms)
    return sse_body(b"%b\n" % b"".join(lines))


def sse_retry(retry_ms: int) -> Message:
    """Return the frame that tells a browser how long to wait before it reconnects."""
    return sse_body(b"retry: %d\n\n" % retry_ms)
