"""Every refusal is a problem document, and every request has an id."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import msgspec
import pytest
from prometheus_client import REGISTRY
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway import errors
from gateway.edge.problems import (
    IdentifiedRequests,
    describe_problem,
    exception_handlers,
    find_status,
    problem_bytes,
    request_id_of,
)
from tests.edge.serving import request_bytes, serve

Handler = Callable[[Request], Awaitable[Response]]


def build_app(handler: Handler) -> Starlette:
    """Return an application with one route, also under a mount, as the gateway wires it."""
    routes = [
        Route("/runs/{run_id}", handler),
        Mount("/compat", routes=[Route("/{run_id}", handler)]),
        Mount("/of/{owner}", routes=[Route("/{run_id}", handler)]),
    ]
    return Starlette(
        routes=routes, middleware=[Middleware(IdentifiedRequests)], exception_handlers=exception_handlers()
    )


def raising(error: Exception) -> Handler:
    """Return a handler that fails with `error`."""

    async def handler(request: Request) -> Response:
        raise error

    return handler


async def send_request(
    handler: Handler, path: str = "/runs/r1", method: str = "GET", *, request_id: bytes | None = None
) -> httpx.Response:
    """Send one request to an application around `handler`."""
    transport = httpx.ASGITransport(build_app(handler))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        headers = [] if request_id is None else [(b"x-request-id", request_id)]
        return await client.request(method, path, headers=headers)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.BadRequest("no"), 400, "bad_request"),
        (errors.InvalidBody("no"), 422, "invalid_body"),
        (errors.IdempotencyMismatch("no"), 422, "idempotency_mismatch"),
        (errors.TooLarge("no"), 413, "too_large"),
        (errors.Unauthenticated("no"), 401, "unauthenticated"),
        (errors.Forbidden("no"), 403, "forbidden"),
        (errors.UrlExpired("no"), 403, "url_expired"),
        (errors.RangeUnsatisfiable("no", size_bytes=7), 416, "range_not_satisfiable"),
        (errors.NotFound("no"), 404, "not_found"),
        (errors.NoSuchQuestion("no"), 404, "unknown_request"),
        (errors.MethodNotAllowed("no"), 405, "method_not_allowed"),
        (errors.IllegalTransition("no"), 409, "invalid_state"),
        (errors.LogExpired("no"), 410, "log_expired"),
        (errors.StoreUnavailable("no"), 503, "store_unavailable"),
        (errors.Draining("no"), 503, "draining"),
    ],
)
async def test_a_refusal_is_answered_with_the_status_of_its_family(
    error: errors.GatewayError, status: int, code: str
) -> None:
    """An error nobody listed has the status of its nearest ancestor, and its own code."""
    answer = await send_request(raising(error))
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["code"], problem["detail"]) == (status, code, "no")
    assert problem["request_id"] == answer.headers["x-request-id"]


def test_every_error_of_the_gateway_has_a_status() -> None:
    """No class of the tree but its root falls through to 500."""
    tree = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, errors.GatewayError)]
    assert len(tree) > 20
    assert [cls for cls in tree if find_status(cls("no")) == 500] == [errors.GatewayError]


def test_facts_stand_beside_the_standard_members_and_never_over_them() -> None:
    """A fact that is called like a standard member does not falsify the document."""
    error = errors.IllegalTransition("no", current="failed", type="x", request_id="forged")
    problem = describe_problem(error, "r-1")
    assert problem == {
        "type": "about:blank",
        "title": "Conflict",
        "status": 409,
        "detail": "no",
        "code": "invalid_state",
        "request_id": "r-1",
        "current": "failed",
    }


@pytest.mark.parametrize("fact", ["\ud800", 10**50, {1, 2}, object()])
def test_a_fact_that_json_cannot_hold_does_not_break_the_document(fact: Any) -> None:
    """Whatever a refusal quotes, the answer is a document that every client can read."""
    problem = msgspec.json.decode(problem_bytes(errors.BadRequest("no \ud800", fact=str(fact)), "r-1"))
    assert problem["code"] == "bad_request"


async def test_an_unexpected_failure_says_its_id_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    """The client learns an id, the log holds the traceback under it, and no detail leaks."""
    answer = await send_request(raising(ValueError("secret of the house")), request_id=b"mine-1")
    assert answer.status_code == 500
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.json()["code"] == "internal"
    assert answer.json()["request_id"] == "mine-1"
    assert "secret" not in answer.text
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert "secret of the house" in str(record.exc_info[1])


async def test_a_body_that_msgspec_refuses_is_a_problem_wherever_it_was_decoded() -> None:
    """A handler that decodes by itself still answers with the place that is wrong."""

    async def handler(request: Request) -> Response:
        msgspec.json.decode(b'{"a":[1,"x"]}', type=dict[str, list[int]])
        raise AssertionError("decoded")

    answer = await send_request(handler)
    assert (answer.status_code, answer.json()["path"]) == (422, "$[...][1]")


async def test_an_unknown_path_is_a_problem() -> None:
    """A path that leads nowhere is 404 and names itself."""
    answer = await send_request(raising(AssertionError()), "/nowhere")
    assert (answer.status_code, answer.json()["code"], answer.json()["path"]) == (404, "not_found", "/nowhere")


async def test_a_wrong_method_is_a_problem_that_names_the_right_ones() -> None:
    """405 carries Allow."""
    answer = await send_request(raising(AssertionError()), method="PATCH")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


async def test_what_starlette_refuses_by_itself_is_a_problem() -> None:
    """Any other status raised by the framework keeps it, in our form."""
    answer = await send_request(raising(HTTPException(415, "not this")))
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


async def test_a_missing_credential_is_told_how_to_authenticate() -> None:
    """401 carries WWW-Authenticate."""
    answer = await send_request(raising(errors.Unauthenticated("no")))
    assert answer.headers["www-authenticate"] == 'Bearer realm="gateway"'


@pytest.mark.parametrize(("facts", "expected"), [({}, "1"), ({"retry_after_s": 7}, "7")])
async def test_an_absent_store_says_when_to_come_back(facts: dict[str, Any], expected: str) -> None:
    """503 carries Retry-After, and the outcome of the write."""
    answer = await send_request(raising(errors.StoreUnavailable("no", outcome="unknown", **facts)))
    assert answer.headers["retry-after"] == expected
    assert answer.json()["outcome"] == "unknown"


async def answer_id(request: Request) -> Response:
    """Answer with the request's id as the application sees it."""
    return PlainTextResponse(request_id_of(request.scope))


