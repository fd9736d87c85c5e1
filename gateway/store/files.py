"""Records of files, and the indexes that find them. The record decides which bytes are a file's."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from ulid import ULID

from gateway.domain.files import FileRecord
from gateway.store import keys
from gateway.store.link import Argument, Link
from gateway.store.scripts import PUT_FILE, REMOVE_FILE, Word

_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(FileRecord).decode


class FileStore:
    """Records by tenant and file id; a page of an index is in the order of ids, which is that of time."""

    def __init__(self, reads: Link, writes: Link) -> None:
        self._reads = reads
        self._writes = writes

    async def put(self, record: FileRecord, *, instead_of: FileRecord | None = None) -> FileRecord | None:
        """Write a record unless another is there; returns the one that counts, None when the file was deleted.

        Args:
            instead_of: The record that it takes the place of; then None also says that there is none.
        """
        replaced = b"" if instead_of is None else _encode(instead_of)
        word, reply = await PUT_FILE.call(
            self._writes,
            _names(record.tenant, record.file_id, record.run_id),
            [record.file_id, _encode(record), replaced],
        )
        if word is Word.MISSING:
            return None
        return _decode(reply[0]) if word is Word.HELD else record

    async def remove(
        self,
        tenant: str,
        file_id: str,
        run_id: str | None,
        *,
        only: FileRecord | None = None,
        mark_ms: int | None = None,
    ) -> bool:
        """Remove a file's record and its entries; False when another record is there than the one meant.

        Args:
            run_id: Of the run that made it.
            only: The record that is meant; None for whichever is there.
            mark_ms: How long it is remembered that the file was deleted.
        """
        args: list[Argument] = [file_id, b"" if only is None else _encode(only), "" if mark_ms is None else mark_ms]
        word, _reply = await REMOVE_FILE.call(self._writes, _names(tenant, file_id, run_id), args)
        return word is not Word.HELD

    async def find(self, tenant: str, file_ids: Sequence[str]) -> list[FileRecord | None]:
        """Return the records in one round trip; None where there is none."""
        if not file_ids:
            return []
        found = await self._reads.call("MGET", *(keys.file(tenant, file_id) for file_id in file_ids))
        return [None if raw is None else _decode(raw) for raw in found]

    async def newest(self, tenant: str, run_id: str | None, before: str | None, most: int) -> list[str]:
        """Return ids of the tenant's or of one run's files before `before`, newest first."""
        index = keys.files(tenant) if run_id is None else keys.files_of(tenant, run_id)
        top = "+" if before is None else f"({before}"
        return _ids(await self._reads.call("ZRANGE", index, top, "-", "BYLEX", "REV", "LIMIT", 0, most))

    async def aged(self, tenant: str, before_ms: int, most: int) -> list[str]:
        """Return ids of files that were begun before a time, in Unix ms, and still age; oldest first."""
        end = str(ULID.from_timestamp(max(before_ms, 0) / 1000))[:10]
        return _ids(
            await self._reads.call("ZRANGE", keys.aging_files(tenant), "-", f"({end}", "BYLEX", "LIMIT", 0, most)
        )

    async def keep(self, tenant: str, file_ids: Sequence[str]) -> None:
        """Let files age no more: they go with the run that made them."""
        await self._writes.call("ZREM", keys.aging_files(tenant), *file_ids)

    async def begin_sweep(self, tenant: str, lifetime_ms: int) -> bool:
        """Take the search for a tenant's forgotten bytes upon this process; False while another has it."""
        return await self._writes.call("SET", keys.swept(tenant), "-", "NX", "PX", lifetime_ms) is not None


def _names(tenant: str, file_id: str, run_id: str | None) -> list[str]:
    names = [keys.file(tenant, file_id), keys.gone(tenant, file_id), keys.files(tenant), keys.aging_files(tenant)]
    return names if run_id is None else [*names, keys.files_of(tenant, run_id)]


def _ids(reply: list[bytes]) -> list[str]:
    return [file_id.decode() for file_id in reply]
