"""Bringing a channel back in line with its log: holes in it filled, a rollback found and told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from gateway.errors import NotFound, StoreUnavailable
from gateway.hub.ring import newest_run
from gateway.store.log import Entry, LogHead, LogName, LogReader

if TYPE_CHECKING:
    from gateway.hub.channel import Channel, ChannelLimits

logger = logging.getLogger(__name__)


class Repair:
    """Comparisons of a channel with its log: one at a time, one more however many ask meanwhile."""

    def __init__(
        self,
        channel: Channel,
        log: LogReader,
        limits: ChannelLimits,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        wait_store: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self._channel = channel
        self._name: LogName = channel.name
        self._log = log
        self._limits = limits
        self._spawn = spawn
        self._wait_store = wait_store
        self._wanted = False
        self._lock = asyncio.Lock()

    def request(self) -> None:
        """Have the channel compared with its log soon, whenever the store is there for it."""
        if not self._wanted:
            self._wanted = True
            self._spawn(self._run())

    async def _run(self) -> None:
        while True:
            try:
                return await self.check()
            except StoreUnavailable:
                self._wanted = True
                await self._wait_store()

    async def check(self) -> None:
        """Compare with the log, and repair.

        Raises:
            StoreUnavailable: the store did not answer; the channel is as it was.
        """
        async with self._lock:
            self._wanted = False
            try:
                while not self._channel.gone and not await self._compare():
                    pass
            except NotFound:
                self._channel.mark_gone()

    async def _compare(self) -> bool:
        """Read on from the ring's head; False when there may be more to do."""
        ring = self._channel.ring
        seq, tag = ring.head_seq, ring.head_tag
        head, entries = await self._log.read(
            self._name, seq, entries=self._limits.ring_entries, payload_bytes=self._limits.ring_bytes
        )
        if (ring.head_seq, ring.head_tag) != (seq, tag):
            # A notification came first.
            return False
        if head.seq < seq or _tag_of(seq, head, entries) not in (None, tag):
            await self._roll_back()
            return False
        fresh = newest_run([entry for entry in entries if entry.seq > seq])
        if head.seq > seq and (not fresh or fresh[0].seq != seq + 1):
            self._channel.jump(head, fresh[0].seq - 1 if fresh else head.seq)
        reached = fresh[-1].seq if fresh else ring.head_seq
        # A status belongs to the head; until the ring is there the run counts as going on.
        self._channel.advance(fresh, head.status if reached == head.seq else "running")
        return reached == head.seq

    async def _roll_back(self) -> None:
        """Find the last entry that ring and log agree on, and void everything after it."""
        channel = self._channel
        known = channel.ring.tags()
        oldest = min(known)
        head, entries = await self._log.read(
            self._name, oldest, entries=len(known) + 1, payload_bytes=2 * self._limits.ring_bytes
        )
        agreed = [entry for entry in entries if known.get(entry.seq) == entry.tag]
        logger.warning("log %s was rolled back to %d", self._name.stream, head.seq)
        if agreed and channel.ring.tag_at(agreed[-1].seq) is not None:
            channel.roll_back(head, oldest, valid_through=agreed[-1].seq)
        else:
            # Nothing agrees, or the ring had to give up meanwhile what did.
            await channel.load()
            channel.roll_back(head, oldest, valid_through=0)


def _tag_of(seq: int, head: LogHead, entries: list[Entry]) -> int | None:
    """Return the tag that the log has at `seq`; None when its entry was trimmed, or for no entry at all."""
    if not seq:
        return None
    if head.seq == seq:
        return head.tag
    return entries[0].tag if entries and entries[0].seq == seq else None
