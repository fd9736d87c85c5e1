"""One log as this process follows it: a ring of its newest entries, and the readers of it.

Notifications are hints. One that continues the ring extends it; any other is a doorbell: the channel reads the log
from its own head on, comparing that head's tag, so that a hole is filled and a rollback is seen.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Hashable, Sequence
from typing import Any

from gateway import telemetry
from gateway.domain.lifecycle import TERMINAL
from gateway.errors import NotFound, StoreUnavailable
from gateway.hub.outlet import Message
from gateway.hub.reader import Encoder, Reader
from gateway.hub.ring import Ring
from gateway.store.log import Entry, LogHead, LogName, LogReader, Notice, parse_notice

logger = logging.getLogger(__name__)

Chunk = tuple[Sequence[Message], int, int | None]

PUSH_SLICE = 256
"""Readers served before the event loop gets a turn."""


class ChannelLimits:
    """Bounds of a channel's memory and of one write to a reader."""

    def __init__(self, *, ring_entries: int, ring_bytes: int, chunk_bytes: int) -> None:
        self.ring_entries = ring_entries
        self.ring_bytes = ring_bytes
        self.chunk_bytes = chunk_bytes


class Channel:
    """Follows one log on behalf of its readers.

    Args:
        mark_dirty: Has the hub call `flush` soon.
        spawn: Runs a coroutine in the hub's task group.
        wait_store: Waits until the store may answer again, for a bounded time.
    """

    def __init__(
        self,
        name: LogName,
        reader: LogReader,
        limits: ChannelLimits,
        *,
        mark_dirty: Callable[[Channel], None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        wait_store: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self.name = name
        self.ring = Ring(entries=limits.ring_entries, payload_bytes=limits.ring_bytes)
        self.readers: dict[Reader, None] = {}
        self.listeners: dict[Callable[[Sequence[Entry]], None], None] = {}
        self.status = ""
        self.gone = False
        self.heard_s = time.monotonic()
        self.wait_store = wait_store
        self._limits = limits
        self._log = reader
        self._mark_dirty = mark_dirty
        self._spawn = spawn
        self._primed = False
        self._check_wanted = False
        self._check_lock = asyncio.Lock()
        self._chunks: dict[tuple[Hashable, int], Chunk] = {}
        self._changed: list[asyncio.Future[None]] = []

    @property
    def ended(self) -> bool:
        """Whether the log is of a run that has ended, as of the ring's head."""
        return self.status in TERMINAL

    async def prime(self) -> None:
        """Take the log's head and its newest entries; the subscription must be confirmed before.

        Raises:
            NotFound: there is no such run.
            StoreUnavailable: the store did not answer.
        """
        head, _ = await self._log.read(self.name, 0, entries=0, payload_bytes=0)
        start = max(head.first_seq, head.seq - self._limits.ring_entries + 1)
        head, entries = await self._log.read(
            self.name, start, entries=self._limits.ring_entries, payload_bytes=self._limits.ring_bytes
        )
        # The newest ones matter: a range that did not reach the head leaves the ring empty.
        if entries and entries[-1].seq == head.seq:
            self.ring.start_at(entries[0].seq - 1, 0)
            self.ring.extend(entries)
        else:
            self.ring.start_at(head.seq, head.tag)
        self.status = head.status
        self._primed = True
        if self._check_wanted:
            self._spawn(self.check())

    async def read_from(self, seq: int) -> tuple[LogHead, list[Entry]]:
        """Read a chunk of the log from `seq`, inclusive."""
        return await self._log.read(self.name, seq, entries=1000, payload_bytes=self._limits.chunk_bytes)

    def hear(self, payload: bytes) -> None:
        """Take a notification."""
        self.heard_s = time.monotonic()
        notice = parse_notice(payload)
        if not self._primed:
            self._check_wanted = True
        elif not self._continue(notice):
            telemetry.GAPS_REPAIRED.inc()
            self.request_check()

    def _continue(self, notice: Notice) -> bool:
        ring = self.ring
        if notice.last_seq <= ring.head_seq:
            known = ring.tag_at(notice.last_seq)
            if notice.last_seq == ring.head_seq and known == notice.last_tag:
                self._advance((), notice.status)
            return known is None or known == notice.last_tag
        if not notice.entries or notice.entries[0].seq > ring.head_seq + 1:
            return False
        if any(ring.tag_at(e.seq) not in (None, e.tag) for e in notice.entries if e.seq <= ring.head_seq):
            return False
        self._advance([e for e in notice.entries if e.seq > ring.head_seq], notice.status)
        return True

    def _advance(self, entries: Sequence[Entry], status: str) -> None:
        if not entries and status == self.status:
            return
        self.ring.extend(entries)
        self.status = status
        self._chunks.clear()
        self._tell()
        self._mark_dirty(self)
        self._call_listeners(entries)

    def _call_listeners(self, entries: Sequence[Entry]) -> None:
        """Hand new entries to listeners; none at all means that some were skipped."""
        for listener in list(self.listeners):
            listener(entries)

    def _tell(self) -> None:
        for waiting in self._changed:
            if not waiting.done():
                waiting.set_result(None)
        self._changed.clear()

    async def changed(self, timeout_s: float) -> bool:
        """Wait for the log to grow or its status to change; False when neither happened in time."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changed.append(waiting)
        try:
            async with asyncio.timeout(timeout_s):
                await waiting
        except TimeoutError:
            return False
        return True

    def request_check(self) -> None:
        """Have the channel compared with the log soon, once however often it is asked."""
        if not self._check_wanted:
            self._check_wanted = True
            self._spawn(self.check())

    def differs(self, head: LogHead | None) -> bool:
        """Whether the log's head is another than the ring's."""
        if head is None:
            return not self.gone
        return (head.seq, head.tag, head.status) != (self.ring.head_seq, self.ring.head_tag, self.status)

    async def check(self) -> None:
        """Compare with the log and repair: fill a hole, or roll back. Waits for the store as long as it takes."""
        async with self._check_lock:
            self._check_wanted = False
            while not self.gone:
                try:
                    if await self._repair():
                        return
                except StoreUnavailable:
                    await self.wait_store()
                except NotFound:
                    self.mark_gone()

    async def _repair(self) -> bool:
        ring = self.ring
        seq = ring.head_seq
        head, entries = await self._log.read(
            self.name, seq, entries=self._limits.ring_entries, payload_bytes=self._limits.ring_bytes
        )
        if ring.head_seq != seq:
            return False
        found = head.tag if head.seq == seq else (entries[0].tag if entries and entries[0].seq == seq else None)
        if head.seq < seq or (seq and found is not None and found != ring.head_tag):
            await self._roll_back(head)
            return False
        fresh = [entry for entry in entries if entry.seq > seq]
        if head.seq > seq and (not fresh or fresh[0].seq != seq + 1):
            self._jump(head, fresh[0].seq - 1 if fresh else head.seq)
            seq = ring.head_seq
        reached = fresh[-1].seq if fresh else seq
        # A status belongs to the head; until the ring is there the run counts as going on.
        self._advance(fresh, head.status if reached == head.seq else "running")
        return reached == head.seq or not fresh

    def _jump(self, head: LogHead, seq: int) -> None:
        """Stand at `seq`: what lies before it has been trimmed."""
        self.ring.start_at(seq, head.tag if seq == head.seq else 0)
        self._chunks.clear()
        self._mark_dirty(self)
        self._call_listeners(())

    async def _roll_back(self, head: LogHead) -> None:
        """Find the last entry that ring and log agree on, and void everything after it."""
        known = self.ring.tags()
        _, entries = await self._log.read(
            self.name,
            min(known, default=1),
            entries=len(known) + 1,
            payload_bytes=4 * self._limits.ring_bytes,
        )
        agreed = [entry for entry in entries if known.get(entry.seq) == entry.tag]
        valid, tag = (agreed[-1].seq, agreed[-1].tag) if agreed else (0, 0)
        logger.warning("log %s was rolled back to %d, valid through %d", self.name.stream, head.seq, valid)
        if agreed:
            self.ring.cut_to(valid, tag)
        else:
            self.ring.start_at(head.first_seq - 1, 0)
        self.status = "running"
        self._chunks.clear()
        for reader in list(self.readers):
            reader.roll_back(valid, tag if agreed else None, head.first_seq, head.seq)
        self._mark_dirty(self)
        self._call_listeners(())

    def mark_gone(self) -> None:
        """The log does not exist any more: every reader is sent away."""
        self.gone = True
        self._tell()
        for reader in list(self.readers):
            farewell = reader.encoder.control("stream.closed", {"reason": "run_gone", "resume_after": None})
            reader.outlet.close(farewell, hang_up=True)

    def chunk(self, encoder: Encoder, after_seq: int) -> Chunk:
        """Return the messages that follow `after_seq` in the ring, and the position after them; encoded once."""
        key = (encoder.key, after_seq)
        known = self._chunks.get(key) if encoder.key is not None else None
        if known is not None:
            return known
        entries = self.ring.after(after_seq, self._limits.chunk_bytes)
        if not entries:
            return (), after_seq, None
        chunk = (encoder.encode(entries), entries[-1].seq, entries[-1].tag)
        if encoder.key is not None:
            self._chunks[key] = chunk
        return chunk

    async def flush(self) -> None:
        """Push to every reader that is not busy, giving the loop a turn now and then."""
        delivered: Counter[str] = Counter()
        for index, reader in enumerate(list(self.readers)):
            if not reader.outlet.busy and not reader.outlet.closed:
                delivered[reader.outlet.transport] += reader.push()
            if index % PUSH_SLICE == PUSH_SLICE - 1:
                await asyncio.sleep(0)
        for transport, events in delivered.items():
            telemetry.DELIVERIES.labels(transport).inc(events)
