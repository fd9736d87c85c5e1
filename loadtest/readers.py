"""Readers that cost next to nothing: raw protocols that count frames, check seqs and sample the time."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from typing import cast

_ID = re.compile(rb"(?:^|\n)id: (\d+)")
_SENT = re.compile(rb'"sent_ns":(\d+)')


class Reader(asyncio.Protocol):
    """One SSE connection.

    Every reader counts its events and checks that their seqs are dense; a sampling one also takes each event's age.
    """

    def __init__(self, request: bytes, *, sampling: bool) -> None:
        self._request = request
        self._sampling = sampling
        self._rest = b""
        self.opened = False
        self.events = 0
        self.last_seq = 0
        self.faults = 0
        self.closed = False
        self.ages_ms: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the stream."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Take whole frames; what is cut waits for its rest."""
        data = self._rest + data
        end = data.rfind(b"\n\n")
        if end < 0:
            self._rest = data
            return
        whole, self._rest = data[: end + 2], data[end + 2 :]
        if not self.opened and b"event: stream.open" in whole:
            self.opened = True
        for found in _ID.finditer(whole):
            seq = int(found[1])
            if self.last_seq and seq != self.last_seq + 1:
                self.faults += 1
            self.last_seq = seq
            self.events += 1
        if self._sampling:
            now_ns = time.monotonic_ns()
            self.ages_ms += [(now_ns - int(sent)) / 1e6 for sent in _SENT.findall(whole)]

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
