"""A run's log folded into its present state, kept so that the next fold only reads what is new."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any

import msgspec

from gateway.domain.access import Grant
from gateway.domain.cursor import Cursor
from gateway.domain.events import decode
from gateway.domain.fold import fold
from gateway.domain.fold_bounds import elided_bytes
from gateway.domain.fold_state import Folded
from gateway.domain.run import Run
from gateway.service.actors import require_run
from gateway.service.streams import log_expired
from gateway.store.log import Entry, LogHead, LogName, LogReader
from gateway.store.runs import RunStore

KEPT_BYTES = 64 * 1024 * 1024
FOLD_BYTES = 4 * 1024
CHUNK_BYTES = 512 * 1024
FOLDING = 8


class Snapshot(msgspec.Struct, frozen=True):
    """A run and its log folded up to `as_of`; the state is shared: encode it before the next await."""

    run: Run
    state: Folded
    as_of: Cursor
    written: list[msgspec.Raw]

    @property
    def state_json(self) -> msgspec.Raw:
        """The state as JSON, written once for all who are given the same."""
        if not self.written:
            self.written.append(msgspec.Raw(msgspec.json.encode(self.state)))
        return self.written[0]


class _Kept:
    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.folds = 0
        self.run: Run | None = None
        self.restart(first_seq=1)

    def restart(self, first_seq: int) -> None:
        self.state = Folded()
        self.at = Cursor(0)
        self.first_seq = first_seq
        self.written: list[msgspec.Raw] = []

    @property
    def bytes(self) -> int:
        return FOLD_BYTES + self.state.settled_bytes + self.state.fresh_bytes

    def agrees(self, head: LogHead, entries: list[Entry]) -> bool:
        """Whether what was folded is still what the log says; events that were purged must not show."""
        if head.first_seq != self.first_seq:
            return False
        seq = self.at.seq
        return not seq or (bool(entries) and (entries[0].seq, entries[0].tag) == (seq, self.at.tag))


class Folds:
    """Folds of runs; the latest ones are kept, as many as take 64 MiB together. At most 8 grow at once."""

    def __init__(self, runs: RunStore, logs: LogReader) -> None:
        self._runs = runs
        self._logs = logs
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._folding = asyncio.Semaphore(FOLDING)

    async def snapshot(self, grant: Grant, run_id: str) -> Snapshot:
        """Return the run with everything its log says so far.

        Raises:
            NotFound: no such run for this caller.
            LogExpired: its log has been removed.
        """
        run = require_run(grant, await self._runs.load(run_id, grant.tenant))
        if run.log_expired:
            raise log_expired(run_id)
        kept = self._kept.setdefault(run_id, _Kept())
        self._kept.move_to_end(run_id)
        begun = kept.folds
        async with kept.lock:
            # A fold that began after this was asked for is as good as one of its own: of many who wait, one reads.
            if kept.folds == begun or kept.run is None:
                await self._grow(run_id, kept, grant.tenant)
            run = require_run(grant, kept.run or run)
            return Snapshot(run, kept.state, kept.at, kept.written)

    async def outputs(self, grant: Grant, run_id: str, *, most_bytes: int) -> dict[str, Any]:
        """Return the run's named outputs by key, in the order they were set; those of abandoned attempts left out.

        Large ones are read from the log: as many as take `most_bytes`, the others stay elided.

        Raises:
            NotFound: no such run for this caller.
            LogExpired: its log has been removed.
        """
        taken = await self.snapshot(grant, run_id)
        found = [(o.key, o.value, o.seq) for o in taken.state.outputs.values() if not o.superseded]
        values: dict[str, Any] = {}
        for key, value, seq in found:
            values[key] = value
            size_bytes = elided_bytes(value)
            if size_bytes is not None and size_bytes <= most_bytes:
                values[key] = await self._read_output(run_id, seq, value)
                most_bytes -= size_bytes
        return values

    async def _read_output(self, run_id: str, seq: int, elided: Any) -> Any:
        _head, entries = await self._logs.read(LogName.of_run(run_id), seq, entries=1, payload_bytes=1)
        if not entries or entries[0].seq != seq:
            return elided
        return decode(entries[0].line).data["value"]

    async def _grow(self, run_id: str, kept: _Kept, tenant: str) -> None:
        kept.folds += 1
        kept.run = None
        async with self._folding:
            await self._fold(run_id, kept)
            self._evict()
            # The record read before may be older than the fold: what the caller shows is of one moment or newer.
            kept.run = await self._runs.load(run_id, tenant)

    async def _fold(self, run_id: str, kept: _Kept) -> None:
        name = LogName.of_run(run_id)
        while True:
            head, entries = await self._logs.read(name, kept.at.seq, entries=1000, payload_bytes=CHUNK_BYTES)
            if not kept.agrees(head, entries):
                kept.restart(head.first_seq)
                continue
            fresh = [entry for entry in entries if entry.seq > kept.at.seq]
            for entry in fresh:
                fold(kept.state, decode(entry.line), len(entry.line))
                kept.at = Cursor(entry.seq, entry.tag)
            if fresh:
                kept.written = []
            if not fresh or kept.at.seq >= head.seq:
                return

    def _evict(self) -> None:
        held = sum(kept.bytes for kept in self._kept.values())
        while held > KEPT_BYTES:
            _, kept = self._kept.popitem(last=False)
            held -= kept.bytes
