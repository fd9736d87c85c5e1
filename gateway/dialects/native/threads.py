"""A thread's stream: the runs it has and those it gets, on one connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from starlette.responses import Response

from gateway.dialects.native.context import Native
from gateway.dialects.native.encoders import RunOfThread, opened
from gateway.dialects.native.thread_position import ThreadPosition
from gateway.domain import access
from gateway.domain.access import Grant
from gateway.domain.cursor import START
from gateway.domain.events import TypeFilter
from gateway.domain.lifecycle import TERMINAL
from gateway.domain.resume import start_over
from gateway.edge.frames import sse_control
from gateway.entry.streaming import Lane, open_reader
from gateway.errors import NotFound, StoreUnavailable
from gateway.hub.channel import Channel
from gateway.hub.outlet import Outlet
from gateway.hub.reader import Reader
from gateway.service.listing import Filters
from gateway.service.streams import Start
from gateway.store.log import Entry

PAGES = 20
"""Pages of a thread's runs, the newest first, that are looked at when its stream is opened."""

RUNS = 1_000
"""Runs that one stream follows at once."""

CLOSING = 8
"""Runs that had ended when they were opened and are sent at once, the oldest first: the `id:` names each of them."""


class ThreadStream:
    """Follows a thread: its runs by their logs, new runs by the tenant's feed.

    One task opens runs, one after another, and waits for the store where it is away.
    """

    def __init__(self, native: Native, grant: Grant, thread_id: str, types: TypeFilter | None) -> None:
        access.require_thread(grant, thread_id)
        self._native = native
        self._grant = grant
        self._thread_id = thread_id
        self._types = types
        self._position = ThreadPosition({})
        self._followed: dict[str, Reader] = {}
        self._waiting: set[str] = set()
        self._heard: set[str] = set()
        self._list_again = True
        self._truncated = False
        self._woken = asyncio.Event()
        self._mark = b'"thread_id":' + msgspec.json.encode(thread_id)

    async def respond(self, position: str | None) -> Response:
        """Return the stream from a position on; None, a malformed one, is told in the stream."""
        self._position = ThreadPosition.parse(position or "")
        hub, door = self._native.hub, self._native.door
        # Followed before the runs are listed: one that is created between the two would be missed.
        feed = await self._native.streams.open_feed(self._tenant_wide(), Start(START))
        try:
            await self._list_runs()
        except BaseException:
            hub.release(feed.channel)
            raise

        def follow(outlet: Outlet) -> Callable[[], None]:
            return self._follow(outlet, feed.channel, malformed=position is None)

        return door.respond(
            self._grant,
            [],
            lambda reason, _outlet: door.closed(reason, self._position.text),
            finite=False,
            follow=follow,
            on_leave=self._leave,
            on_refused=lambda: hub.release(feed.channel),
        )

    def _tenant_wide(self) -> Grant:
        """Return the grant without its bound to the thread, which every look here has of its own."""
        return msgspec.structs.replace(self._grant, runs=None, thread_id=None)

    async def _list_runs(self) -> None:
        """Note the runs of which the client may lack something, and those that it has to their end."""
        filters, before = Filters(thread_id=self._thread_id), None
        complete: dict[str, int] = {}
        for _ in range(PAGES):
            page = await self._native.listing.runs(
                self._tenant_wide(), filters, before=before, limit=self._native.bounds.list_page
            )
            for run in page.runs:
                if not self._position.has_all_of(run):
                    self._want(run.id)
                elif run.id in self._position.cursors and run.id not in self._followed:
                    complete[run.id] = run.state.ended_ms or 0
            before = page.next_before
            if before is None:
                break
        self._truncated = before is not None
        # Not before all are known: what is older than one that leaves the list counts as seen.
        for run_id, ended_ms in complete.items():
            self._position.end(run_id, ended_ms, min(self._waiting, default=None))

    def _follow(self, outlet: Outlet, feed: Channel, *, malformed: bool) -> Callable[[], None]:
        facts: dict[str, Any] = {"thread_id": self._thread_id, "runs": len(self._waiting)}
        if self._truncated:
            facts["truncated"] = True
        outlet.say([sse_control("stream.open", facts)])
        if malformed:
            facts = {"thread_id": self._thread_id, "reason": "bad_cursor", "valid_through": 0}
            outlet.say([sse_control("stream.reset", facts)])

        def hear(entries: Sequence[Entry]) -> None:
            if feed.gone:
                outlet.dismiss("run_gone")
            self._hear(entries)

        def leave() -> None:
            del feed.listeners[hear]
            self._native.hub.release(feed)
            for reader in self._followed.values():
                self._native.hub.release(reader.channel)
            self._followed.clear()
            self._woken.set()

        feed.listeners[hear] = None
        # Again, since the feed was not listened to while they were listed.
        self._woken.set()
        self._native.hub.spawn(self._attend(outlet))
        return leave

    def _hear(self, entries: Sequence[Entry]) -> None:
        """Take the feed's new entries; none means that some were missed."""
        self._list_again = self._list_again or not entries
        for entry in entries:
            if self._mark in entry.line:
                event = msgspec.json.decode(entry.line)
                if event["data"]["status"] not in TERMINAL and event["data"]["thread_id"] == self._thread_id:
                    self._want(event["run_id"])
        self._woken.set()

    def _want(self, run_id: str) -> None:
        # One that is followed may just be ending, before this: it is looked at again after that.
        (self._heard if run_id in self._followed else self._waiting).add(run_id)

    async def _attend(self, outlet: Outlet) -> None:
        """Open the runs that wait for it, the oldest first, for as long as the connection stands."""
        while not outlet.closed:
            await self._woken.wait()
            self._woken.clear()
            try:
                if self._list_again:
                    await self._list_runs()
                    self._list_again = False
                await self._open_waiting(outlet)
            except StoreUnavailable:
                await self._native.hub.wait_store()
                self._woken.set()
            except Exception:
                # Whoever comes back finds what could not be added here.
                outlet.dismiss("failed")
                raise

    async def _open_waiting(self, outlet: Outlet) -> None:
        while self._waiting and self._has_room() and not outlet.closed:
            run_id = min(self._waiting)
            try:
                lane = await self._open(run_id)
            except NotFound:
                self._position.forget(run_id)
                lane = None
            self._waiting.discard(run_id)
            if lane is None:
                continue
            if outlet.closed:
                self._native.hub.release(lane.opening.channel)
                return
            reader = self._followed[run_id] = open_reader(outlet, lane)
            outlet.add(reader)

    def _has_room(self) -> bool:
        closing = sum(_run_of(reader).closing for reader in self._followed.values())
        return closing < CLOSING and len(self._followed) < RUNS

    async def _open(self, run_id: str) -> Lane | None:
        """Open a run where the client stands in it; None when it has all of it, or may not see it."""
        again, known = self._position.passed(run_id), self._position.cursors.get(run_id)
        grant = msgspec.structs.replace(self._grant, runs=None)
        opening = await self._native.streams.open_run(grant, run_id, Start(known or START), self._types, expired=True)
        if again:
            # Where the client was in it is forgotten; it begins anew.
            verdict = start_over("run_restarted", first_seq=opening.head.first_seq)
            opening = msgspec.structs.replace(opening, verdict=verdict)
        elif opening.nothing_follows and known is not None:
            self._native.hub.release(opening.channel)
            await self._note_end(grant, run_id)
            return None
        self._position.follow(run_id)
        encoder = RunOfThread(run_id, self._types, self._position, closing=opening.head.status in TERMINAL)
        return Lane(opening, encoder, opened(encoder, opening))

    async def _note_end(self, grant: Grant, run_id: str) -> None:
        run = await self._native.runs.get(grant, run_id)
        self._position.end(run_id, run.state.ended_ms or 0, min(self._waiting, default=None))

    def _leave(self, reader: Reader) -> None:
        """A run was delivered to its end, or does not exist any more; should it go on again, the feed says so."""
        run = _run_of(reader)
        if self._followed.pop(run.run_id, None) is None:
            return
        self._native.hub.release(reader.channel)
        if reader.channel.gone:
            self._position.forget(run.run_id)
        else:
            ended_ms = run.ended_ms or self._native.clock.now_ms()
            self._position.end(run.run_id, ended_ms, min(self._waiting, default=None))
        if run.run_id in self._heard:
            self._heard.discard(run.run_id)
            self._waiting.add(run.run_id)
        self._woken.set()


def _run_of(reader: Reader) -> RunOfThread:
    encoder = reader.encoder
    if not isinstance(encoder, RunOfThread):
        raise TypeError("a thread's stream has readers of runs only")
    return encoder
