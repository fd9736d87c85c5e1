"""Files: stored, announced in the log of the run that made them, found, read and deleted."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec
from ulid import ULID

from gateway import telemetry
from gateway.domain.access import Grant
from gateway.domain.events import NewEvent
from gateway.domain.files import (
    FileRecord,
    check_content_type,
    check_name,
    manages_file,
    reaches_file,
    require_file,
    unknown_file,
)
from gateway.domain.lifecycle import Action, illegal
from gateway.domain.run import Run
from gateway.errors import Contended, DigestMismatch, GatewayError, IdempotencyMismatch, StoreUnavailable
from gateway.service.actors import Caller, require_run
from gateway.service.once import Once
from gateway.service.shelf import Bytes, Shelf
from gateway.service.writing import Batch, Writing
from gateway.store.clock import StoreClock
from gateway.store.keys import digest
from gateway.store.runs import RunStore

SCAN_FILES: Final = 1_000


class NewFile(msgspec.Struct, frozen=True):
    """What a caller says of a file that it sends; `sha256` in hex."""

    name: str | None
    content_type: str | None
    sha256: str | None = None


class Announcement(msgspec.Struct, frozen=True):
    """How the event of an output file is appended: as the run's holder appends any other."""

    lease: str | None = None
    attempt: int | None = None
    step_id: str | None = None


class FilePage(msgspec.Struct, frozen=True):
    """Files, newest first, and the id to go on before, None at the end."""

    files: list[FileRecord]
    next_before: str | None


