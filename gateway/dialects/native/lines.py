"""A streamed append: one event a line, each answered by a line of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence

import msgspec
from starlette.requests import Request

from gateway.dialects.native.context import Native
from gateway.dialects.native.wire import IncomingEvent
from gateway.domain.events import NewEvent
from gateway.edge.body import decode_json, read_lines
from gateway.edge.problems import describe_problem, request_id_of
from gateway.errors import Draining, GatewayError, IdempotencyMismatch, StoreUnavailable, WriterStale
from gateway.service.actors import Caller
from gateway.service.writing import Batch

IDLE_S = 300.0
AROUND_BYTES = 2_048
"""What a line may have around its event's data."""


class StreamedAppend:
    """Stores lines that came together in one append; a line that is refused ends the stream.

    Args:
        number: The writer's number of the first line; each line counts one.
        position: The writer's last stored number: lines up to it are acknowledged, not stored again.
        look_up: Returns that number as it is by now: a connection that broke may still store what it had brought.
    """

    def __init__(
        self,
        native: Native,
        request: Request,
        caller: Caller,
        run_id: str,
        *,
        writer: str | None,
        number: int | None,
        position: int,
        look_up: Callable[[], Awaitable[int]],
        attempt: int | None,
        lease: str | None,
    ) -> None:
        self._native = native
        self._request = request
        self._caller = caller
        self._run_id = run_id
        self._writer = writer
        self._number = number
        self._position = position
        self._look_up = look_up
        self._attempt = attempt
        self._lease = lease
        self._done = 0

    async def answers(self) -> AsyncGenerator[bytes, None]:
        """Yield an answer a line: `{"line":1,"seq":7}`; `{"line":3,"error":problem}` is the last one."""
        line_bytes = self._native.bounds.event_bytes + AROUND_BYTES
        try:
            waits = self._native.door.waits
            async for lines in read_lines(self._request, line_bytes=line_bytes, idle_s=IDLE_S, waits=waits):
                # The request may have begun long ago.
                await self._native.callers.readmit(self._caller.grant)
                known = self._known(len(lines))
                if known:
                    yield self._tell_known(known)
                async for answer in self._store(lines[known:]):
                    yield answer
        except Draining:
            raise
        except GatewayError as error:
            # A line is an event; which one of those that came with it means nothing to its sender.
            error.detail = error.detail.removeprefix(f"events[{error.facts.pop('index', 0)}]: ")
            problem = describe_problem(error, request_id_of(self._request.scope))
            yield msgspec.json.encode({"line": self._done + 1, "error": problem}) + b"\n"

    async def _store(self, lines: Sequence[bytes]) -> AsyncIterator[bytes]:
        events: list[NewEvent] = []
        failure: GatewayError | None = None
        for line in lines:
            try:
                events.append(decode_json(line, IncomingEvent).new_event())
            except GatewayError as error:
                failure = error
                break
        if events:
            async for answer in self._append(events):
                yield answer
        if failure is not None:
            raise failure

    async def _append(self, events: Sequence[NewEvent]) -> AsyncIterator[bytes]:
        rest: Sequence[Sequence[NewEvent]] = ()
        try:
            yield await self._append_together(events)
        except StoreUnavailable:
            raise
        except (WriterStale, IdempotencyMismatch):
            self._position = await self._look_up()
            known = self._known(len(events))
            if not known:
                raise
            yield self._tell_known(known)
            rest = [events[known:]] if known < len(events) else ()
        except GatewayError:
            if len(events) == 1:
                raise
            # Lines before the refused one stand on their own.
            rest = [[event] for event in events]
        for part in rest:
            async for answer in self._append(part):
                yield answer

    async def _append_together(self, events: Sequence[NewEvent]) -> bytes:
        first = None if self._number is None else self._number + self._done
        batch = Batch(
            events=events,
            writer=self._writer,
            number=first,
            last_number=None if first is None else first + len(events) - 1,
            attempt=self._attempt,
            lease=self._lease,
        )
        written = await self._native.writing.append(self._caller, self._run_id, batch)
        # Only before an event that ends the run does the gateway write between, and nothing comes after that one.
        seqs = [*range(written.first_seq, written.first_seq + len(events) - 1), written.last_seq]
        return self._tell([b'"seq":%d' % seq for seq in seqs])

    def _known(self, count: int) -> int:
        if self._number is None:
            return 0
        return max(0, min(count, self._position - (self._number + self._done) + 1))

    def _tell_known(self, count: int) -> bytes:
        return self._tell([b'"duplicate":true'] * count)

    def _tell(self, facts: Sequence[bytes]) -> bytes:
        first = self._done + 1
        self._done += len(facts)
        return b"".join(b'{"line":%d,%b}\n' % (first + index, fact) for index, fact in enumerate(facts))
