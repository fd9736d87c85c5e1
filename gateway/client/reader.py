"""Streams that outlive their connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Protocol, TypeVar

from gateway.client.errors import ConnectionLost, ProtocolError, Unavailable
from gateway.client.frames import Frame
from gateway.client.position import StreamBroken
from gateway.client.transport import Transport

Item = TypeVar("Item", covariant=True)

BROKEN_STREAMS = 5
"""So many unreadable streams in a row, with nothing read in between, are no accident."""


class Place(Protocol[Item]):
    """Where a reader is: what opens a stream there, and what a frame of it gives."""

    def params(self) -> dict[str, str]:
        """Return the query parameters that open the stream here."""
        ...

    def headers(self) -> dict[str, str]:
        """Return the headers that open the stream here."""
        ...

    def accept(self, frame: Frame) -> Item | None:
        """Move past `frame`; raises StreamBroken."""
        ...


async def read_stream(
    transport: Transport,
    path: str,
    place: Place[Item],
    *,
    params: Mapping[str, str],
    patience_s: float | None,
) -> AsyncGenerator[Item, None]:
    """Yield what a stream brings, opening it again where it broke, until the gateway ends it.

    Args:
        patience_s: how long the gateway may be away, in seconds; None waits for ever.

    Raises:
        ApiError: the gateway refused, at the start or later (a revoked key, an expired log).
        ConnectionLost: it was away for longer than `patience_s`.
        ProtocolError: what it sends makes no sense, repeatedly.
    """
    attempts = _Attempts(transport, patience_s)
    while True:
        try:
            opened = transport.frames(path, params={**params, **place.params()}, headers=place.headers())
            async with aclosing(opened) as frames:
                async for frame in frames:
                    attempts.heard(frame)
                    if frame.name == "stream.end":
                        return
                    item = place.accept(frame)
                    if item is not None:
                        attempts.understood()
                        yield item
        except (ConnectionLost, Unavailable) as error:
            await attempts.pause(error)
        except StreamBroken as error:
            await attempts.pause(attempts.misunderstood(error))
        else:
            await attempts.pause(ConnectionLost("the stream ended before the run did"))


class _Attempts:
    """How often in a row a stream failed, and for how long the gateway has been away."""

    def __init__(self, transport: Transport, patience_s: float | None) -> None:
        self._backoff = transport.backoff
        self._clock = asyncio.get_running_loop().time
        self._patience_s = patience_s
        self._retry_s: float | None = None
        self._failures = 0
        self._broken = 0
        self._heard_at = self._clock()

    def heard(self, frame: Frame) -> None:
        """Note that the gateway is there, and how soon it wants to be called back."""
        self._failures = 0
        self._heard_at = self._clock()
        if frame.retry_ms is not None:
            self._retry_s = frame.retry_ms / 1000

    def understood(self) -> None:
        """Note that the stream makes sense."""
        self._broken = 0

    def misunderstood(self, error: StreamBroken) -> ConnectionLost:
        """Return the reason to try again, unless it has been the reason too often."""
        self._broken += 1
        if self._broken >= BROKEN_STREAMS:
            raise ProtocolError(str(error)) from error
        return ConnectionLost(str(error))

    async def pause(self, error: ConnectionLost | Unavailable) -> None:
        """Wait before the next attempt, or raise `error` when patience has ended."""
        delay_s = self._backoff.delay_s(self._failures, initial_s=self._retry_s)
        if isinstance(error, Unavailable) and error.retry_after_s is not None:
            delay_s = max(delay_s, min(error.retry_after_s, self._backoff.max_s))
        away_s = self._clock() - self._heard_at
        if self._patience_s is not None and away_s + delay_s > self._patience_s:
            raise error
        self._failures += 1
        await asyncio.sleep(delay_s)
