"""What time asks of files: that uploaded ones end at a certain age, and that nobody pays for bytes that none names."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from gateway import telemetry
from gateway.domain.files import FileRecord
from gateway.errors import StoreUnavailable
from gateway.service.shelf import Shelf
from gateway.store.blobs import Blobs
from gateway.store.clock import StoreClock
from gateway.store.files import FileStore
from gateway.store.indexes import IndexStore
from gateway.store.runs import RunStore

logger = logging.getLogger(__name__)

SWEEP_S: Final = 30.0
AGED_AT_ONCE: Final = 100
# Whatever is still being written, or was just written and has yet to get its record, is younger.
FORGOTTEN_MS: Final = 24 * 3_600_000
SEARCH_MS: Final = 3_600_000
CHECKED_AT_ONCE: Final = 500


class FileSweep:
    """Removes what is too old, in steps; any process may, and what one leaves undone another finds again.

    Args:
        retention_ms: How long an uploaded file is kept.
        forgotten_ms: How old bytes are of which it is sure that nobody is about to name them.
    """

    def __init__(
        self,
        shelf: Shelf,
        records: FileStore,
        blobs: Blobs,
        indexes: IndexStore,
        runs: RunStore,
        clock: StoreClock,
        *,
        retention_ms: int,
        forgotten_ms: int = FORGOTTEN_MS,
    ) -> None:
        self._shelf = shelf
        self._records = records
        self._blobs = blobs
        self._indexes = indexes
        self._runs = runs
        self._clock = clock
        self._retention_ms = retention_ms
        self._forgotten_ms = forgotten_ms

    async def run(self) -> None:
        """Sweep now and then; for ever."""
        while True:
            try:
                await self.sweep()
            except StoreUnavailable as error:
                logger.info("files are swept later: %s", error.detail)
            except Exception:
                logger.exception("sweeping files")
            await asyncio.sleep(SWEEP_S)

    async def sweep(self) -> None:
        """Look at the files of every tenant once."""
        before_ms = self._clock.now_ms() - self._forgotten_ms
        await self._blobs.remove_unfinished(before_ms)
        for tenant in await self._indexes.tenants():
            await self._end_aged(tenant)
            if await self._records.begin_sweep(tenant, SEARCH_MS):
                await self._remove_forgotten(tenant, before_ms)

    async def _end_aged(self, tenant: str) -> None:
        before_ms = self._clock.now_ms() - self._retention_ms
        while file_ids := await self._records.aged(tenant, before_ms, AGED_AT_ONCE):
            records = await self._records.find(tenant, file_ids)
            kept = await self._of_runs(records)
            for file_id, record in zip(file_ids, records, strict=True):
                if file_id in kept:
                    continue
                await self._records.remove(tenant, file_id, None if record is None else record.run_id)
                if record is not None:
                    telemetry.FILES_REMOVED.labels("age").inc()
                    await self._shelf.drop(record.blob)
            if kept:
                await self._records.keep(tenant, sorted(kept))

    async def _of_runs(self, records: list[FileRecord | None]) -> set[str]:
        """Return the ids of files that go with their runs, which are there."""
        made = [record for record in records if record is not None and record.run_id is not None]
        runs = await self._runs.load_many([record.run_id for record in made if record.run_id is not None])
        return {record.file_id for record, run in zip(made, runs, strict=True) if run is not None}

    async def _remove_forgotten(self, tenant: str, before_ms: int) -> None:
        suspects: list[str] = []
        async for blob, written_ms in self._blobs.list(await self._shelf.folder(tenant)):
            if written_ms < before_ms:
                suspects.append(blob)
            if len(suspects) == CHECKED_AT_ONCE:
                await self._remove_nameless(tenant, suspects)
                suspects.clear()
        await self._remove_nameless(tenant, suspects)

    async def _remove_nameless(self, tenant: str, blobs: list[str]) -> None:
        """Remove those of `blobs` that are not what the record of their file names."""
        file_ids = [blob.rpartition("/")[2].partition("-")[0] for blob in blobs]
        records = await self._records.find(tenant, file_ids)
        for blob, record in zip(blobs, records, strict=True):
            if record is None or record.blob != blob:
                telemetry.FILES_REMOVED.labels("forgotten").inc()
                await self._shelf.drop(blob)
