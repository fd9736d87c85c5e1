"""Records and bytes of files kept together, so that no crash leaves a record without its bytes.

Bytes are written before their record and removed after it. What a crash leaves between is bytes that no record
names: nobody sees them, and the sweep removes them.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from hashlib import sha256
from typing import Final

import msgspec

from gateway import telemetry
from gateway.domain.access import Grant
from gateway.domain.files import FileRecord, reaches_file, unknown_file
from gateway.errors import InvalidBody, StoreUnavailable, TooLarge
from gateway.store.blobs import Blobs
from gateway.store.files import FileStore
from gateway.store.indexes import IndexStore
from gateway.store.keys import digest

logger = logging.getLogger(__name__)

PIECE_BYTES: Final = 1024 * 1024
REMOVED_AT_ONCE: Final = 100


class Bytes:
    """The bytes of a file as they come: counted, digested, and refused beyond a limit."""

    def __init__(self, chunks: AsyncIterator[bytes], limit_bytes: int) -> None:
        self._chunks = chunks
        self._limit_bytes = limit_bytes
        self._digest = sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        """The digest of what has come so far, in hex."""
        return self._digest.hexdigest()

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the bytes in pieces that are worth a write each.

        Raises:
            TooLarge: there are more than the limit.
        """
        piece = bytearray()
        async for chunk in self._chunks:
            self.size_bytes += len(chunk)
            if self.size_bytes > self._limit_bytes:
                most = self._limit_bytes
                raise TooLarge(f"A file has at most {most:,} bytes.", limit_bytes=most)
            piece += chunk
            if len(piece) >= PIECE_BYTES:
                yield await self._take(piece)
        if piece:
            yield await self._take(piece)

    async def _take(self, piece: bytearray) -> bytes:
        taken = bytes(piece)
        piece.clear()
        await asyncio.to_thread(self._digest.update, taken)
        return taken

    async def drain(self) -> None:
        """Take all bytes and keep none."""
        async for _ in self.pieces():
            pass


class Shelf:
    """Files of all tenants.

    Args:
        secret: Returns the secret of the store, by which its bytes are told from those of another store that
            uses the same place.
        mark_ms: How long it is remembered that a file was deleted.
    """

    def __init__(
        self,
        records: FileStore,
        blobs: Blobs,
        indexes: IndexStore,
        *,
        secret: Callable[[], Awaitable[bytes]],
        mark_ms: int,
    ) -> None:
        self._records = records
        self._blobs = blobs
        self._indexes = indexes
        self._read_secret = secret
        self._secret: str | None = None
        self._mark_ms = mark_ms

    async def folder(self, tenant: str) -> str:
        """Return the folder of a tenant's bytes."""
        if self._secret is None:
            self._secret = (await self._read_secret()).decode()
        return digest("files", self._secret, tenant)

    async def write(self, tenant: str, file_id: str, content: Bytes) -> str:
        """Keep the bytes of a file that is about to be, and return their name.

        Raises:
            TooLarge: there are too many of them.
            StoreUnavailable: they cannot be kept now.
        """
        # The reconciler finds what is forgotten only of tenants that it knows.
        await self._indexes.note_tenant(tenant)
        blob = f"{await self.folder(tenant)}/{file_id}-{secrets.token_hex(4)}"
        await self._blobs.write(blob, content.pieces())
        telemetry.FILE_BYTES.labels("in").inc(content.size_bytes)
        return blob

    async def enter(self, record: FileRecord) -> FileRecord:
        """Write the record of bytes that were kept; returns the one that counts, another's if that was first.

        Raises:
            NotFound: the file was deleted lately.
            StoreUnavailable: it is not written, or it is unknown.
        """
        standing = await self._records.put(record)
        if standing is None:
            await self.drop(record.blob)
            raise unknown_file(record.file_id)
        return standing

    async def share(self, record: FileRecord) -> FileRecord | None:
        """Mark that another request than the one that made a file answers for it, so that neither takes it back."""
        shared = msgspec.structs.replace(record, shared=True)
        return await self._records.put(shared, instead_of=record)

    async def take_back(self, record: FileRecord) -> None:
        """Remove a file that came to nothing, unless another request answers for it too."""
        if await self._records.remove(record.tenant, record.file_id, record.run_id, only=record):
            await self.drop(record.blob)

    async def find(self, tenant: str, file_ids: Sequence[str]) -> list[FileRecord | None]:
        """Return the records of files; None where there is none."""
        return await self._records.find(tenant, file_ids)

    async def require(self, grant: Grant, file_ids: Sequence[str]) -> None:
        """Let a run have these input files if each of them is there for whoever creates it.

        Raises:
            InvalidBody: some are not; `facts["file_ids"]` names them.
        """
        records = await self.find(grant.tenant, file_ids)
        pairs = list(enumerate(zip(file_ids, records, strict=True)))
        missing = [(index, fid) for index, (fid, r) in pairs if r is None or not reaches_file(grant, r)]
        if missing:
            names = [file_id for _, file_id in missing]
            detail = f"There is no file {names[0]}." if len(names) == 1 else f"There are no files {', '.join(names)}."
            raise InvalidBody(detail, path=f"$.file_ids[{missing[0][0]}]", file_ids=names)

    async def newest(self, tenant: str, run_id: str | None, before: str | None, most: int) -> list[str]:
        """Return ids of the tenant's, or of one run's, files before `before`, newest first."""
        return await self._records.newest(tenant, run_id, before, most)

    async def open(self, record: FileRecord, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """Return a file's bytes from `start` up to `stop`, in pieces."""
        return await self._blobs.open(record.blob, start, stop)

    async def delete(self, record: FileRecord) -> None:
        """Remove a file; the repeat of its creation does not make it again."""
        tenant, file_id = record.tenant, record.file_id
        await self._records.remove(tenant, file_id, record.run_id, mark_ms=self._mark_ms)
        await self.drop(record.blob)

    async def remove_of_run(self, tenant: str, run_id: str) -> None:
        """Remove the files that a run made."""
        while file_ids := await self._records.newest(tenant, run_id, None, REMOVED_AT_ONCE):
            records = await self._records.find(tenant, file_ids)
            for file_id, record in zip(file_ids, records, strict=True):
                await self._records.remove(tenant, file_id, run_id)
                if record is not None:
                    await self.drop(record.blob)

    async def drop(self, blob: str) -> None:
        """Remove bytes that no record names any more; what fails here, the sweep finishes."""
        try:
            await self._blobs.remove(blob)
        except StoreUnavailable as error:
            logger.warning("bytes %s are removed later: %s", blob, error.detail)