async def test_a_sane_request_id_is_kept() -> None:
    """A caller who numbers requests finds the number in the answer."""
    answer = await send_request(answer_id, request_id=b"a.B-3_")
    assert answer.text == answer.headers["x-request-id"] == "a.B-3_"


@pytest.mark.parametrize("bad", ["", "a b", "x" * 65, "a\tb", "é"])
async def test_another_request_id_is_replaced(bad: str) -> None:
    """What could not stand in a log line or a header is replaced by an id of our own."""
    answer = await send_request(answer_id, request_id=bad.encode("latin-1"))
    assert len(answer.text) == 32
    assert answer.headers["x-request-id"] == answer.text


@pytest.mark.parametrize(
    ("path", "route", "status"),
    [
        ("/runs/r1", "/runs/{run_id}", "200"),
        ("/compat/r1", "/compat/{run_id}", "200"),
        ("/of/me/r1", "/{run_id}", "200"),
        ("/nowhere", "unmatched", "404"),
        ("/compat/a/b", "unmatched", "404"),
    ],
)
async def test_an_answer_is_counted_under_its_route(path: str, route: str, status: str) -> None:
    """Labels are templates: no id of a run becomes a time series."""

    def count() -> float:
        labels = {"route": route, "method": "GET", "status": status}
        return REGISTRY.get_sample_value("gateway_http_requests_total", labels) or 0.0

    before = count()
    await send_request(answer_id, path)
    assert count() == before + 1


