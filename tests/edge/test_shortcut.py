"""Requests for busy routes: answered as the application would, by a shorter way."""

from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from gateway.edge.problems import IdentifiedRequests, exception_handlers
from gateway.edge.shortcut import Shortcut
from gateway.errors import NotFound


async def show(request: Request) -> Response:
    """Say what the path names; refuse `missing`, fail on `broken`."""
    name = request.path_params["name"]
    if name == "missing":
        raise NotFound("There is no such thing.", name=name)
    if name == "broken":
        raise RuntimeError("bug")
    return PlainTextResponse(f"{request.method} {name}")


ROUTES = [
    Route("/things/{name}/parts", show, methods=["POST"]),
    Route("/things/{name}/parts", show, methods=["GET"]),
    Route("/things/{name}", show, methods=["GET"]),
]


def make_app(*, short: bool) -> Starlette:
    """Return an application whose first two routes are called by the shortcut, or not."""
    handlers = exception_handlers()
    middleware = [Middleware(IdentifiedRequests)]
    if short:
        middleware.append(Middleware(Shortcut, routes=ROUTES[:2], handlers=handlers))
    return Starlette(routes=ROUTES, middleware=middleware, exception_handlers=handlers)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/things/a/parts"),
        ("POST", "/things/a%20b/parts"),
        ("HEAD", "/things/a/parts"),
        ("DELETE", "/things/a/parts"),
        ("GET", "/things/missing/parts"),
        ("POST", "/things/broken/parts"),
        ("GET", "/things/a"),
        ("GET", "/things/a/parts/"),
        ("GET", "/things//parts"),
        ("GET", "/nothing"),
    ],
)
async def test_the_short_way_gives_the_same_answer(method: str, path: str) -> None:
    """Status, headers and body are what the application gives without it: refusals, failures and unknown paths too."""
    answers = []
    for short in (False, True):
        transport = httpx.ASGITransport(make_app(short=short), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            answers.append(await client.request(method, path, headers={"x-request-id": "same-id-1"}))
    long, short_way = answers
    assert (short_way.status_code, short_way.content) == (long.status_code, long.content)
    assert short_way.headers == long.headers
