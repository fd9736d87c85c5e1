"""An API's description, as the document that tools read and as the page that people read."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway.edge.console import HEADERS

PAGE = {"docs": "page.html", "docs/page.js": "page.js", "docs/page.css": "page.css"}
MEDIA = {"html": "text/html", "js": "text/javascript", "css": "text/css"}


def reference_routes(describe: Callable[[], dict[str, Any]]) -> list[BaseRoute]:
    """Return `/openapi.json` and the page that shows it, `/docs`."""
    return [document_route("/openapi.json", describe), *(_page_route(path, name) for path, name in PAGE.items())]


def document_route(path: str, describe: Callable[[], dict[str, Any]]) -> BaseRoute:
    """Return the route of a document, which is made when it is first asked for."""
    document = cache(lambda: msgspec.json.encode(describe()))

    async def show(_request: Request) -> Response:
        return Response(document(), media_type="application/json", headers={"Cache-Control": "no-cache"})

    return Route(path, show, methods=["GET"], include_in_schema=False)


def _page_route(path: str, name: str) -> BaseRoute:
    async def show(_request: Request) -> Response:
        return Response(_read(name), headers=HEADERS, media_type=MEDIA[name.rpartition(".")[2]])

    return Route(f"/{path}", show, methods=["GET"], include_in_schema=False)


@cache
def _read(name: str) -> bytes:
    return resources.files("gateway.entry").joinpath("reference_page", name).read_bytes()
