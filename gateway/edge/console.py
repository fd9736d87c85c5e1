"""The console's static files, to which `/` leads, and the browser's client."""

from __future__ import annotations

import hashlib
import os
from importlib import resources
from typing import Final

import zopfli.gzip
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from gateway.edge.scripts import tighten

# A page that shows what strangers wrote: nothing from elsewhere, nothing inline, and no text ever parsed as markup.
# The one policy names the client's own address as the script of its SharedWorker.
POLICY: Final = "; ".join(
    (
        "default-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "object-src 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types gateway-client",
    )
)
# Kept, but asked for again: a page of yesterday's scripts must not meet today's gateway.
KEPT: Final = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
HEADERS: Final = {
    **KEPT,
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# Pages of other origins build on the client, too.
SHARED: Final = {**KEPT, "Cross-Origin-Resource-Policy": "cross-origin", "Access-Control-Allow-Origin": "*"}
CLIENT_FILES: Final = ("client.js", "client.d.ts", "client-react.js", "client-react.d.ts")


class ConsoleFiles(StaticFiles):
    """Static files that a browser may only use as the console means them, each validated by its ETag."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """Return a file, or 304, with the console's headers."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(HEADERS)
        return response


class ClientFile:
    """One file of the browser's client, read once, sent compressed to whoever takes that."""

    def __init__(self, name: str) -> None:
        text = resources.files("gateway.console").joinpath("browser", name).read_text("utf-8")
        is_script = name.endswith(".js")
        self._plain = (tighten(text) if is_script else text).encode()
        self._packed = zopfli.gzip.compress(self._plain)
        self._type = "text/javascript" if is_script else "text/plain"
        self._etag = f'"{hashlib.sha256(self._plain).hexdigest()[:32]}"'

    async def serve(self, request: Request) -> Response:
        """Return the file, or 304 to whoever has it."""
        headers = {**SHARED, "ETag": self._etag, "Vary": "Accept-Encoding"}
        if self._etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return Response(self._plain, headers=headers, media_type=self._type)
        return Response(self._packed, headers={**headers, "Content-Encoding": "gzip"}, media_type=self._type)


def console_routes() -> list[BaseRoute]:
    """Return `/`, everything below `/console/`, and the browser's client at the root."""
    folder = str(resources.files("gateway.console").joinpath("static"))
    return [
        Route("/", _lead_there),
        Route("/console", _lead_there),
        *(Route(f"/{name}", ClientFile(name).serve) for name in CLIENT_FILES),
        Mount("/console", ConsoleFiles(directory=folder, html=True)),
    ]


async def _lead_there(_request: Request) -> Response:
    return RedirectResponse("/console/")
