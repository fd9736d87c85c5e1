"""Readers that cost next to nothing: raw protocols that count frames, check seqs and sample the time."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from typing import cast

KEPT_BYTES = 1_024
_ID = re.compile(rb"\nid: (\d+)-?\d*\n")
_SENT = re.compile(rb'"sent_ns":(\d+)')


class Reader(asyncio.Protocol):
    """One SSE connection.

    A reader counts frames and keeps the end of what came: that their number equals the distance of the first and the
    last seq shows, at the end, that every event came once. A sampling one also checks each seq and takes each age.
    """

    def __init__(self, request: bytes, *, sampling: bool) -> None:
        self._request = request
        self._sampling = sampling
        self._rest = b""
        self._frames = 0
        self.opened = False
        self.faults = 0
        self.closed = False
        self.ages_ms: list[float] = []
        self._last = 0

    @property
    def last_seq(self) -> int:
        """The last event's seq."""
        found = _ID.findall(self._rest)
        return int(found[-1]) if found else self._last

    @property
    def events(self) -> int:
        """Frames with an id, whole or not."""
        return self._frames

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the stream."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Count, and keep the end."""
        rest = self._rest
        self._frames += (rest[-4:] + data).count(b"\nid: ")
        if self._sampling:
            self._check(rest, data)
        if not self.opened and b"stream.open" in data:
            self.opened = True
        self._rest = data if len(data) > KEPT_BYTES else (rest + data)[-KEPT_BYTES:]

    def _check(self, rest: bytes, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        self.ages_ms += [(now_ns - int(sent)) / 1e6 for sent in _SENT.findall(data)]
        for found in _ID.findall(rest[-24:] + data):
            seq = int(found)
            if seq > self._last + 1 and self._last:
                self.faults += 1
            self._last = max(seq, self._last)

    def connection_lost(self, exc: Exception | None) -> None:
        """Remember it."""
        self.closed = True


async def open_readers(
    host: str, port: int, path: str, headers: dict[str, str], count: int, *, sample_every: int = 20
) -> Sequence[Reader]:
    """Open `count` SSE connections, 100 at a time."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}:{port}", "Accept: text/event-stream"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    request = ("\r\n".join(lines) + "\r\n\r\n").encode()
    loop = asyncio.get_running_loop()
    readers: list[Reader] = []
    for start in range(0, count, 100):
        made = [Reader(request, sampling=(start + i) % sample_every == 0) for i in range(min(100, count - start))]
        await asyncio.gather(*(loop.create_connection(lambda r=r: r, host, port) for r in made))  # type: ignore[misc]
        readers += made
    return readers
