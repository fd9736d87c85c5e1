"""One log as this process follows it: a ring of its newest entries, and the readers of it.

Notifications are hints. One that continues the ring, by seq and by tag, extends it; any other is a doorbell: the
channel is compared with the log, so that a hole is filled and a rollback is seen.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Hashable, Sequence
from typing import Any

import msgspec

from gateway import telemetry
from gateway.domain.lifecycle import TERMINAL
from gateway.hub.chunks import Chunk, Chunks
from gateway.hub.cohort import Cohort, Pushing
from gateway.hub.memory import RingMemory
from gateway.hub.reader import Encoder, Reader
from gateway.hub.repair import Repair
from gateway.hub.ring import Ring, newest_run
from gateway.store.log import Entry, LogHead, LogName, LogReader, Notice, parse_notice

logger = logging.getLogger(__name__)

READ_ENTRIES = 1_000
"""Most entries that one read for a lagging reader asks for."""


class ChannelLimits(msgspec.Struct, frozen=True):
    """Bounds of a channel's memory and of one write to a reader."""

    ring_entries: int
    ring_bytes: int
    chunk_bytes: int


class Channel:
    """Follows one log on behalf of its readers.

    `agreed_s` is when a notification last proved, on the monotonic clock, that ring and log agree.

    Args:
        pushing: Has cohorts of readers pushed to soon.
        spawn: Runs a coroutine in the hub's task group.
        wait_store: Waits until the store may answer again, for a bounded time.
        memory: What all channels may keep together.
    """

    def __init__(
        self,
        name: LogName,
        reader: LogReader,
        limits: ChannelLimits,
        *,
        pushing: Pushing,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        wait_store: Callable[[], Coroutine[Any, Any, None]],
        memory: RingMemory,
    ) -> None:
        self.name = name
        self.ring = Ring(entries=limits.ring_entries, payload_bytes=limits.ring_bytes)
        self.listeners: dict[Callable[[Sequence[Entry]], None], None] = {}
        self.status = ""
        self.gone = False
        self.primed = False
        self.agreed_s = time.monotonic()
        self.wait_store = wait_store
        self.repair = Repair(self, reader, limits, spawn=spawn, wait_store=wait_store)
        self._limits = limits
        self._log = reader
        self._pushing = pushing
        self._memory = memory
        self._cohorts: dict[tuple[Hashable, str, float], Cohort] = {}
        self._reader_count = 0
        self._heard_early = False
        self._chunks = Chunks(limits.ring_bytes)
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def ended(self) -> bool:
        """Whether the log is of a run that has ended, as of the ring's head."""
        return self.status in TERMINAL

    @property
    def readers(self) -> list[Reader]:
        """Everybody who is pushed to."""
        return [reader for cohort in self._cohorts.values() for reader in cohort.readers]

    def attach(self, reader: Reader) -> None:
        """Push to a reader."""
        key = _place(reader)
        cohort = self._cohorts.get(key)
        if cohort is None:
            cohort = self._cohorts[key] = Cohort(self, *key, self._pushing)
        if reader not in cohort.readers:
            cohort.readers[reader] = None
            self._reader_count += 1

    def detach(self, reader: Reader) -> None:
        """Push to a reader no more."""
        key = _place(reader)
        cohort = self._cohorts.get(key)
        if cohort is not None and reader in cohort.readers:
            del cohort.readers[reader]
            self._reader_count -= 1
            if not cohort.readers:
                cohort.rest()
                del self._cohorts[key]

    async def prime(self) -> None:
        """Take the log's head and its newest entries; the subscription must be confirmed before.

        Raises:
            NotFound: there is no such run.
            StoreUnavailable: the store did not answer.
        """
        await self.load()
        self.primed = True
        if self._heard_early:
            self.repair.request()

    async def load(self) -> None:
        """Fill the ring anew from the log's end."""
        head, entries = await self._log.read_newest(
            self.name, entries=self._limits.ring_entries, payload_bytes=self._limits.ring_bytes
        )
        newest = newest_run(entries) if entries and entries[-1].seq == head.seq else ()
        self.ring.start_at(head.seq - len(newest), 0 if newest else head.tag)
        self.ring.extend(newest)
        self.status = head.status
        self._chunks.clear()
        self._measure()

    def _measure(self) -> None:
        self._memory.note(self, self.ring.size_bytes + self._chunks.size_bytes)

    def give_up(self) -> None:
        """Keep no entries: readers that lack some read them from the log, those at the head go on."""
        self.ring.clear()
        self._chunks.clear()

    def forget(self) -> None:
        """Keep nothing: nobody follows the log any more."""
        self.give_up()
        self._measure()

    async def read_from(self, seq: int) -> tuple[LogHead, list[Entry]]:
        """Read a chunk of the log from `seq`, inclusive."""
        return await self._log.read(self.name, seq, entries=READ_ENTRIES, payload_bytes=self._limits.chunk_bytes)

    def hear(self, payload: bytes) -> None:
        """Take a notification, whatever is in it."""
        if not self.primed:
            self._heard_early = True
            return
        try:
            understood = self._take(parse_notice(payload))
        except ValueError:
            understood = False
        if not understood:
            telemetry.GAPS_REPAIRED.inc()
            self.repair.request()

    def _take(self, notice: Notice) -> bool:
        """Extend the ring by what continues it; False when only the log can tell what is right."""
        ring = self.ring
        if notice.last_seq <= ring.head_seq:
            return ring.tag_at(notice.last_seq) == notice.last_tag
        if not notice.entries:
            return False
        known = ring.head_seq - notice.entries[0].seq + 1
        if known < 0 or (notice.entries[known - 1].tag if known else notice.before_tag) != ring.head_tag:
            return False
        self.agreed_s = time.monotonic()
        self.advance(notice.entries[known:], notice.status)
        return True

    def advance(self, entries: Sequence[Entry], status: str) -> None:
        """Take entries that follow the ring's head, and the status that goes with the last of them."""
        if not entries and status == self.status:
            return
        self.ring.extend(entries)
        self.status = status
        self._move(entries)

    def jump(self, head: LogHead, seq: int) -> None:
        """Stand at `seq`: what lies before it has been trimmed."""
        self.ring.start_at(seq, head.tag if seq == head.seq else 0)
        self._move(())

    def roll_back(self, head: LogHead, oldest: int, *, valid_through: int) -> None:
        """Void what the log has lost: everything after `valid_through`, all of the ring when that is 0.

        Args:
            head: The log's present one.
            oldest: The first seq of which the ring knew the tag; readers before it see for themselves.
        """
        if valid_through:
            self.ring.cut_to(valid_through)
            self.status = "running"
        for reader in self.readers:
            reader.roll_back(head, oldest, valid_through)
        self._move(())

    def _move(self, entries: Sequence[Entry]) -> None:
        """Tell everybody that the ring has changed; no entries at all mean that some were skipped."""
        self._chunks.clear()
        self._measure()
        if self._waiting:
            self.wake()
        for cohort in self._cohorts.values():
            cohort.wake()
        if self.listeners:
            for listener in list(self.listeners):
                listener(entries)

    def wake(self) -> None:
        """Have everybody look who waits for a change."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    async def changed(self, timeout_s: float) -> bool:
        """Wait for the log to grow or its status to change; False when neither happened in time."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        try:
            async with asyncio.timeout(timeout_s):
                await waiting
        except TimeoutError:
            return False
        finally:
            self._waiting.discard(waiting)
        return True

    def differs(self, head: LogHead | None) -> bool:
        """Whether the log's head is another than the ring's."""
        if head is None:
            return not self.gone
        return (head.seq, head.tag, head.status) != (self.ring.head_seq, self.ring.head_tag, self.status)

    def mark_gone(self) -> None:
        """The log does not exist any more: every reader is sent away."""
        self.gone = True
        self.wake()
        for reader in self.readers:
            reader.outlet.lose_log(reader)
        for listener in list(self.listeners):
            listener(())

    def chunk(self, encoder: Encoder, after: int) -> Chunk:
        """Return the messages of what follows seq `after` in the ring, encoded once for all who want them."""
        # What a single reader gets nobody else asks for.
        shared = encoder.key is not None and self._reader_count > 1
        known = self._chunks.find(encoder.key, after) if shared else None
        if known is not None:
            return known
        entries = self.ring.after(after, self._limits.chunk_bytes)
        last = entries[-1]
        chunk = Chunk(encoder.encode(entries), last.seq, last.tag)
        if shared:
            self._chunks.keep(encoder.key, after, chunk, entries)
            self._measure()
        return chunk


def _place(reader: Reader) -> tuple[Hashable, str, float]:
    """Return what tells the cohorts of a channel apart."""
    return reader.encoder.key, reader.outlet.transport, reader.outlet.linger_s
