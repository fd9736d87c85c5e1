"""Files: sent from wherever they are, fetched to wherever they shall be, never whole in memory."""

from __future__ import annotations

import asyncio
import mimetypes
import os
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote
from uuid import uuid4

import msgspec

from gateway.client.errors import ConnectionLost, FileDamaged, ProtocolError, SourceChanged, Unavailable
from gateway.client.models import File
from gateway.client.transport import Transport

PATIENCE_S = 300.0
PIECE_BYTES = 256 * 1024

Source = str | os.PathLike[str] | bytes | BinaryIO | AsyncIterable[bytes]
"""A file to send: a path (text is one), bytes, an open binary file, or whatever yields bytes."""


class _FilePage(msgspec.Struct):
    data: list[File]
    next_cursor: str | None = None


class Files:
    """The files of a tenant. Every call raises `ApiError` and `ConnectionLost` as its errors say."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def upload(
        self,
        source: Source,
        *,
        name: str | None = None,
        content_type: str | None = None,
        idempotency_key: str | None = None,
    ) -> File:
        """Send a file; a run takes it as input by its `file_id`: `client.runs.create(…, file_ids=[…])`.

        It is sent again while the gateway is away, unless its source can be read only once.

        Args:
            name: what it is called; a path's own name by default.
            content_type: what it is; guessed from the name by default.
        """
        return await send_file(
            self._transport,
            "/v1/files",
            source,
            name=name,
            content_type=content_type,
            params={},
            headers={},
            idempotency_key=idempotency_key,
        )

    async def get(self, file_id: str) -> File:
        """Return what is known of a file, with a `url` that opens it without a key until `url_expires_at`."""
        return await self._transport.call("GET", _path(file_id), File)

    async def list(self, *, run_id: str | None = None, page_files: int = 50) -> AsyncGenerator[File, None]:
        """Yield files, newest first: all of the tenant, or those that one run made."""
        params: dict[str, Any] = {"limit": page_files} | ({} if run_id is None else {"run_id": run_id})
        while True:
            page = await self._transport.call("GET", "/v1/files", _FilePage, params=params)
            for file in page.data:
                yield file
            if not page.next_cursor:
                return
            params["cursor"] = page.next_cursor

    async def read(self, file_id: str, *, patience_s: float = PATIENCE_S) -> AsyncGenerator[bytes, None]:
        """Yield a file's bytes in pieces; where the connection breaks, they go on from there.

        Leave the loop early only inside `contextlib.aclosing(…)`, which closes the connection.

        Args:
            patience_s: how long the gateway may be away, in seconds.

        Raises:
            FileDamaged: after the last piece: together they are not what was stored.
        """
        loop = asyncio.get_running_loop()
        at, failures, heard_at, size_bytes = 0, 0, loop.time(), -1
        digest, stored = sha256(), None
        while at != size_bytes:
            try:
                async with self._transport.content(_path(file_id, "content"), headers=_from(at)) as response:
                    if at and response.status_code != 206:
                        raise ProtocolError("a part of the file was asked for, and not sent")
                    size_bytes = at + int(response.headers.get("content-length", 0))
                    stored = response.headers.get("repr-digest", stored)
                    async for piece in response.aiter_raw(PIECE_BYTES):
                        at, failures, heard_at = at + len(piece), 0, loop.time()
                        digest.update(piece)
                        yield piece
                    break
            except (ConnectionLost, Unavailable):
                delay_s = self._transport.backoff.delay_s(failures)
                if loop.time() + delay_s > heard_at + patience_s:
                    raise
            failures += 1
            await asyncio.sleep(delay_s)
        if stored not in (None, _write_digest(digest.digest())):
            raise FileDamaged(f"the file {file_id} was damaged on its way: {stored} was stored")

    async def download(self, file_id: str, to: str | os.PathLike[str], *, patience_s: float = PATIENCE_S) -> Path:
        """Save a file as `to`, which is there whole or not at all, and return its path."""
        path = Path(to)
        part = path.with_name(f".{path.name}.{uuid4().hex}.part")
        try:
            with await asyncio.to_thread(part.open, "xb") as file:
                async with aclosing(self.read(file_id, patience_s=patience_s)) as pieces:
                    async for piece in pieces:
                        await asyncio.to_thread(file.write, piece)
            await asyncio.to_thread(part.replace, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return path

    async def delete(self, file_id: str) -> None:
        """Remove a file; logs that name it stay as they are."""
        await self._transport.call("DELETE", _path(file_id), dict[str, Any])


async def send_file(
    transport: Transport,
    path: str,
    source: Source,
    *,
    name: str | None,
    content_type: str | None,
    params: Mapping[str, Any],
    headers: Mapping[str, str],
    idempotency_key: str | None,
) -> File:
    """Send a file to `path` and return what the gateway says of it.

    Raises:
        ValueError: it has no name of its own, and none was given.
    """
    sending = await _prepare(source)
    name = name or sending.name
    if not name:
        raise ValueError("a file that is no path needs a name")
    content_type = content_type or mimetypes.guess_type(name)[0] or "application/octet-stream"
    about = {"Content-Type": content_type, "Idempotency-Key": idempotency_key or uuid4().hex, **headers}
    if sending.size_bytes is not None:
        about["Content-Length"] = str(sending.size_bytes)
    if isinstance(source, bytes):
        about["Repr-Digest"] = _write_digest(sha256(source).digest())
    response = await transport.send(
        "POST",
        path,
        content=sending.open,
        params={"name": name, **params},
        headers=about,
        **({} if sending.repeatable else {"repeat_s": 0.0}),
    )
    try:
        return msgspec.json.decode(response.content, type=File)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"POST {path} answered something unexpected: {error}") from error


class _Sending(msgspec.Struct, frozen=True):
    """A source, ready to be sent; `size_bytes` is None where only its end will tell."""

    open: Callable[[], AsyncIterator[bytes]]
    repeatable: bool
    size_bytes: int | None
    name: str | None


async def _prepare(source: Source) -> _Sending:
    if isinstance(source, bytes):
        return _Sending(lambda: _slice(source), True, len(source), None)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        size_bytes = (await asyncio.to_thread(path.stat)).st_size
        return _Sending(lambda: _read_path(path, size_bytes), True, size_bytes, path.name)
    if isinstance(source, AsyncIterable):
        return _Sending(lambda: aiter(source), False, None, None)
    return await _prepare_open(source)


async def _prepare_open(file: BinaryIO) -> _Sending:
    own_name = getattr(file, "name", None)
    name = Path(own_name).name if isinstance(own_name, str | os.PathLike) else None
    if not await asyncio.to_thread(file.seekable):
        return _Sending(lambda: _read(file, None), False, None, name)
    start = await asyncio.to_thread(file.tell)
    size_bytes = await asyncio.to_thread(file.seek, 0, os.SEEK_END) - start
    return _Sending(lambda: _read_from(file, start, size_bytes), True, size_bytes, name)


async def _slice(content: bytes) -> AsyncIterator[bytes]:
    view = memoryview(content)
    for at in range(0, len(view), PIECE_BYTES):
        yield bytes(view[at : at + PIECE_BYTES])


async def _read_path(path: Path, size_bytes: int) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb") as file:
        async for piece in _read(file, size_bytes):
            yield piece


async def _read_from(file: BinaryIO, start: int, size_bytes: int) -> AsyncIterator[bytes]:
    await asyncio.to_thread(file.seek, start)
    async for piece in _read(file, size_bytes):
        yield piece


async def _read(file: BinaryIO, size_bytes: int | None) -> AsyncIterator[bytes]:
    """Yield what is in a file, of a known size no more than that: it was announced."""
    left = size_bytes
    while left is None or left > 0:
        piece = await asyncio.to_thread(file.read, PIECE_BYTES if left is None else min(PIECE_BYTES, left))
        if not piece:
            if left:
                raise SourceChanged(f"the file ended {left} bytes before its size, while it was sent")
            return
        left = None if left is None else left - len(piece)
        yield piece


def _write_digest(digest: bytes) -> str:
    return f"sha-256=:{b64encode(digest).decode()}:"


def _from(at: int) -> dict[str, str]:
    return {"Range": f"bytes={at}-"} if at else {}


def _path(file_id: str, *parts: str) -> str:
    return "/".join(["/v1/files", quote(file_id, safe=""), *parts])