async def test_a_broken_stream_does_not_look_whole(caplog: pytest.LogCaptureFixture) -> None:
    """A stream that fails after its start is cut, its frames delivered, its failure logged once."""

    async def handler(request: Request) -> Response:
        async def frames() -> AsyncIterator[bytes]:
            yield b"one\n"
            raise ValueError("broken")

        return StreamingResponse(frames())

    async with serve(build_app(handler)) as port:
        received = await request_bytes(port, b"GET /runs/r1 HTTP/1.1\r\nhost: gateway\r\n\r\n")
    assert received.endswith(b"4\r\none\n\r\n")
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1


async def test_a_client_that_leaves_within_its_request_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is answered and nothing logged when nobody is left to be answered."""
    gone = asyncio.Event()

    async def handler(request: Request) -> Response:
        try:
            await request.body()
        except ClientDisconnect:
            gone.set()
            raise
        raise AssertionError("read")

    async with serve(build_app(handler)) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /runs/r1 HTTP/1.1\r\nhost: gateway\r\ncontent-length: 9\r\n\r\nhalf")
        writer.close()
        async with asyncio.timeout(5):
            await gone.wait()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_stream_may_write_to_the_server_itself() -> None:
    """Once an answer has started, `gateway.send` is the server's own, with no layer in between."""
    sent: list[Message] = []

    async def server_send(message: Message) -> None:
        sent.append(message)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["extensions"]["gateway.send"] is server_send
        await send({"type": "http.response.start", "status": 200})
        await scope["extensions"]["gateway.send"]({"type": "http.response.body"})

    async def receive() -> Message:
        raise AssertionError("nothing to receive")

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    await IdentifiedRequests(app)(scope, receive, server_send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert [name for name, _ in sent[0]["headers"]] == [b"x-request-id", b"x-content-type-options"]


async def test_what_is_no_request_passes_untouched() -> None:
    """The application's start and stop are none of the middleware's business."""
    passed: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        passed.extend((scope, receive, send))

    async def receive() -> Message:
        raise AssertionError("nothing to receive")

    async def server_send(message: Message) -> None:
        raise AssertionError("nothing to send")

    scope = {"type": "lifespan"}
    await IdentifiedRequests(app)(scope, receive, server_send)
    assert passed == [{"type": "lifespan"}, receive, server_send]


def websocket_app(endpoint: Callable[[WebSocket], Awaitable[None]]) -> Starlette:
    """Return an application with one WebSocket route."""
    return Starlette(
        routes=[WebSocketRoute("/ws", endpoint)],
        middleware=[Middleware(IdentifiedRequests)],
        exception_handlers=exception_handlers(),
    )


async def test_a_websocket_has_an_id_too() -> None:
    """The handshake's answer carries the id."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(request_id_of(websocket.scope))

    async with serve(websocket_app(endpoint)) as port, connect(f"ws://127.0.0.1:{port}/ws") as session:
        assert session.response is not None
        assert session.response.headers["x-request-id"] == await session.recv()


async def test_a_websocket_that_fails_after_its_start_is_closed_with_its_id() -> None:
    """1011 says that the gateway failed, the reason says under which id."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        raise ValueError("broken")

    headers = {"X-Request-Id": "w-1"}
    async with (
        serve(websocket_app(endpoint)) as port,
        connect(f"ws://127.0.0.1:{port}/ws", additional_headers=headers) as session,
    ):
        with pytest.raises(ConnectionClosed) as closed:
            await session.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1011, "w-1")


async def test_a_websocket_that_fails_before_its_start_is_denied_with_a_problem() -> None:
    """The handshake is answered 500, as any request would be."""

    async def endpoint(websocket: WebSocket) -> None:
        raise ValueError("broken")

    async with serve(websocket_app(endpoint)) as port:
        with pytest.raises(InvalidStatus) as denied:
            await connect(f"ws://127.0.0.1:{port}/ws")
    assert denied.value.response.status_code == 500
    assert msgspec.json.decode(denied.value.response.body or b"")["code"] == "internal"


async def test_a_websocket_that_fails_once_closed_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is sent on a WebSocket that is closed already."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close(1000)
        raise ValueError("broken")

    async with serve(websocket_app(endpoint)) as port, connect(f"ws://127.0.0.1:{port}/ws") as session:
        with pytest.raises(ConnectionClosed) as closed:
            await session.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1000
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1
