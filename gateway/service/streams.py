"""Opening streams: where a reader starts, whether anything will come, and who may go on listening."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import msgspec

from gateway import telemetry, tracing
from gateway.domain import access
from gateway.domain.access import Grant
from gateway.domain.cursor import START, Cursor
from gateway.domain.events import TypeFilter, peek_type
from gateway.domain.lifecycle import TERMINAL
from gateway.domain.resume import Verdict, judge, start_over
from gateway.domain.traces import run_span_id
from gateway.errors import GatewayError, LogExpired, NotFound
from gateway.hub.channel import Channel
from gateway.hub.hub import Hub
from gateway.service.access import Access
from gateway.service.actors import Whose, require_run, require_whose, whose_is
from gateway.store.clock import StoreClock
from gateway.store.indexes import IndexStore
from gateway.store.log import Entry, LogHead, LogName, LogReader
from gateway.store.runs import RunStore

logger = logging.getLogger(__name__)

SCAN_BYTES = 1024 * 1024

KNOWN_RUNS = 10_000
"""Runs of which is kept whose they are: readers that come back after a deploy or a pause ask for the same few again."""


class Start(msgspec.Struct, frozen=True):
    """Where a reader wants to begin; a malformed `Last-Event-ID` is told in the stream, not refused."""

    cursor: Cursor
    malformed: bool = False


class Opening(msgspec.Struct, frozen=True):
    """A log that is followed and a place in it; `channel` must be released when the reader leaves.

    `start` is where the reader stands once it was told of `verdict`; `head` is as of that decision.
    `nothing_follows`: the run has ended and no event is left for this reader.
    """

    channel: Channel
    head: LogHead
    start: Cursor
    verdict: Verdict
    nothing_follows: bool


class Page(msgspec.Struct, frozen=True):
    """A page of a log; `verdict` tells of a gap or reset before it."""

    head: LogHead
    verdict: Verdict
    entries: list[Entry]
    after: Cursor
    has_more: bool


class Streams:
    """Readers of runs' logs and of feeds."""

    def __init__(self, hub: Hub, runs: RunStore, logs: LogReader, indexes: IndexStore) -> None:
        self.hub = hub
        self._runs = runs
        self._logs = logs
        self._indexes = indexes
        self._whose: OrderedDict[str, Whose] = OrderedDict()

    async def open_run(
        self, grant: Grant, run_id: str, start: Start, types: TypeFilter | None, *, expired: bool = False
    ) -> Opening:
        """Follow a run from `start` on.

        Args:
            expired: Open a log that has been removed, too: all that is left of it is a gap and an end.

        Raises:
            NotFound: no such run for this caller.
            LogExpired: its log has been removed.
            StoreUnavailable: try again; nothing is held.
        """
        whose = await self._admit(grant, run_id)
        try:
            opening = await self._open(LogName.of_run(run_id), start, types)
        except NotFound:
            self._whose.pop(run_id, None)
            raise access.unknown_run(run_id) from None
        _place(whose)
        if opening.head.log_expired and not expired:
            self.hub.release(opening.channel)
            raise log_expired(run_id)
        return opening

    async def _admit(self, grant: Grant, run_id: str) -> Whose:
        """Let a grant pass that reaches the run, by what the run was created with: that never changes.

        Whether the run is still there is seen where its log is read.
        """
        whose = self._whose.get(run_id)
        if whose is None:
            whose = self._whose[run_id] = whose_is(await self._runs.load(run_id, grant.tenant))
            if len(self._whose) > KNOWN_RUNS:
                self._whose.popitem(last=False)
        require_whose(grant, whose)
        return whose

    async def open_feed(self, grant: Grant, start: Start | None) -> Opening:
        """Follow the tenant's feed of status changes; from now on without a start."""
        access.require_tenant_wide(grant)
        await self._indexes.ensure_feed(grant.tenant)
        name = LogName.of_feed(grant.tenant)
        if start is None:
            (head,) = await self._logs.heads([name])
            start = Start(Cursor(head.seq, head.tag) if head and head.seq else START)
        return await self._open(name, start, None)

    async def _open(self, name: LogName, start: Start, types: TypeFilter | None) -> Opening:
        channel = await self.hub.acquire(name)
        try:
            head, entries = await self._logs.look(name, start.cursor.seq)
            verdict, after = _locate(start, head, entries)
            nothing = (
                head.status in TERMINAL
                and verdict.reset is None
                and verdict.gap is None
                and not await self._any_passes(name, head, after.seq, types)
            )
        except BaseException:
            self.hub.release(channel)
            raise
        return Opening(channel, head, after, verdict, nothing)

    async def _any_passes(self, name: LogName, head: LogHead, after_seq: int, types: TypeFilter | None) -> bool:
        """Whether the log of an ended run has anything for this reader."""
        if types is None:
            return after_seq < head.seq
        while after_seq < head.seq:
            _, entries = await self._logs.read(name, after_seq + 1, entries=1000, payload_bytes=SCAN_BYTES)
            if not entries:
                return False
            if any(types.passes(peek_type(entry.line)) for entry in entries):
                return True
            after_seq = entries[-1].seq
        return False

    async def page(
        self, grant: Grant, run_id: str, cursor: Cursor, *, limit: int, payload_bytes: int, types: TypeFilter | None
    ) -> Page:
        """Return up to `limit` events after `cursor`; with a filter a page may be short, and still not the last."""
        run = require_run(grant, await self._runs.load(run_id, grant.tenant))
        if run.log_expired:
            raise log_expired(run_id)
        name = LogName.of_run(run_id)
        # One more than asked for: the entry at the cursor itself verifies it.
        head, entries = await self._logs.read(name, cursor.seq, entries=limit + 1, payload_bytes=payload_bytes)
        verdict, after = _locate(Start(cursor), head, entries)
        if verdict.reset is not None:
            head, entries = await self._logs.read(name, after.seq + 1, entries=limit, payload_bytes=payload_bytes)
        fresh = [entry for entry in entries if entry.seq > after.seq][:limit]
        if fresh:
            after = Cursor(fresh[-1].seq, fresh[-1].tag)
        elif after.seq == head.seq and head.seq:
            after = Cursor(head.seq, head.tag)
        shown = fresh if types is None else [e for e in fresh if types.passes(peek_type(e.line))]
        return Page(head, verdict, shown, after, has_more=after.seq < head.seq)


