"""The console's static files; `/` leads there."""

from __future__ import annotations

import os
from importlib import resources
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

# A page that shows what strangers wrote: nothing from elsewhere, nothing inline, and no text ever parsed as markup.
POLICY: Final = "; ".join(
    (
        "default-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "object-src 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Kept, but asked for again: a page of yesterday's scripts must not meet today's gateway.
    "Cache-Control": "no-cache",
}


class ConsoleFiles(StaticFiles):
    """Static files that a browser may only use as the console means them, each validated by its ETag."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """Return a file, or 304, with the console's headers."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(HEADERS)
        return response


def console_routes() -> list[BaseRoute]:
    """Return `/`, and everything below `/console/`."""
    folder = str(resources.files("gateway.console").joinpath("static"))
    return [
        Route("/", _lead_there),
        Route("/console", _lead_there),
        Mount("/console", ConsoleFiles(directory=folder, html=True)),
    ]


async def _lead_there(_request: Request) -> Response:
    return RedirectResponse("/console/")
