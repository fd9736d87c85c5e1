"""From opened logs to an SSE response."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from starlette.responses import Response

from gateway.domain.access import Grant
from gateway.edge import frames
from gateway.edge.sse import Dropped, EventStream
from gateway.errors import StoreUnavailable
from gateway.hub.hub import Hub
from gateway.hub.outlet import Message, Outlet
from gateway.hub.reader import Encoder, Reader
from gateway.service.streams import Opening

RETRY_STORE_S = 0.1


class Lane(msgspec.Struct, frozen=True):
    """One log of a stream: where it was opened, how it is shown, what is said before its events."""

    opening: Opening
    encoder: Encoder
    preface: Sequence[Message] = ()


class SseDoor:
    """Turns lanes into responses.

    Args:
        hold_s: How long a request is held while the store is away, before its connection is dropped.
    """

    def __init__(self, hub: Hub, *, retry_ms: int, hold_s: float) -> None:
        self._hub = hub
        self._hold_s = hold_s
        self.retry = frames.sse_retry(retry_ms)
        self.draining = False

    async def hold(self, answer: Callable[[], Awaitable[Response]]) -> Response:
        """Return the answer, trying again while the store is away; in the end, drop the connection."""
        deadline_s = asyncio.get_running_loop().time() + self._hold_s
        while not self.draining:
            try:
                return await answer()
            except StoreUnavailable:
                if asyncio.get_running_loop().time() >= deadline_s:
                    break
                await asyncio.sleep(RETRY_STORE_S)
        return Dropped()

    def respond(
        self,
        grant: Grant,
        lanes: Sequence[Lane],
        farewell: Callable[[str, Outlet], Sequence[Message]],
        *,
        finite: bool = True,
        follow: Callable[[Outlet], Callable[[], None]] | None = None,
    ) -> Response:
        """Return the stream of these lanes, or 204 when nothing will ever come of any of them.

        Args:
            farewell: What is said before the connection is hung up: a reason, and where the readers stand.
            finite: End the response when every lane has ended.
            follow: Called with the outlet to add more readers later; returns what to call at the end.
        """
        if finite and lanes and all(lane.opening.nothing_follows for lane in lanes):
            self.release(lanes)
            return Response(status_code=204)

        def connect(send: Any, hang_up: Callable[[], None]) -> Callable[[], None]:
            outlet: Outlet = self._hub.open_outlet(
                send,
                hang_up=hang_up,
                transport="sse",
                ping=[frames.sse_body(frames.PING)],
                finish=[frames.END] if finite else [],
                farewell=lambda reason: farewell(reason, outlet),
                grant=grant,
            )
            outlet.say([self.retry])
            for lane in lanes:
                outlet.add(open_reader(outlet, lane))
            unfollow = follow(outlet) if follow else None

            def leave() -> None:
                if unfollow:
                    unfollow()
                self._hub.close_outlet(outlet)
                self.release(lanes)

            if self.draining:
                outlet.close(hang_up=True)
            return leave

        return EventStream(connect)

    def release(self, lanes: Sequence[Lane]) -> None:
        """Follow the lanes' logs no more."""
        for lane in lanes:
            self._hub.release(lane.opening.channel)


def open_reader(outlet: Outlet, lane: Lane) -> Reader:
    """Return a reader that stands where its lane was opened, with everything to be said first."""
    opening = lane.opening
    reader = Reader(opening.channel, outlet, lane.encoder, after=opening.start, preface=lane.preface)
    reader.follow(opening.verdict, opening.head.seq)
    return reader
