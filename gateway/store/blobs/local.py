"""Blobs in a directory that the processes of a gateway share."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final, TypeVar
from uuid import uuid4

from gateway.errors import StoreUnavailable

logger = logging.getLogger(__name__)

T = TypeVar("T")

# A disk that hangs takes these threads, and none of those that look up addresses.
THREADS: Final = 8
READ_BYTES: Final = 256 * 1024
LISTED_AT_ONCE: Final = 1_000
INCOMING: Final = "incoming"


class LocalBlobs:
    """Blobs as files: written beside their place, flushed to the disk, then moved there."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / INCOMING
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="files")

    async def write(self, name: str, pieces: AsyncIterator[bytes]) -> None:
        """Keep a blob; it is on the disk when this returns."""
        part = self._incoming / uuid4().hex
        file = await self._run(_create, part)
        try:
            async for piece in pieces:
                await self._run(_write, file, piece)
            await self._run(_settle, file, part, self._root / name)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        finally:
            file.close()

    async def open(self, name: str, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """Return the bytes of a blob, in pieces."""
        path = self._root / name
        if not await self._run(path.is_file):
            logger.error("file %s is not in %s: is this directory the one that every machine has?", name, self._root)
            raise StoreUnavailable("The file's bytes cannot be reached.", outcome="not_written")
        return self._pieces(path, start, stop)

    async def _pieces(self, path: Path, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        file = await self._run(open, path, "rb", 0)
        try:
            while start < stop:
                piece = await self._run(os.pread, file.fileno(), min(READ_BYTES, stop - start), start)
                if not piece:
                    raise StoreUnavailable("The file is shorter than its record says.", outcome="not_written")
                start += len(piece)
                yield piece
        finally:
            file.close()

    async def remove(self, name: str) -> None:
        """Remove a blob."""
        await self._run(lambda: (self._root / name).unlink(missing_ok=True))

    async def list(self, folder: str) -> AsyncGenerator[tuple[str, int], None]:
        """Yield every blob of a folder, and when it was written."""
        with await self._run(_scan, self._root / folder) as entries:
            while found := await self._run(_take, entries):
                for name, modified_ms in found:
                    yield f"{folder}/{name}", modified_ms

    async def remove_unfinished(self, before_ms: int) -> None:
        """Remove what was never moved to its place: its writer has died, or it would have been written to since."""
        async for name, modified_ms in self.list(INCOMING):
            if modified_ms < before_ms:
                await self.remove(name)

    async def _run(self, work: Callable[..., T], *args: object) -> T:
        """Do `work` in a thread, to its end even when the caller is cancelled: its file must not be closed under it.

        Raises:
            StoreUnavailable: the disk refuses.
        """
        running = asyncio.get_running_loop().run_in_executor(self._threads, work, *args)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            while not running.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([running])
            running.exception()
            raise
        except OSError as error:
            logger.warning("files in %s: %s", self._root, error)
            raise StoreUnavailable(
                "The place of files does not take or give this now.", outcome="not_written"
            ) from error


def _create(path: Path) -> BinaryIO:
    # One by one: the mode counts for the last of several only.
    path.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    return os.fdopen(descriptor, "wb", buffering=0)


def _write(file: BinaryIO, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[file.write(rest) :]


def _settle(file: BinaryIO, part: Path, path: Path) -> None:
    """Have the bytes on the disk before the name, and the name before anybody is told."""
    os.fsync(file.fileno())
    made = not path.parent.exists()
    path.parent.mkdir(mode=0o700, exist_ok=True)
    part.rename(path)
    _flush_directory(path.parent)
    if made:
        _flush_directory(path.parent.parent)


def _flush_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _scan(folder: Path) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
    try:
        return os.scandir(folder)
    except FileNotFoundError:
        return nullcontext(iter(()))


def _take(entries: Iterator[os.DirEntry[str]]) -> list[tuple[str, int]]:
    found = []
    for entry in islice(entries, LISTED_AT_ONCE):
        with suppress(FileNotFoundError):
            found.append((entry.name, int(entry.stat().st_mtime * 1000)))
    return found
