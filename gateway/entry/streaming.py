"""From opened logs to an SSE response."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

import msgspec
from starlette.responses import Response

from gateway.domain.access import Grant
from gateway.edge import frames
from gateway.edge.sse import Dropped, EventStream, Line
from gateway.edge.waits import Waits
from gateway.entry.places import Places
from gateway.errors import Draining, StoreUnavailable, TooManyRequests
from gateway.hub.channel import Channel
from gateway.hub.hub import Hub
from gateway.hub.outlet import Message, Outlet
from gateway.hub.reader import Encoder, Reader
from gateway.service.streams import Opening

RETRY_STORE_S = 0.1

PING = (frames.sse_body(frames.PING),)
FINISH = (frames.END,)

T = TypeVar("T")

Farewell = Callable[[str, Outlet], Sequence[Message]]
Follow = Callable[[Outlet], Callable[[], None]]


class Lane(msgspec.Struct, frozen=True):
    """One log of a stream: where it was opened, how it is shown, what is said before its events."""

    opening: Opening
    encoder: Encoder
    preface: Sequence[Message] = ()


class SseDoor:
    """Turns lanes into responses.

    Args:
        places: For streams that are open at once.
        hold_s: How long a request is held while the store is away, before its connection is dropped.
    """

    def __init__(self, hub: Hub, places: Places, *, retry_ms: int, hold_s: float) -> None:
        self._hub = hub
        self.places = places
        self._hold_s = hold_s
        self._retry_ms = retry_ms
        self.retry = frames.sse_retry(retry_ms)
        self.draining = False
        self.waits = Waits()

    async def hold(self, answer: Callable[[], Awaitable[Response]]) -> Response:
        """Return the answer, trying again while the store is away or too much is asked for; in the end, drop the
        connection."""
        try:
            return await self.wait_store(answer, self.deadline_s())
        except (StoreUnavailable, TooManyRequests, Draining):
            return Dropped()

    def deadline_s(self) -> float:
        """Return until when whoever begins to wait for the store now is held, on the monotonic clock."""
        return time.monotonic() + self._hold_s

    async def wait_store(self, call: Callable[[], Awaitable[T]], deadline_s: float) -> T:
        """Return what `call` returns, trying again while the store is away, or its caller asks for too much.

        Raises:
            StoreUnavailable, TooManyRequests: it still was so at the deadline.
            Draining: this process is about to stop.
        """
        while True:
            if self.draining:
                raise Draining("This process is about to stop.")
            try:
                return await call()
            except (StoreUnavailable, TooManyRequests) as error:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    raise
                # Those who are held together do not come back together.
                busy = isinstance(error, TooManyRequests)
                pause_s = random.uniform(0, 1 + error.facts["retry_after_s"]) if busy else RETRY_STORE_S
            await asyncio.sleep(min(pause_s, left_s))

    def respond(
        self,
        grant: Grant,
        lanes: Sequence[Lane],
        farewell: Farewell,
        *,
        finite: bool = True,
        linger_s: float | None = None,
        follow: Follow | None = None,
        on_leave: Callable[[Reader], None] | None = None,
        on_refused: Callable[[], None] | None = None,
    ) -> Response:
        """Return the stream of these lanes, or 204 when nothing will ever come of any of them.

        Args:
            farewell: What is said before the connection is hung up: a reason, and where the readers stand.
            finite: End the response when every lane has ended.
            linger_s: The least pause between two writes of events; None for the gateway's own.
            follow: Called with the outlet to add more readers later; returns what to call at the end.
            on_leave: Told of each reader that has ended; a stream that has this outlives them.
            on_refused: Called instead of `follow` where there is no place for another stream.
        """
        if finite and lanes and all(lane.opening.nothing_follows for lane in lanes):
            self.release(lanes)
            return Response(status_code=204)

        stream = _Stream(self, self._hub, grant, lanes, farewell, finite=finite, linger_s=linger_s)
        stream.follow, stream.on_leave, stream.on_refused = follow, on_leave, on_refused
        return EventStream(stream.connect, lambda: self.places.enter(grant), stream.refuse)

    def closed(self, reason: str, resume_after: str | None) -> list[Message]:
        """Return the last frame of a stream that is about to be hung up.

        Readers that are sent away together are asked to come back apart.
        """
        retry_ms = random.randint(self._retry_ms // 2, 2 * self._retry_ms) if reason == "drain" else None
        facts = {"reason": reason, "resume_after": resume_after}
        return [frames.sse_control("stream.closed", facts, retry_ms=retry_ms)]

    def end(self, grant: Grant, outlet: Outlet, channels: Sequence[Channel]) -> None:
        """Give back what a stream had that was connected."""
        self._hub.close_outlet(outlet)
        for channel in channels:
            self._hub.release(channel)
        self.places.leave(grant)

    def release(self, lanes: Sequence[Lane]) -> None:
        """Follow the lanes' logs no more."""
        for lane in lanes:
            self._hub.release(lane.opening.channel)


class _Stream:
    """One stream, from its door to its end; what may be set of it is said at `SseDoor.respond`."""

    def __init__(
        self,
        door: SseDoor,
        hub: Hub,
        grant: Grant,
        lanes: Sequence[Lane],
        farewell: Farewell,
        *,
        finite: bool,
        linger_s: float | None,
    ) -> None:
        self._door = door
        self._hub = hub
        self._grant = grant
        self._lanes = lanes
        self._farewell = farewell
        self._finite = finite
        self._linger_s = linger_s
        self.follow: Follow | None = None
        self.on_leave: Callable[[Reader], None] | None = None
        self.on_refused: Callable[[], None] | None = None

    def connect(self, line: Line) -> Callable[[], None]:
        """Begin on a connection; returns what to call when that is gone."""
        # What lives as long as the connection must not hold what was said at its beginning: not this, by `self`.
        farewell, channels = self._farewell, [lane.opening.channel for lane in self._lanes]
        outlet: Outlet = self._hub.open_outlet(
            line.send,
            write=line.write,
            hang_up=line.hang_up,
            unsent=line.unsent,
            peer=line.peer,
            transport="sse",
            ping=PING,
            finish=FINISH if self._finite else (),
            farewell=lambda reason: farewell(reason, outlet),
            on_leave=self.on_leave,
            grant=self._grant,
            linger_s=self._linger_s,
        )
        retry = self._door.retry
        if not self._lanes:
            outlet.say([retry])
        # In one write with what the first one begins with.
        outlet.add(*[open_reader(outlet, lane, () if i else (retry,)) for i, lane in enumerate(self._lanes)])
        unfollow = self.follow(outlet) if self.follow else None
        if self._door.draining:
            outlet.dismiss("drain")
        return partial(_leave, self._door, self._grant, outlet, channels, unfollow)

    def refuse(self) -> None:
        """Let go of everything: there is no place for the stream."""
        self._door.release(self._lanes)
        if self.on_refused is not None:
            self.on_refused()


def _leave(
    door: SseDoor, grant: Grant, outlet: Outlet, channels: Sequence[Channel], unfollow: Callable[[], None] | None
) -> None:
    """End a stream that was connected."""
    if unfollow:
        unfollow()
    door.end(grant, outlet, channels)


def open_reader(outlet: Outlet, lane: Lane, before: Sequence[Message] = ()) -> Reader:
    """Return a reader that stands where its lane was opened, with everything to be said first."""
    opening = lane.opening
    preface = [*before, *lane.preface]
    reader = Reader(opening.channel, outlet, lane.encoder, after=opening.start, preface=preface)
    reader.follow(opening.verdict, opening.head.seq)
    return reader
