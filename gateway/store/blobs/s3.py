"""Blobs in a bucket that speaks S3."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from datetime import timedelta
from typing import Final

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from gateway.errors import StoreUnavailable

logger = logging.getLogger(__name__)

# Ten thousand parts are the most: 80 GiB.
PART_BYTES: Final = 8 * 1024 * 1024
PARTS_AT_ONCE: Final = 2
READ_BYTES: Final = 4 * 1024 * 1024
CONNECT_S: Final = 5
REQUEST_S: Final = 60
REPEATS: Final = 3
REPEAT_S: Final = 30
ABORT_S: Final = 10.0


class S3Blobs:
    """Blobs as objects: small ones put at once, larger ones part by part, read by ranges.

    A part of an upload that was never finished stays in the bucket if this process is killed: only the bucket's own
    rule for incomplete uploads removes it.

    Args:
        url: `s3://bucket/prefix`.
    """

    def __init__(self, url: str) -> None:
        self._bucket = S3Store.from_url(
            url,
            # Plain HTTP is spoken only to an endpoint that is configured so.
            client_options={
                "allow_http": True,
                "connect_timeout": timedelta(seconds=CONNECT_S),
                "timeout": timedelta(seconds=REQUEST_S),
            },
            retry_config={"max_retries": REPEATS, "retry_timeout": timedelta(seconds=REPEAT_S)},
        )

    async def write(self, name: str, pieces: AsyncIterator[bytes]) -> None:
        """Keep a blob; the bucket has it when this returns."""
        beginning = bytearray()
        async for piece in pieces:
            beginning += piece
            if len(beginning) >= PART_BYTES:
                await self._write_parts(name, _Source(bytes(beginning), pieces))
                return
        try:
            await obstore.put_async(self._bucket, name, bytes(beginning), use_multipart=False)
        except (BaseError, OSError) as error:
            raise _translate(error) from error

    async def _write_parts(self, name: str, source: _Source) -> None:
        uploading = asyncio.ensure_future(
            obstore.put_async(
                self._bucket, name, source, use_multipart=True, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE
            )
        )
        try:
            await asyncio.shield(uploading)
        except asyncio.CancelledError:
            # Cancelled, it would leave its parts in the bucket; it removes them when its source fails.
            source.stop()
            uploading.add_done_callback(lambda ended: ended.exception())
            await asyncio.wait([uploading], timeout=ABORT_S)
            raise
        except (BaseError, OSError) as error:
            if error is source.failure:
                raise
            raise _translate(error) from error

    async def open(self, name: str, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """Return the bytes of a blob, in pieces; the first is read at once."""
        first = await self._read(name, start, stop) if start < stop else b""
        return self._pieces(name, first, start, stop)

    async def _pieces(self, name: str, first: bytes, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        piece = first
        while start < stop:
            yield piece
            start += len(piece)
            if start < stop:
                piece = await self._read(name, start, stop)

    async def _read(self, name: str, start: int, stop: int) -> bytes:
        try:
            read = await obstore.get_range_async(self._bucket, name, start=start, end=min(stop, start + READ_BYTES))
        except (BaseError, OSError) as error:
            raise _translate(error) from error
        if not len(read):
            raise StoreUnavailable("The file is shorter than its record says.", outcome="not_written")
        return bytes(read)

    async def remove(self, name: str) -> None:
        """Remove a blob."""
        try:
            with suppress(FileNotFoundError):
                await obstore.delete_async(self._bucket, name)
        except (BaseError, OSError) as error:
            raise _translate(error) from error

    async def list(self, folder: str) -> AsyncGenerator[tuple[str, int], None]:
        """Yield every blob of a folder, and when it was written."""
        try:
            async for page in obstore.list(self._bucket, folder):
                for found in page:
                    yield found["path"], int(found["last_modified"].timestamp() * 1000)
        except (BaseError, OSError) as error:
            raise _translate(error) from error

    async def remove_unfinished(self, before_ms: int) -> None:
        """Leave unfinished uploads to the bucket's own rule: they are no objects yet."""


class _Source:
    """The bytes of an upload, on their way to a library that ends an upload in order only if its source fails."""

    def __init__(self, beginning: bytes, pieces: AsyncIterator[bytes]) -> None:
        self._beginning = beginning
        self._pieces = pieces
        self._stopped = asyncio.get_running_loop().create_future()
        self.failure: BaseException | None = None

    def stop(self) -> None:
        """Fail at the next piece, or in waiting for it."""
        if not self._stopped.done():
            self._stopped.set_result(None)

    def __aiter__(self) -> _Source:
        return self

    async def __anext__(self) -> bytes:
        if self._beginning:
            beginning, self._beginning = self._beginning, b""
            return beginning
        coming = asyncio.ensure_future(anext(self._pieces, None))
        await asyncio.wait([coming, self._stopped], return_when=asyncio.FIRST_COMPLETED)
        if self._stopped.done():
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
            raise _Stopped
        try:
            piece = coming.result()
        except Exception as failure:
            self.failure = failure
            raise
        if piece is None:
            raise StopAsyncIteration
        return piece


class _Stopped(Exception):
    """Whoever was uploading has given up."""


def _translate(error: Exception) -> StoreUnavailable:
    # Its first line says what and where; what follows is of use to the library's authors.
    logger.warning("files in the bucket: %s", str(error).partition("\n")[0])
    return StoreUnavailable("The place of files does not answer.", outcome="not_written")
