"""Refusals as RFC 9457 problems: the only place where an error gets an HTTP status."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route, WebSocketRoute
from starlette.types import ASGIApp, ExceptionHandler, Message, Receive, Scope, Send

from gateway import errors, telemetry, tracing
from gateway.edge.body import explain_undecodable
from gateway.edge.limits import Limits, begin_visit, visit_of
from gateway.edge.traces import Trace, parse_trace
from gateway.entropy import take_random
from gateway.errors import GatewayError

MEDIA_TYPE: Final = "application/problem+json"
REQUEST_ID_PATTERN: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
STATUS_BY_CLASS: Final[Mapping[type[Exception], int]] = {
    errors.BadRequest: 400,
    errors.InvalidBody: 422,
    errors.TooLarge: 413,
    errors.HeadTooLarge: 431,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.Conflict: 409,
    errors.LogExpired: 410,
    errors.RangeUnsatisfiable: 416,
    errors.TooManyRequests: 429,
    errors.StoreUnavailable: 503,
    errors.Overloaded: 503,
    errors.Draining: 503,
    errors.ProviderUnavailable: 503,
}
ASK_AGAIN: Final = (
    errors.StoreUnavailable,
    errors.ProviderUnavailable,
    errors.Draining,
    errors.TooManyRequests,
    errors.Overloaded,
)
"""What may be otherwise in a moment: the answer says when to come back."""

NOSNIFF: Final = (b"x-content-type-options", b"nosniff")
"""What is sent is what it says it is: no browser is to see a page in it."""

_STARTS: Final = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})

Tell = Callable[[Mapping[str, Any]], tuple[int, object]]
"""How a dialect words a problem document: the status of the answer, and its JSON body."""

log = logging.getLogger("gateway.requests")


class Speech(msgspec.Struct, frozen=True):
    """How refusals are told below a mount, and which routes it has."""

    tell: Tell
    routes: Sequence[BaseRoute]


def speech_of(scope: Scope) -> Speech | None:
    """Return how refusals of this request are told, None for problem documents."""
    speech: Speech | None = scope.get("state", {}).get("speech")
    return speech


def find_status(error: Exception) -> int:
    """Return the HTTP status of `error`: that of its nearest listed ancestor, else 500."""
    return next((STATUS_BY_CLASS[cls] for cls in type(error).__mro__ if cls in STATUS_BY_CLASS), 500)


def describe_problem(error: Exception, request_id: str) -> dict[str, Any]:
    """Return the problem document of `error`; the standard members win over facts of the same name.

    An error that is none of ours is told as `internal`, without a word of what it said.
    """
    if isinstance(error, GatewayError):
        return describe_status(find_status(error), error.code, error.detail, request_id, error.facts)
    return describe_status(500, "internal", "The gateway failed to answer this request.", request_id)


def describe_status(
    status: int, code: str, detail: str, request_id: str, facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return a problem document for a bare HTTP status."""
    standard = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    standard |= {"detail": detail, "code": code, "request_id": request_id}
    return standard | {name: fact for name, fact in (facts or {}).items() if name not in standard}


def problem_bytes(error: Exception, request_id: str) -> bytes:
    """Return the problem document of `error` as JSON, for a WebSocket frame or an NDJSON line."""
    return _encode(describe_problem(error, request_id))


def _encode(body: object) -> bytes:
    try:
        return msgspec.json.encode(body)
    except (UnicodeEncodeError, OverflowError, TypeError):
        # A fact may quote what the caller sent: a lone surrogate, or an integer of a thousand digits.
        body = msgspec.to_builtins(body, enc_hook=str)
        return json.dumps(body, ensure_ascii=False, default=str).encode("utf-8", "replace")


