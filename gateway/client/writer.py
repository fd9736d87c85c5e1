"""Appending to a run without waiting for each event, and without writing any of them twice."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

import msgspec

from gateway.client.errors import EventTooLarge, ProtocolError
from gateway.client.models import Appended, Pending
from gateway.client.transport import Transport, lease_header

BATCH_EVENTS = 1_000
BATCH_BYTES = 1024 * 1024 - 1024
"""The gateway's limit of a body, less the envelope around the events."""
EVENT_BYTES = 256 * 1024 - 1024
"""The gateway's limit of a stored event, less what it adds to it."""


class Writer:
    """One writer of one run: a bounded queue, and one request under way at a time.

    Everything queued while a request is under way goes into the next one.
    A request that is lost or answered 503 is repeated with the same `writer_seq`, so that the
    gateway stores it once.
    Build it with `client.runs.writer(run_id)`.
    """

    def __init__(
        self,
        transport: Transport,
        run_id: str,
        *,
        on_pending: Callable[[Pending], None] | None,
        heartbeat_s: float | None,
        repeat_s: float | None,
        queue_events: int,
        queue_bytes: int,
        lease: str | None = None,
        attempt: int | None = None,
    ) -> None:
        self.name = f"w-{uuid4().hex}"
        self.last: Appended | None = None
        self.failure: Exception | None = None
        self.heard_s = asyncio.get_running_loop().time()
        """When the gateway last answered, by the clock of the event loop: a lease is kept up since then."""
        self._transport = transport
        self._path = f"/v1/runs/{run_id}/events"
        self._on_pending = on_pending
        self._heartbeat_s = heartbeat_s
        self._repeat_s = repeat_s
        self._headers = lease_header(lease)
        self._attempt = attempt
        self._limits = (queue_events, queue_bytes)
        self._queue: deque[bytes] = deque()
        self._queue_bytes = 0
        self._taken = 0
        self._stored = 0
        self._writer_seq = 0
        self._reported: set[int] = set()
        self._changed = asyncio.Condition()

    @property
    def waiting(self) -> int:
        """How many events the gateway has not acknowledged yet."""
        return self._taken - self._stored

    async def append(self, type: str, data: Any, *, step_id: str | None = None, parent_id: str | None = None) -> None:
        """Queue one event; waits only while the queue is full.

        Raises:
            EventTooLarge: its JSON has more than `EVENT_BYTES` bytes; it was not queued.
            ApiError, ConnectionLost: an earlier append failed for good (`InvalidState`: the run is
                over, `Fenced`: another attempt began). Nothing more will be written.
        """
        entry = _encode_event(type, data, step_id, parent_id)
        async with self._changed:
            await self._changed.wait_for(lambda: self.failure is not None or self._has_room(len(entry)))
            self._raise_failure()
            self._queue.append(entry)
            self._queue_bytes += len(entry)
            self._taken += 1
            self._changed.notify_all()

    async def flush(self) -> None:
        """Wait until everything queued so far is stored. Raises what `append` raises."""
        async with self._changed:
            target = self._taken
            await self._changed.wait_for(lambda: self.failure is not None or self._stored >= target)
            if self._stored < target:
                self._raise_failure()

    async def failed(self) -> Exception:
        """Wait until an append has failed for good, and return why."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.failure is not None)
        assert self.failure is not None
        return self.failure

    def abandon(self) -> None:
        """Drop what is queued; what is under way may still be stored."""
        self._queue.clear()
        self._queue_bytes = 0
        self._taken = self._stored

    def _raise_failure(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _has_room(self, entry_bytes: int) -> bool:
        events, size = self._limits
        return not self._queue or (len(self._queue) < events and self._queue_bytes + entry_bytes <= size)

    async def deliver(self) -> None:
        """Send what is queued, batch by batch, until cancelled or refused."""
        try:
            while True:
                batch = await self._next_batch()
                reply = await self._post(batch)
                self._report(reply)
                await self._settle(stored=len(batch))
        except Exception as failure:
            # Whatever it was, those who wait on this writer must learn that nothing more is stored.
            self.failure = failure
            await self._settle(stored=0)

    async def _next_batch(self) -> list[bytes]:
        """Return the next events to send; none at all is a heartbeat."""
        async with self._changed:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._heartbeat_s):
                    await self._changed.wait_for(lambda: self._queue)
            batch: list[bytes] = []
            size = 0
            while self._queue and len(batch) < BATCH_EVENTS and size + len(self._queue[0]) < BATCH_BYTES:
                entry = self._queue.popleft()
                batch.append(entry)
                size += len(entry) + 1
            self._queue_bytes -= sum(map(len, batch))
            self._changed.notify_all()
            return batch

    async def _post(self, batch: list[bytes]) -> Appended:
        body = b'{"events":[' + b",".join(batch) + b"]"
        if batch:
            self._writer_seq += 1
            body += b',"writer":"%s","writer_seq":%d' % (self.name.encode(), self._writer_seq)
            # Else the attempt that took the first batch; a later one must not get this one's events.
            attempt = self._attempt or (self.last.attempt if self.last is not None else None)
            if attempt is not None:
                body += b',"attempt":%d' % attempt
        response = await self._transport.send(
            "POST", self._path, content=body + b"}", headers=self._headers, repeat_s=self._repeat_s
        )
        self.heard_s = asyncio.get_running_loop().time()
        try:
            return msgspec.json.decode(response.content, type=Appended)
        except msgspec.MsgspecError as error:
            raise ProtocolError(f"an append was answered with something unexpected: {error}") from error

    def _report(self, reply: Appended) -> None:
        if self.last is None or reply.last_seq is not None:
            self.last = reply
        for pending in reply.pending:
            if self._on_pending is not None and pending.seq not in self._reported:
                self._on_pending(pending)
        self._reported = {pending.seq for pending in reply.pending}

    async def _settle(self, *, stored: int) -> None:
        async with self._changed:
            self._stored += stored
            self._changed.notify_all()


@asynccontextmanager
async def open_writer(writer: Writer) -> AsyncIterator[Writer]:
    """Deliver what `writer` queues while the block runs, and all of it before the block ends.

    A block that raises leaves at once: what was still queued is dropped.
    """
    # A plain task: a task group would wrap the block's own exceptions into a group.
    delivery = asyncio.create_task(writer.deliver())
    try:
        yield writer
        await writer.flush()
    finally:
        delivery.cancel()
        await asyncio.wait([delivery])


def _encode_event(type: str, data: Any, step_id: str | None, parent_id: str | None) -> bytes:
    event: dict[str, Any] = {"type": type, "data": data}
    if step_id is not None:
        event["step_id"] = step_id
    if parent_id is not None:
        event["parent_id"] = parent_id
    entry = msgspec.json.encode(event)
    if len(entry) > EVENT_BYTES:
        raise EventTooLarge(f"a {type} event of {len(entry)} bytes is over the limit of {EVENT_BYTES}")
    return entry
