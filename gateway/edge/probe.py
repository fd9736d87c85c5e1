"""What stands between a client and the gateway, found by bytes that are timed on both ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated, Final

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from gateway.edge.problems import describe_status, request_id_of, respond
from gateway.edge.query import decode_query, parse_query
from gateway.edge.sse import HEADERS
from gateway.errors import TooLarge

PATH: Final = "/v1/probe"
AT_ONCE: Final = 16
"""Probes that a process answers at once: anybody may ask for them."""
SLOWEST_BODY_S: Final = 15.0
ASKED_HEADERS: Final = (
    "authorization",
    "idempotency-key",
    "last-event-id",
    "lease",
    "traceparent",
    "x-api-key",
    "x-request-id",
)
"""Request headers that clients need to get through; the probe names those that came, never what they held."""


class Pace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many chunks, and how long after one another."""

    chunks: Annotated[int, msgspec.Meta(ge=1, le=20)] = 5
    pause_ms: Annotated[int, msgspec.Meta(ge=0, le=1_000)] = 200


class Probe:
    """The routes of the probe; no key is needed, no store is asked.

    Args:
        body_bytes: The largest body that is taken, as of other requests.
    """

    def __init__(self, *, body_bytes: int) -> None:
        self._body_bytes = body_bytes
        self._open = 0

    def routes(self) -> list[Route]:
        """Return `GET /v1/probe`, which streams, and `POST /v1/probe`, which takes in."""
        return [Route(PATH, self.stream, methods=["GET"]), Route(PATH, self.take, methods=["POST"])]

    async def stream(self, request: Request) -> Response:
        """Send numbered chunks at a known pace, as a stream of events is sent."""
        pace = decode_query(parse_query(request.scope["query_string"]), Pace)
        if self._open >= AT_ONCE:
            return _busy(request)
        facts = {
            "http_version": request.scope["http_version"],
            "headers": [name for name in ASKED_HEADERS if name in request.headers],
        }
        return StreamingResponse(self._chunks(pace, facts), headers=HEADERS)

    async def _chunks(self, pace: Pace, facts: dict[str, object]) -> AsyncIterator[bytes]:
        self._open += 1
        try:
            for number in range(1, pace.chunks + 1):
                if number > 1:
                    await asyncio.sleep(pace.pause_ms / 1_000)
                chunk = {"chunk": number, "of": pace.chunks, "at_ms": time.time_ns() // 1_000_000}
                yield b"data: " + msgspec.json.encode(chunk | facts if number == 1 else chunk) + b"\n\n"
        finally:
            self._open -= 1

    async def take(self, request: Request) -> Response:
        """Read a body, and say how many bytes came and over how long: whether they came as they were sent."""
        if self._open >= AT_ONCE:
            return _busy(request)
        self._open += 1
        try:
            return JSONResponse(await self._measure(request))
        except TimeoutError:
            problem = describe_status(408, "timeout", "The body did not come in time.", request_id_of(request.scope))
            return respond(problem, {"Connection": "close"})
        finally:
            self._open -= 1

    async def _measure(self, request: Request) -> dict[str, float]:
        taken_bytes, first_s = 0, None
        async with asyncio.timeout(SLOWEST_BODY_S):
            async for chunk in request.stream():
                taken_bytes += len(chunk)
                if taken_bytes > self._body_bytes:
                    raise TooLarge("The body is too large.", limit_bytes=self._body_bytes)
                if chunk and first_s is None:
                    first_s = time.perf_counter()
        took_s = 0.0 if first_s is None else time.perf_counter() - first_s
        return {"bytes": taken_bytes, "took_ms": round(took_s * 1_000, 1)}


def _busy(request: Request) -> Response:
    detail = f"{AT_ONCE} probes are under way; try again."
    return respond(describe_status(503, "busy", detail, request_id_of(request.scope)), {"Retry-After": "1"})