def problem_response(error: Exception, request_id: str, speech: Speech | None = None) -> Response:
    """Return the HTTP answer to a request that failed with `error`."""
    headers = {}
    if isinstance(error, errors.Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="gateway"'
    if isinstance(error, ASK_AGAIN):
        headers["Retry-After"] = str(error.facts.get("retry_after_s", 1))
    if isinstance(error, errors.RangeUnsatisfiable):
        headers["Content-Range"] = f"bytes */{error.facts['size_bytes']}"
    return respond(describe_problem(error, request_id), headers, speech)


def respond(
    problem: dict[str, Any], headers: Mapping[str, str] | None = None, speech: Speech | None = None
) -> Response:
    """Return a problem document as the HTTP answer that it names, or as a dialect tells it."""
    if speech is None:
        return Response(_encode(problem), problem["status"], headers, media_type=MEDIA_TYPE)
    status, body = speech.tell(problem)
    return Response(_encode(body), status, headers, media_type="application/json")


def request_id_of(scope: Scope) -> str:
    """Return the id that `IdentifiedRequests` gave to this request."""
    return str(scope.get("state", {}).get("request_id", "-"))


def exception_handlers() -> dict[Any, ExceptionHandler]:
    """Return Starlette's `exception_handlers=`, turning every refusal into a problem document."""
    return {
        GatewayError: _answer_refusal,
        msgspec.DecodeError: _answer_undecodable,
        HTTPException: _answer_starlette,
    }


async def _answer_refusal(request: Request, error: Exception) -> Response:
    return _refuse(request, error)


async def _answer_undecodable(request: Request, error: Exception) -> Response:
    return _refuse(request, explain_undecodable(error))


def _refuse(request: Request, error: Exception) -> Response:
    return problem_response(error, request_id_of(request.scope), speech_of(request.scope))


async def _answer_starlette(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    request_id, path = request_id_of(request.scope), request.url.path
    speech = speech_of(request.scope)
    if error.status_code == 404:
        return _refuse(request, errors.NotFound("There is nothing at this path.", path=path))
    if error.status_code == 405:
        detail = f"{request.method} is not a method of this path."
        problem = describe_problem(errors.MethodNotAllowed(detail, path=path), request_id)
        # Starlette names the methods of the first of the routes that share a path.
        routes = request.app.routes if speech is None else speech.routes
        return respond(problem, {"Allow": ", ".join(sorted(_find_methods(request, routes)))}, speech)
    code = HTTPStatus(error.status_code).name.lower()
    problem = describe_status(error.status_code, code, error.detail, request_id)
    return respond(problem, error.headers, speech)


def _find_methods(request: Request, routes: Sequence[BaseRoute]) -> set[str]:
    """Return the methods of the first path that matches: later ones would take it for something else."""
    found = [route for route in routes if isinstance(route, Route)]
    path = next((route.path for route in found if route.matches(request.scope)[0] is not Match.NONE), None)
    return {name for route in found if route.path == path for name in route.methods or ()}


class IdentifiedRequests:
    """ASGI middleware: every request has an id, is counted, and at the very worst is told `internal`.

    The first of `Starlette(middleware=[…])`. The id is `scope["state"]["request_id"]` and `X-Request-Id`.
    What the server gave as `send` stays reachable as `scope["extensions"]["gateway.send"]`: once the
    answer has started, a stream may write through it and pay for no layer in between.

    Args:
        limits: What requests may cost; None where nothing is limited.
    """

    def __init__(self, app: ASGIApp, limits: Limits | None = None) -> None:
        self.app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        request_id, trace = read_names(scope)
        state = scope.setdefault("state", {})
        state["request_id"], state["trace"] = request_id, trace
        scope.setdefault("extensions", {})["gateway.send"] = send
        visit = None if self._limits is None else begin_visit(scope, self._limits)
        answer = _Answer(scope, request_id)
        telemetry.request_id.set(request_id)
        telemetry.trace_id.set(None if trace is None else trace.trace_id)
        if tracing.is_on():
            answer.trace(trace)
        try:
            await self.app(scope, receive, answer.watch(send))
        except ClientDisconnect:
            log.debug("client left before its request was read")
        except Exception:
            log.exception("request failed", extra={"method": scope.get("method"), "path": scope["path"]})
            await answer.fail(receive, send)
        finally:
            if visit is not None:
                visit.end()
            answer.end()
            # What serves a connection may serve another request in the same context.
            telemetry.request_id.set(None)
            telemetry.trace_id.set(None)
            telemetry.run_id.set(None)
            tracing.current.set(None)
            tracing.subject.set(None)


def read_names(scope: Scope) -> tuple[str, Trace | None]:
    """Return the request's id, and the trace that it belongs to."""
    request_id, trace = None, None
    for name, value in scope["headers"]:
        if name == b"x-request-id" and request_id is None and REQUEST_ID_PATTERN.fullmatch(value):
            request_id = value.decode("ascii")
        elif name == b"traceparent":
            trace = parse_trace(value.decode("latin-1"))
    return request_id or new_request_id(), trace


def new_request_id() -> str:
    """Return an id for a request whose sender gave it none."""
    return take_random(16).hex()


class _Answer:
    """One request's answer, watched until it starts."""

    def __init__(self, scope: Scope, request_id: str) -> None:
        self.scope = scope
        self.request_id = request_id
        self.began_s = time.perf_counter()
        self.started = False
        self.status = 0
        self.size: bytes | None = None
        self.parent_id: str | None = None

    def watch(self, send: Send) -> Send:
        """Return `send`, marking the answer's start; everything after it is handed through unawaited."""

        def send_on(message: Message) -> Awaitable[None]:
            if not self.started and message["type"] in _STARTS:
                self.start(message)
            return send(message)

        return send_on

    def start(self, message: Message) -> None:
        self.started = True
        self.status = message.get("status", 101)
        self.size = next((value for name, value in message.get("headers", ()) if name == b"content-length"), None)
        visit = visit_of(self.scope)
        if visit is not None:
            visit.rest()
        headers = [*message.get("headers", ()), (b"x-request-id", self.request_id.encode("ascii"))]
        if NOSNIFF not in headers:
            headers.append(NOSNIFF)
        message["headers"] = headers
        telemetry.observe_answer(
            route=route_template(self.scope),
            method=self.scope.get("method", "WEBSOCKET"),
            status=self.status,
            waited_s=time.perf_counter() - self.began_s,
        )

    def trace(self, told: Trace | None) -> None:
        """Have the request be a span, if its trace is kept: as its sender says, else as its share is."""
        trace_id = tracing.new_trace_id() if told is None else told.trace_id
        if tracing.keeps(trace_id) if told is None else told.is_kept:
            self.parent_id = None if told is None else told.span_id
            tracing.current.set(tracing.Place(trace_id, tracing.new_span_id()))

    def _record(self, place: tracing.Place) -> None:
        took_ns, now_ns = round((time.perf_counter() - self.began_s) * 1e9), time.time_ns()
        scope, state = self.scope, self.scope["state"]
        method, route = scope.get("method", "WEBSOCKET"), route_template(scope)
        facts = {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": self.status,
            "url.path": scope["path"],
            "gateway.request_id": self.request_id,
            "gateway.tenant": state.get("tenant"),
            "gateway.run_id": scope.get("path_params", {}).get("run_id"),
        }
        failure = f"status {self.status}" if self.status >= 500 else None
        span = tracing.Span(
            f"{method} {route}", place, self.parent_id, now_ns - took_ns, now_ns, "server", facts, failure
        )
        tracing.record(span)

    def end(self) -> None:
        """Log the answer; a stream that others go on with has a line of its own when it is over."""
        scope, state = self.scope, self.scope["state"]
        place = tracing.current.get()
        if place is not None:
            self._record(place)
        if self.status:
            telemetry.tell_answer(
                route=route_template(scope),
                method=scope.get("method", "WEBSOCKET"),
                path=scope["path"],
                status=self.status,
                took_s=time.perf_counter() - self.began_s,
                facts={
                    "bytes": None if self.size is None else int(self.size),
                    "tenant": state.get("tenant"),
                    "key_id": state.get("key_id"),
                    "run_id": scope.get("path_params", {}).get("run_id"),
                },
            )

    async def fail(self, receive: Receive, send: Send) -> None:
        """Say `internal` where that can still be said, else cut: a broken answer must not look whole."""
        if not self.started:
            response = problem_response(Exception(), self.request_id, speech_of(self.scope))
            await response(self.scope, receive, self.watch(send))
        elif self.scope["type"] == "websocket":
            with contextlib.suppress(RuntimeError, OSError):  # already closed, by either side
                await send({"type": "websocket.close", "code": 1011, "reason": self.request_id})
        elif "gateway.drop" in self.scope["extensions"]:
            self.scope["extensions"]["gateway.drop"]()


def route_template(scope: Scope) -> str:
    """Return the path pattern of the route that took the request, or `unmatched`."""
    route = scope.get("route")
    if not isinstance(route, Route | WebSocketRoute):
        return "unmatched"
    mounted = set(scope["path_params"]) - set(route.param_convertors)
    # Under a mount that takes parameters, root_path holds their values: a label must not.
    return route.path if mounted else scope.get("root_path", "") + route.path
