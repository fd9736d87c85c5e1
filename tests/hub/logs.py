"""A run's log in the real store, written through the one door and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ulid import ULID

from gateway.domain.events import NewEvent, encode_rest
from gateway.domain.lifecycle import LIVE, Status
from gateway.domain.run import SYSTEM, RunSpec, RunState
from gateway.store import keys, links
from gateway.store.link import Argument, Link
from gateway.store.log import Entry, LogHead, LogName, LogReader
from gateway.store.runs import Guard, Limits, RunStore, Write, record_changes

TENANT = "hub"

Saved = tuple[bytes, bytes]
"""A run's record and log as the store dumps them."""


class Log:
    """One run's log and what may happen to it."""

    def __init__(self, link: Link, *, notice_bytes: int = 64 * 1024) -> None:
        self.run_id = str(ULID())
        self.name = LogName.of_run(self.run_id)
        self.reader = LogReader(link)
        self.link = link
        self._spec = RunSpec(
            id=self.run_id, tenant=TENANT, agent_id="a", mode="direct", thread_id="t", created_us=1, actor=SYSTEM
        )
        self._runs = RunStore(link, link, Limits(notice_bytes=notice_bytes))

    async def create(self, *texts: str) -> Log:
        """Create the run with one event, and append `texts`; return the log."""
        changes = record_changes(self._spec, RunState(status=Status.RUNNING, held=True), new=True)
        await self._write(Guard(tenant=TENANT), changes, "created")
        if texts:
            await self.append(*texts)
        return self

    async def append(self, *texts: str) -> int:
        """Append an event for each text and return the head's seq."""
        return await self._write(Guard(tenant=TENANT, statuses=LIVE), {}, *texts)

    async def end(self) -> None:
        """End the run with one event."""
        await self._set_status(Status.COMPLETED, LIVE)

    async def restart(self) -> None:
        """Have an ended run go on."""
        await self._set_status(Status.RUNNING, frozenset({Status.COMPLETED}))

    async def _set_status(self, to: Status, permitted: frozenset[Status]) -> None:
        guard = Guard(tenant=TENANT, statuses=permitted)
        await self._write(guard, record_changes(self._spec, RunState(status=to)), str(to))

    async def _write(self, guard: Guard, changes: dict[str, Argument], *texts: str) -> int:
        now_ms = int(time.time() * 1000)
        events = [encode_rest(NewEvent(type="log", data={"message": text}), self.run_id, now_ms) for text in texts]
        write = Write(guard=guard, at_ms=now_ms, events=events, changes=changes)
        return (await self._runs.write(self.run_id, write)).last_seq

    async def trim(self, through_seq: int) -> None:
        """Remove events of an ended run."""
        run = await self._runs.load(self.run_id, TENANT)
        await self._runs.trim(run, through_seq)

    async def remove(self) -> None:
        """Remove the run altogether."""
        await self.link.call("DEL", self.name.record, self.name.stream)

    async def save(self) -> Saved:
        """Return the run as it is now, for `restore`."""
        record, stream = await self.link.call_many([("DUMP", self.name.record), ("DUMP", self.name.stream)])
        return record, stream

    async def restore(self, saved: Saved) -> None:
        """Put the run back to what it was, as a failover to an older copy of the store does: nobody is told."""
        names = (self.name.record, self.name.stream)
        await self.link.call_many(
            [("RESTORE", name, 0, dump, "REPLACE") for name, dump in zip(names, saved, strict=True)]
        )

    async def read(self) -> tuple[LogHead, list[Entry]]:
        """Return the head and every entry."""
        return await self.reader.read(self.name, 0, entries=100_000, payload_bytes=1 << 30)

    async def tags(self) -> dict[int, int]:
        """Return the tag of every seq that the log holds."""
        _, entries = await self.read()
        return {entry.seq: entry.tag for entry in entries}


@asynccontextmanager
async def open_link(url: str) -> AsyncIterator[Link]:
    """Give a connection to the store while the block runs."""
    link = links.open_link(url, "test")
    running = asyncio.create_task(link.run())
    try:
        yield link
    finally:
        running.cancel()
        await asyncio.wait([running])


async def forget(link: Link, log: Log) -> None:
    """Leave nothing of a log behind."""
    await link.call("DEL", log.name.record, log.name.stream, keys.writers(log.run_id))
