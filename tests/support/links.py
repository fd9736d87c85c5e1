"""A test's own connection to the store, and the store's parts over it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from ulid import ULID

from gateway.domain.lifecycle import LIVE, Status
from gateway.domain.run import Actor, RunSpec, RunState
from gateway.store.link import Link
from gateway.store.links import open_link
from gateway.store.runs import Appended, Dedupe, Guard, Limits, RunStore, Write, record_changes

BEGIN_MS = 1_800_000_000_000


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Link]:
    """Give a link to the store for as long as the block lasts."""
    link = open_link(url, "test")
    running = asyncio.create_task(link.run())
    try:
        yield link
    finally:
        running.cancel()
        await asyncio.wait([running])


def make_spec(tenant: str, **changes: Any) -> RunSpec:
    """Return what a new run was created with."""
    run_id = str(ULID())
    spec = RunSpec(
        id=run_id,
        tenant=tenant,
        agent_id="tester",
        mode="direct",
        thread_id=run_id,
        created_us=BEGIN_MS * 1000,
        actor=Actor("key", "tester"),
    )
    return msgspec.structs.replace(spec, **changes)


def line(kind: str = "log", data: str = "{}") -> bytes:
    """Return the rest of an event's line."""
    return f'"type":"{kind}","run_id":"r","created_at":"2027-01-15T08:00:00.000Z","data":{data}}}'.encode()


class Door:
    """The append script, as a test knocks at it."""

    def __init__(self, link: Link, spec: RunSpec, limits: Limits | None = None) -> None:
        self.spec = spec
        self.runs = RunStore(link, link, limits or Limits())

    async def create(self, status: Status = Status.RUNNING, *, held: bool = True) -> Appended:
        """Write the run's first event."""
        state = RunState(status=status, held=held)
        write = Write(
            guard=Guard(tenant=self.spec.tenant),
            events=[line("run.created")],
            at_ms=BEGIN_MS,
            changes=record_changes(self.spec, state, new=True),
        )
        return await self.runs.write(self.spec.id, write)

    async def append(
        self, *events: bytes, guard: Guard | None = None, dedupe: Dedupe | None = None, **more: Any
    ) -> Appended:
        """Append events to a live run."""
        guard = guard or Guard(tenant=self.spec.tenant, statuses=LIVE)
        more.setdefault("at_ms", BEGIN_MS)
        write = Write(guard=guard, events=events or (line(),), dedupe=dedupe or Dedupe(), **more)
        return await self.runs.write(self.spec.id, write)

    async def append_plain(
        self, *events: bytes, guard: Guard | None = None, dedupe: Dedupe | None = None, at_ms: int = BEGIN_MS
    ) -> Appended:
        """Append events that change nothing else to a live run that is held."""
        guard = guard or Guard(tenant=self.spec.tenant, statuses=LIVE)
        lines, dedupe = events or (line(),), dedupe or Dedupe()
        return await self.runs.append_plain(self.spec.id, guard, dedupe, lines, at_ms=at_ms, is_output=True)

    def guard(self, **changes: Any) -> Guard:
        """Return a guard that a live run passes, but for what is changed."""
        return msgspec.structs.replace(Guard(tenant=self.spec.tenant, statuses=LIVE), **changes)
