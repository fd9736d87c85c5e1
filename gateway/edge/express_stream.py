"""Streams, answered from the connection itself: the route's own handler, and neither a server's request nor layers.

What is recognised is whole, plain, and asks for nothing but the route: its parameter, a query, headers. Everything else
goes the application's way, and is answered there in the same words.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from gateway import telemetry, tracing
from gateway.edge.body import explain_undecodable
from gateway.edge.limits import Limits, Visit, begin_visit
from gateway.edge.plain import HEAD_BYTES, NAME_BYTES, UNUSUAL, find_header, join_fields, parse_headers
from gateway.edge.problems import problem_response, read_names
from gateway.edge.sse import Dropped, EventStream, Line
from gateway.edge.stream_connection import EARLY_BYTES, StreamConnection
from gateway.errors import GatewayError

QUERY_BYTES: Final = 16 * 1024
"""A position and a ticket fit in it."""
_QUERY: Final = rb"[A-Za-z0-9._~%!$&'()*+,;=:@/?-]"
_SENDS_BODY: Final = frozenset({b"content-length"})
_CHUNKED: Final = b"transfer-encoding: chunked\r\n"

log = logging.getLogger("gateway.requests")


class Desk(Protocol):
    """What is done with the connection: a courier's side that this way needs."""

    async def answer(self, status: int, fields: bytes, payload: bytes) -> None:
        """Write an answer, and go on to the next request."""

    def begin_stream(self, fields: bytes) -> StreamConnection | None:
        """Leave the connection to a stream, its head about to be written; None where the peer has left."""

    def drop(self) -> None:
        """End the connection without an answer."""


class Asked(msgspec.Struct, frozen=True):
    """A request: what the handler sees of it, and how many bytes it has."""

    scope: Scope
    size: int


class ExpressStream:
    """A route that is answered so: `GET`, with one variable part in its path.

    Args:
        path: The template of the path.
        endpoint: The route's; it sees the scope's path parameters, query, headers and state.
        limits: What requests may cost; None where nothing is limited.
    """

    def __init__(
        self, path: str, endpoint: Callable[[Request], Awaitable[Response]], limits: Limits | None = None
    ) -> None:
        self._route = path
        self._endpoint = endpoint
        self._limits = limits
        self._before, _, rest = path.partition("{")
        self._parameter, _, self._after = rest.partition("}")
        before, after = re.escape(self._before.encode()), re.escape(self._after.encode())
        name, query = rb"([A-Za-z0-9]{1,%d})" % NAME_BYTES, rb"(?:\?(%b{0,%d}))?" % (_QUERY, QUERY_BYTES)
        self._first_line = re.compile(b"GET " + before + name + after + query + rb" HTTP/1\.1\r\n")

    def read(self, data: bytes) -> Asked | None:
        """Return the request that begins here; None when it is none for this way, or in parts."""
        found = self._first_line.match(data)
        if found is None or tracing.is_on():
            return None
        start = found.end()
        end = data.find(b"\r\n\r\n", start, start + HEAD_BYTES)
        if end < 0 or len(data) - end > EARLY_BYTES:
            return None
        headers = parse_headers(data[: end + 4])
        names = [name for name, _ in headers]
        keeps = [value for name, value in headers if name == b"connection"] in ([], [b"keep-alive"], [b"Keep-Alive"])
        if not keeps or not names or not UNUSUAL.isdisjoint(names) or not _SENDS_BODY.isdisjoint(names):
            return None
        name = found[1].decode("ascii")
        scope: Scope = {
            "type": "http",
            "method": "GET",
            "path": f"{self._before}{name}{self._after}",
            "query_string": found[2] or b"",
            "headers": headers,
            "path_params": {self._parameter: name},
            "state": {},
        }
        return Asked(scope, end + 4)

    async def serve(self, scope: Scope, desk: Desk) -> None:
        """Answer a request."""
        began_s = time.perf_counter()
        request_id, trace = read_names(scope)
        state = scope["state"]
        state["request_id"], state["trace"] = request_id, trace
        telemetry.request_id.set(request_id)
        telemetry.trace_id.set(None if trace is None else trace.trace_id)
        visit = None if self._limits is None else begin_visit(scope, self._limits)
        try:
            response = await self._respond(scope, request_id)
            if response is None:
                desk.drop()
                return
            self._tell_start(response, visit, began_s)
            named = b"x-request-id: %b\r\nx-content-type-options: nosniff\r\n" % request_id.encode()
            if isinstance(response, EventStream):
                self._stream(scope, response, desk.begin_stream(join_fields(response) + named + _CHUNKED))
            else:
                await desk.answer(response.status_code, join_fields(response) + named, bytes(response.body))
            self._tell_end(scope, response, began_s)
        finally:
            if visit is not None:
                visit.end()

    async def _respond(self, scope: Scope, request_id: str) -> Response | None:
        """Return the answer, of a stream once it may begin; None where the connection is to be dropped."""
        try:
            response = await self._endpoint(Request(scope))
            if isinstance(response, EventStream):
                return response if await response.enter() else None
        except (GatewayError, msgspec.DecodeError) as error:
            refusal = error if isinstance(error, GatewayError) else explain_undecodable(error)
            return problem_response(refusal, request_id)
        except Exception:
            _log_failure(scope)
            return problem_response(Exception(), request_id)
        return None if isinstance(response, Dropped) else response

    def _stream(self, scope: Scope, response: EventStream, stream: StreamConnection | None) -> None:
        if stream is None:
            response.forsake()
            return
        try:
            stream.watch(response.connect(Line(stream.send, stream.write, stream.drop, stream.unsent, stream.peer)))
        except Exception:
            _log_failure(scope)
            stream.drop()
        stream.begin()

    def _tell_start(self, response: Response, visit: Visit | None, began_s: float) -> None:
        if visit is not None:
            visit.rest()
        telemetry.observe_answer(
            route=self._route,
            method="GET",
            status=response.status_code,
            waited_s=time.perf_counter() - began_s,
        )

    def _tell_end(self, scope: Scope, response: Response, began_s: float) -> None:
        state, size = scope["state"], find_header(response.raw_headers, b"content-length")
        facts: dict[str, Any] = {
            "bytes": None if size is None else int(size),
            "tenant": state.get("tenant"),
            "key_id": state.get("key_id"),
            "run_id": scope["path_params"].get("run_id"),
        }
        telemetry.tell_answer(
            route=self._route,
            method="GET",
            path=scope["path"],
            status=response.status_code,
            took_s=time.perf_counter() - began_s,
            facts=facts,
        )


def _log_failure(scope: Scope) -> None:
    log.exception("request failed", extra={"method": "GET", "path": scope["path"]})