def _locate(start: Start, head: LogHead, entries: Sequence[Entry]) -> tuple[Verdict, Cursor]:
    """Return what the resume rule says, and where the reader then stands: with its tag, if the log still tells.

    Args:
        entries: What the log has from the start's seq on, inclusive, at the moment of `head`.
    """
    cursor = start.cursor
    found = entries[0].tag if entries and entries[0].seq == cursor.seq else None
    if start.malformed:
        verdict = start_over("bad_cursor", first_seq=head.first_seq)
    else:
        verdict = judge(cursor, head_seq=head.seq, head_tag=head.tag, first_seq=head.first_seq, found_tag=found)
    if verdict.reset is not None or verdict.after_seq != cursor.seq:
        return verdict, Cursor(verdict.after_seq)
    known = head.tag if cursor.seq == head.seq else found
    return verdict, Cursor(cursor.seq, known or cursor.tag)


def _place(whose: Whose) -> None:
    """Have what is logged and traced from here on name the run's trace."""
    if telemetry.trace_id.get() is None:
        telemetry.trace_id.set(whose.trace_id)
    if whose.trace_id is not None and tracing.keeps(whose.trace_id):
        tracing.subject.set(tracing.Place(whose.trace_id, run_span_id(whose.run_id)))


def log_expired(run_id: str) -> LogExpired:
    """Return the refusal to read a log that is not kept any more."""
    return LogExpired("The run's log has been removed after its retention.", run_id=run_id)


class Watch:
    """Ends streams whose key or ticket does not work any more, also when no hint of it came."""

    def __init__(self, hub: Hub, access_rules: Access, clock: StoreClock, *, recheck_s: float) -> None:
        self._hub = hub
        self._access = access_rules
        self._clock = clock
        self._recheck_s = recheck_s

    async def run(self) -> None:
        """Look at every open stream's grant now and then; for ever."""
        while True:
            await asyncio.sleep(min(self._recheck_s, 1.0))
            verdicts: dict[Any, str | None] = {}
            for outlet in list(self._hub.outlets):
                grant = outlet.grant
                if grant is None or outlet.closed:
                    continue
                if grant not in verdicts:
                    verdicts[grant] = await self._refusal(grant)
                reason = verdicts[grant]
                # A WebSocket may have renewed its grant meanwhile.
                if reason is not None and outlet.grant == grant:
                    outlet.dismiss(reason)

    async def _refusal(self, grant: Grant) -> str | None:
        now_ms = self._clock.now_ms()
        try:
            return await self._access.find_end(grant, now_ms=now_ms)
        except GatewayError:
            return None
