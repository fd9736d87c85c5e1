"""Files as answers: whole or in part, sent as they are read, and never shown by a browser as a page of ours."""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from email.utils import formatdate
from typing import Final
from urllib.parse import quote

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.edge.server import drop
from gateway.errors import RangeUnsatisfiable

# Who takes nothing for so long does not come back for more.
STALL_S: Final = 60.0
_RANGE: Final = re.compile(r"bytes=[ \t]*([0-9]{0,19})-([0-9]{0,19})[ \t]*", re.IGNORECASE)
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 !#$&'()+,-.;=@[]^_`{}~")

Open = Callable[[int, int], Awaitable[AsyncGenerator[bytes, None]]]


class Content(msgspec.Struct, frozen=True):
    """What an answer says of a file: `sha256` is its digest in hex; `modified_ms` is Unix time."""

    name: str
    size_bytes: int
    content_type: str
    sha256: str
    modified_ms: int


async def answer_file(request: Request, content: Content, open_at: Open, *, stall_s: float = STALL_S) -> Response:
    """Return the answer to a request for a file: all of it, the one range that is asked for, or nothing but its facts.

    Args:
        open_at: Returns the bytes from a place up to another.
        stall_s: How long the client may take nothing before its connection is dropped.

    Raises:
        RangeUnsatisfiable: the range begins beyond the end.
    """
    size, headers = content.size_bytes, _headers(content)
    if _matches(request.headers.get("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers={name: headers[name] for name in ("ETag", "Cache-Control")})
    if request.method == "HEAD":
        return Response(headers=headers | {"Content-Length": str(size)})
    span = _find_range(request, headers["ETag"], size)
    start, stop = (0, size) if span is None else span
    headers |= {"Content-Length": str(stop - start)}
    if span is not None:
        headers |= {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}
    pieces = await open_at(start, stop)
    return FileResponse(pieces, 200 if span is None else 206, headers, stall_s=stall_s)


class FileResponse(Response):
    """Sends pieces as fast as the client takes them; ends reading when it leaves, and its connection when it stalls."""

    def __init__(
        self, pieces: AsyncGenerator[bytes, None], status: int, headers: dict[str, str], *, stall_s: float
    ) -> None:
        super().__init__(status_code=status, headers=headers)
        self._pieces = pieces
        self._stall_s = stall_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        leaving = asyncio.ensure_future(_wait_gone(receive))
        try:
            async with aclosing(self._pieces):
                await self._answer(send, leaving)
        except _Stalled:
            await drop(scope, receive, flush_s=0)
        finally:
            leaving.cancel()

    async def _answer(self, send: Send, leaving: asyncio.Future[None]) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for piece in self._pieces:
            if leaving.done():
                return
            try:
                async with asyncio.timeout(self._stall_s):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            except TimeoutError:
                raise _Stalled from None
            # What was written to a connection that has just broken suspends nobody: its end would go unheard.
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Stalled(Exception):
    """The client does not take what it asked for."""


async def _wait_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _headers(content: Content) -> dict[str, str]:
    return {
        "Content-Type": content.content_type,
        "Content-Disposition": write_disposition(content.name),
        "ETag": f'"{content.sha256}"',
        # Of the whole file, whichever part is sent (RFC 9530).
        "Repr-Digest": f"sha-256=:{b64encode(bytes.fromhex(content.sha256)).decode()}:",
        "Last-Modified": formatdate(content.modified_ms / 1000, usegmt=True),
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "X-Content-Type-Options": "nosniff",
        # If a browser shows it after all: no script, no form, no other origin's anything.
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }


def write_disposition(name: str) -> str:
    """Return the Content-Disposition that saves a file as `name`, for old readers as near to it as ASCII allows."""
    plain = "".join(c if c in _PLAIN else "_" for c in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _matches(asked: str | None, tag: str) -> bool:
    return asked is not None and any(t.strip().removeprefix("W/") in (tag, "*") for t in asked.split(","))


def _find_range(request: Request, tag: str, size: int) -> tuple[int, int] | None:
    """Return the one range asked for, from a place up to another; None where all of it shall be sent.

    More than one range, or what is none, may be answered with everything (RFC 9110, section 14.2).
    """
    match = _RANGE.fullmatch(request.headers.get("range", ""))
    if match is None or request.headers.get("if-range", tag) != tag:
        return None
    first, last = match.groups()
    if not first and not last:
        return None
    if first and last and int(last) < int(first):
        return None
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if start >= size or (not first and int(last) == 0):
        raise RangeUnsatisfiable(f"The file has {size:,} bytes.", size_bytes=size)
    return start, stop
