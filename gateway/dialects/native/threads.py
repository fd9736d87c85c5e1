"""A thread's stream: the runs it has and those it gets, on one connection.

Its `id:` is the cursors of the runs that matter, `run:cursor` joined by commas, after the newest run that has left
the list because it had ended and was delivered to its end: `~run`. A run that is older than that and not listed is
complete for whoever holds the id, unless it is going on again: then it begins anew, after a `stream.reset`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import msgspec
from starlette.responses import Response

from gateway.dialects.native.context import Native
from gateway.dialects.native.encoders import passing
from gateway.domain import access
from gateway.domain.access import Grant
from gateway.domain.cursor import START, Cursor, parse
from gateway.domain.events import TypeFilter
from gateway.domain.lifecycle import TERMINAL
from gateway.domain.resume import start_over
from gateway.domain.run import Run
from gateway.edge import frames
from gateway.edge.frames import Message, sse_control
from gateway.entry.streaming import Lane, open_reader
from gateway.errors import BadRequest, GatewayError, LogExpired, NotFound
from gateway.hub.outlet import Outlet
from gateway.service.actors import parse_run_id
from gateway.service.listing import Filters
from gateway.service.streams import Opening, Start
from gateway.store.log import Entry

LISTED = 48
"""Runs that have ended and stay listed: a restart of one of them is followed without a reset."""

RUNS = 1_000
"""Runs of a thread that one stream follows; the newest ones."""


class ThreadPosition:
    """What a client has of a thread."""

    def __init__(self, done_through: str, cursors: dict[str, Cursor]) -> None:
        self.done_through = done_through
        self.cursors = cursors
        self._ended: set[str] = set()

    @classmethod
    def parse(cls, text: str | None) -> ThreadPosition:
        """Read an `id:`.

        Raises:
            BadRequest: it is none.
        """
        position = cls("", {})
        for part in (text or "").split(",") if text else ():
            run_id, colon, cursor = part.partition(":")
            try:
                if part.startswith("~"):
                    position.done_through = parse_run_id(part[1:])
                else:
                    position.cursors[parse_run_id(run_id)] = parse(cursor if colon else "?")
            except GatewayError:
                raise BadRequest(f"{part[:64]!r} is no position in a thread.", parameter="after") from None
        return position

    @property
    def text(self) -> str:
        """The `id:` of this position."""
        done = [f"~{self.done_through}"] if self.done_through else []
        return ",".join([*done, *(f"{run_id}:{cursor.text}" for run_id, cursor in self.cursors.items())])

    def end(self, run_id: str) -> None:
        """Note that a run was delivered to its end; the oldest such runs leave the list."""
        self._ended.add(run_id)
        while len(self._ended) > LISTED:
            oldest = min(self.cursors, default="")
            if oldest not in self._ended:
                return
            self._ended.discard(oldest)
            del self.cursors[oldest]
            self.done_through = oldest

    def go_on(self, run_id: str) -> None:
        """Note that a run that had ended is followed again."""
        self._ended.discard(run_id)

    def knows(self, run_id: str) -> bool:
        """Whether a run that is not listed was delivered to its end."""
        return run_id <= self.done_through and run_id not in self.cursors


class _RunOfThread:
    """One run of the thread over its stream."""

    def __init__(
        self, run_id: str, types: TypeFilter | None, position: ThreadPosition, on_end: Callable[[str], None]
    ) -> None:
        self._run_id = run_id
        self._types = types
        self._position = position
        self._on_end = on_end
        self.key: Hashable | None = None

    def encode(self, entries: Sequence[Entry]) -> list[Message]:
        return frames.sse_events([self._pair(entry) for entry in passing(entries, self._types)])

    def _pair(self, entry: Entry) -> tuple[bytes, bytes]:
        cursor = Cursor(entry.seq, entry.tag)
        self._position.cursors[self._run_id] = cursor
        head = f'{{"run_id":"{self._run_id}","cursor":"{cursor.text}","event":'
        return self._position.text.encode(), head.encode() + entry.line + b"}"

    def control(self, name: str, facts: dict[str, Any], cursor: Cursor | None = None) -> list[Message]:
        if name == "stream.reset":
            self._position.cursors[self._run_id] = Cursor(facts["valid_through"])
        if name == "stream.end":
            self._on_end(self._run_id)
        return [sse_control(name, {"run_id": self._run_id, **facts})]


class ThreadStream:
    """Follows a thread: its runs by their logs, new runs by the tenant's feed."""

    def __init__(self, native: Native, grant: Grant, thread_id: str, types: TypeFilter | None) -> None:
        access.require_thread(grant, thread_id)
        self._native = native
        self._grant = grant
        self._thread_id = thread_id
        self._types = types
        self._position = ThreadPosition("", {})
        self._followed: dict[str, Opening] = {}
        self._outlet: Outlet | None = None
        self._reset = False

    async def respond(self, position: str | None) -> Response:
        """Return the stream from a position on; a malformed one is told in the stream."""
        try:
            self._position = ThreadPosition.parse(position)
        except BadRequest:
            self._reset = True
        streams = self._native.streams
        tenant_wide = msgspec.structs.replace(self._grant, runs=None, thread_id=None)
        feed = await streams.open_feed(tenant_wide, Start(START))
        try:
            lanes = [lane for run_id in await self._run_ids() if (lane := await self._lane(run_id))]
        except BaseException:
            self._release(feed)
            raise
        return self._native.door.respond(
            self._grant, [], self._farewell, finite=False, follow=lambda outlet: self._follow(outlet, feed, lanes)
        )

    async def _run_ids(self) -> list[str]:
        """Return the thread's runs, oldest first."""
        grant = msgspec.structs.replace(self._grant, runs=None, thread_id=None)
        found: list[Run] = []
        before = None
        while len(found) < RUNS:
            page = await self._native.listing.runs(
                grant, Filters(thread_id=self._thread_id), before=before, limit=self._native.bounds.list_page
            )
            found += [run for run in page.runs if not (run.state.terminal and self._position.knows(run.id))]
            before = page.next_before
            if before is None:
                break
        return [run.id for run in reversed(found)]

    async def _lane(self, run_id: str) -> Lane | None:
        if run_id in self._followed:
            return None
        cursor = self._position.cursors.get(run_id, START)
        again = self._position.knows(run_id)
        try:
            grant = msgspec.structs.replace(self._grant, runs=None)
            opening = await self._native.streams.open_run(grant, run_id, Start(cursor), self._types)
        except (NotFound, LogExpired):
            return None
        if again:
            verdict = start_over("run_restarted", first_seq=opening.head.first_seq)
            opening = msgspec.structs.replace(opening, verdict=verdict, nothing_follows=False)
        self._followed[run_id] = opening
        self._position.cursors.setdefault(run_id, cursor)
        self._position.go_on(run_id)
        encoder = _RunOfThread(run_id, self._types, self._position, self._end)
        head = opening.head
        facts: dict[str, Any] = {"status": head.status, "first_seq": head.first_seq, "head_seq": head.seq}
        return Lane(opening, encoder, encoder.control("stream.open", facts | {"after_seq": opening.verdict.after_seq}))

    def _follow(self, outlet: Outlet, feed: Opening, lanes: Sequence[Lane]) -> Callable[[], None]:
        self._outlet = outlet
        facts: dict[str, Any] = {"thread_id": self._thread_id, "runs": len(lanes)}
        outlet.say([sse_control("stream.open", facts)])
        if self._reset:
            facts = {"thread_id": self._thread_id, "reason": "bad_cursor", "valid_through": 0}
            outlet.say([sse_control("stream.reset", facts)])
        for lane in lanes:
            outlet.add(open_reader(outlet, lane))
        feed.channel.listeners[self._hear] = None
        self._native.hub.spawn(self._find_new())

        def leave() -> None:
            feed.channel.listeners.pop(self._hear, None)
            self._release(feed)

        return leave

    def _hear(self, entries: Sequence[Entry]) -> None:
        """Take the feed's new entries; none means that some were missed."""
        if not entries:
            self._native.hub.spawn(self._find_new())
        for entry in entries:
            event = msgspec.json.decode(entry.line)
            if event["data"]["thread_id"] == self._thread_id and event["data"]["status"] not in TERMINAL:
                self._native.hub.spawn(self._add(event["run_id"]))

    async def _find_new(self) -> None:
        try:
            for run_id in await self._run_ids():
                await self._add(run_id)
        except GatewayError:
            self._hang_up()

    async def _add(self, run_id: str) -> None:
        outlet = self._outlet
        if outlet is None or outlet.closed:
            return
        try:
            lane = await self._lane(run_id)
        except GatewayError:
            # The client comes back with its position and finds the run then.
            self._hang_up()
            return
        if lane is None:
            return
        if outlet.closed:
            self._native.hub.release(lane.opening.channel)
            return
        outlet.add(open_reader(outlet, lane))

    def _end(self, run_id: str) -> None:
        """A run was delivered to its end; should it be restarted, the feed says so."""
        opening = self._followed.pop(run_id, None)
        if opening is not None:
            self._native.hub.release(opening.channel)
        self._position.end(run_id)

    def _hang_up(self) -> None:
        if self._outlet is not None:
            self._outlet.close(self._farewell("store_unavailable", self._outlet), hang_up=True)

    def _release(self, feed: Opening) -> None:
        self._native.hub.release(feed.channel)
        for opening in self._followed.values():
            self._native.hub.release(opening.channel)
        self._followed.clear()

    def _farewell(self, reason: str, _outlet: Outlet) -> Sequence[Message]:
        return [sse_control("stream.closed", {"reason": reason, "resume_after": self._position.text})]