class Files:
    """Files of all tenants, as callers may have them."""

    def __init__(
        self,
        shelf: Shelf,
        once: Once,
        runs: RunStore,
        writing: Writing,
        clock: StoreClock,
        *,
        file_bytes: int,
        retention_ms: int,
    ) -> None:
        self._shelf = shelf
        self._once = once
        self._runs = runs
        self._writing = writing
        self._clock = clock
        self._file_bytes = file_bytes
        self._retention_ms = retention_ms

    async def upload(self, caller: Caller, new: NewFile, chunks: AsyncIterator[bytes]) -> FileRecord:
        """Store a file of the tenant, or return the one that the caller's idempotency key stored before.

        Raises:
            InvalidBody: its name or content type.
            DigestMismatch: it is not what its sender meant to send; nothing is kept.
            TooLarge: it is over the limit; nothing is kept.
            IdempotencyMismatch: the key was used with another name, type or content.
        """
        new = _check(new)
        asked = _said(new)
        record, _ = await self._store(caller, "file", asked, new, chunks, None)
        return record

    async def upload_output(
        self, caller: Caller, run_id: str, new: NewFile, chunks: AsyncIterator[bytes], how: Announcement
    ) -> tuple[FileRecord, int]:
        """Store a file that a run made and append `file.created` to its log; returns the record and the event's seq.

        Raises:
            GatewayError: as `upload` and `Writing.append`; where the event is refused, nothing is kept.
            Contended: a repeat came while the first request was being refused.
        """
        new = _check(new)
        run = require_run(caller.grant, await self._runs.load(run_id, caller.tenant))
        # Not under which lease: a repeat may come under another, and is guarded by that.
        asked = {**_said(new), "step_id": how.step_id}
        record, fresh = await self._store(caller, f"file of {run_id}", asked, new, chunks, run)
        if not fresh:
            shared = await self._shelf.share(record)
            if shared is None:
                raise Contended("The first request under this key was just refused; try again.")
            record = shared
        return record, await self._announce(caller, record, how, fresh=fresh)

    async def _announce(self, caller: Caller, record: FileRecord, how: Announcement, *, fresh: bool) -> int:
        key = caller.idempotency_key
        # Of its own kind: the same key may have been given to an append of events.
        caller = msgspec.structs.replace(caller, idempotency_key=None if key is None else digest("file", key))
        data = {name: getattr(record, name) for name in ("file_id", "name", "size_bytes", "content_type")}
        event = NewEvent("file.created", data, how.step_id, None)
        batch = Batch(events=[event], lease=how.lease, attempt=how.attempt)
        assert record.run_id is not None
        try:
            return (await self._writing.append(caller, record.run_id, batch)).last_seq
        except StoreUnavailable as error:
            # Whether the log names the file is unknown: it stays, and the repeat finds out.
            if fresh and error.facts.get("outcome") == "not_written":
                with suppress(StoreUnavailable):
                    await self._shelf.take_back(record)
            raise
        except GatewayError:
            if fresh:
                await self._shelf.take_back(record)
            raise

    async def _store(
        self, caller: Caller, action: str, asked: object, new: NewFile, chunks: AsyncIterator[bytes], run: Run | None
    ) -> tuple[FileRecord, bool]:
        """Return the file's record, and whether this request made it."""
        now_ms = self._clock.now_ms()
        mine = str(ULID.from_timestamp(now_ms / 1000))
        file_id = await self._once.settle(caller, action, asked, mine)
        content = Bytes(chunks, self._file_bytes)
        known = None if file_id == mine else (await self._shelf.find(caller.tenant, [file_id]))[0]
        if known is not None:
            await content.drain()
            _check_digest(new, content)
            return _agree(known, content), False
        if run is not None and run.state.terminal:
            raise illegal(Action.APPEND, str(run.status))
        blob = await self._shelf.write(caller.tenant, file_id, content)
        try:
            _check_digest(new, content)
        except DigestMismatch:
            await self._shelf.drop(blob)
            raise
        record = FileRecord(
            file_id=file_id,
            tenant=caller.tenant,
            name=new.name or "",
            size_bytes=content.size_bytes,
            content_type=new.content_type or "",
            sha256=content.sha256,
            created_ms=now_ms,
            created_by=caller.actor,
            blob=blob,
            run_id=None if run is None else run.id,
            agent_id=None if run is None else run.spec.agent_id,
            thread_id=None if run is None else run.spec.thread_id,
        )
        standing = await self._shelf.enter(record)
        if standing.blob != blob:
            # Another request under this key was first.
            await self._shelf.drop(blob)
        return _agree(standing, content), standing.blob == blob

    async def get(self, grant: Grant, file_id: str) -> FileRecord:
        """Return a file's record.

        Raises:
            NotFound: there is none, or none for this caller.
        """
        (record,) = await self._shelf.find(grant.tenant, [file_id])
        return require_file(grant, record, file_id)

    async def get_signed(self, tenant: str, file_id: str) -> FileRecord:
        """Return the record of a file that a signed URL opens.

        Raises:
            NotFound: it is no more.
        """
        (record,) = await self._shelf.find(tenant, [file_id])
        if record is None:
            raise unknown_file(file_id)
        return record

    def expires_ms(self, record: FileRecord) -> int | None:
        """Return when a file is removed for its age, in Unix ms; None for one that goes with its run."""
        return None if record.run_id is not None else record.created_ms + self._retention_ms

    async def find(self, grant: Grant, file_ids: Sequence[str]) -> list[FileRecord | None]:
        """Return the records of those files that there are for this caller; None where there is none."""
        records = await self._shelf.find(grant.tenant, file_ids)
        return [r if r is not None and reaches_file(grant, r) else None for r in records]

    async def list(self, grant: Grant, *, run_id: str | None, before: str | None, limit: int) -> FilePage:
        """Return files of the tenant, or of one run, newest first; a short page may not be the last."""
        found: list[FileRecord] = []
        for _ in range(0, SCAN_FILES, limit + 1):
            file_ids = await self._shelf.newest(grant.tenant, run_id, before, limit + 1)
            for record in await self._shelf.find(grant.tenant, file_ids):
                if record is not None and manages_file(grant, record):
                    if len(found) == limit:
                        return FilePage(found, found[-1].file_id)
                    found.append(record)
            if len(file_ids) <= limit:
                return FilePage(found, None)
            before = file_ids[-1]
        return FilePage(found, before)

    async def open(self, record: FileRecord, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """Return a file's bytes from `start` up to `stop`, in pieces.

        Raises:
            StoreUnavailable: they cannot be reached.
        """
        telemetry.FILE_BYTES.labels("out").inc(stop - start)
        return await self._shelf.open(record, start, stop)

    async def delete(self, grant: Grant, file_id: str) -> FileRecord:
        """Remove a file and return what its record was.

        Raises:
            NotFound: there is none that this caller manages.
        """
        (record,) = await self._shelf.find(grant.tenant, [file_id])
        record = require_file(grant, record if record and manages_file(grant, record) else None, file_id)
        await self._shelf.delete(record)
        return record


def _check(new: NewFile) -> NewFile:
    return NewFile(check_name(new.name), check_content_type(new.content_type), new.sha256)


def _said(new: NewFile) -> dict[str, Any]:
    """Return what a repeat is recognised by, beside the content itself."""
    return {"name": new.name, "content_type": new.content_type}


def _check_digest(new: NewFile, content: Bytes) -> None:
    if new.sha256 not in (None, content.sha256):
        told = f"The file came with the SHA-256 {content.sha256}; its sender says {new.sha256}."
        raise DigestMismatch(told, path="$", sha256=content.sha256)


def _agree(record: FileRecord, content: Bytes) -> FileRecord:
    if (record.size_bytes, record.sha256) != (content.size_bytes, content.sha256):
        raise IdempotencyMismatch("This idempotency key was used before with another file.")
    return record
