"""The timed-byte probe, from the client's end: when each chunk came, against when it was sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import httpx
import msgspec

from gateway.edge.probe import PATH

CHUNKS: Final = 5
PAUSE_MS: Final = 200
BODY_CHUNKS: Final = 5
BODY_PAUSE_S: Final = 0.15
DATA: Final = "data: "


class Arrivals(msgspec.Struct, frozen=True):
    """What came of a probe.

    Args:
        first_s: From the request to the first chunk.
        held_s: How much longer the first chunk was under way than the last.
        span_s: From the sending of the first chunk to that of the last.
        facts: What the gateway says of the request as it saw it.
    """

    first_s: float
    held_s: float
    span_s: float
    facts: Mapping[str, Any]
    headers: httpx.Headers
    http_version: str

    @property
    def are_held(self) -> bool:
        """Whether chunks wait for one another on their way."""
        return self.held_s > self.span_s / 2


async def time_stream(http: httpx.AsyncClient, headers: Mapping[str, str]) -> Arrivals:
    """Ask for numbered chunks and time them.

    Raises:
        httpx.HTTPError: the request failed, or was refused.
        ValueError: what came is no answer of a gateway.
    """
    began_s = time.perf_counter()
    parameters = {"chunks": CHUNKS, "pause_ms": PAUSE_MS}
    asked = {"accept": "text/event-stream", "accept-encoding": "gzip, deflate", **headers}
    async with http.stream("GET", PATH, params=parameters, headers=asked) as answer:
        answer.raise_for_status()
        came = [(time.perf_counter(), _read(line)) async for line in _lines(answer) if line.startswith(DATA)]
        head, version = answer.headers, answer.http_version
    if len(came) != CHUNKS:
        raise ValueError(f"{len(came)} of {CHUNKS} chunks came")
    (first_at_s, first), (last_at_s, last) = came[0], came[-1]
    span_s = (last["at_ms"] - first["at_ms"]) / 1_000
    return Arrivals(
        first_s=first_at_s - began_s,
        held_s=span_s - (last_at_s - first_at_s),
        span_s=span_s,
        facts=first,
        headers=head,
        http_version=version,
    )


def _read(line: str) -> dict[str, Any]:
    return msgspec.json.decode(line.removeprefix(DATA).encode(), type=dict[str, Any])


async def _lines(answer: httpx.Response) -> AsyncIterator[str]:
    """Yield lines as they come: httpx's own waits for what follows a line's end."""
    left = ""
    async for text in answer.aiter_text():
        *whole, left = (left + text).split("\n")
        for line in whole:
            yield line


async def time_body(http: httpx.AsyncClient, size_bytes: int) -> tuple[httpx.Response, float]:
    """Send a body in chunks with pauses between; return the answer and over how many seconds it was sent.

    Raises:
        httpx.HTTPError: the request failed.
    """
    sent_s: list[float] = []

    async def chunks() -> AsyncIterator[bytes]:
        for number in range(BODY_CHUNKS):
            if number:
                await asyncio.sleep(BODY_PAUSE_S)
            sent_s.append(time.perf_counter())
            yield b"x" * (size_bytes // BODY_CHUNKS)

    answer = await http.post(PATH, content=chunks())
    return answer, sent_s[-1] - sent_s[0]
