"""The console's static files; `/` leads there."""

from __future__ import annotations

from importlib import resources

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles


def console_routes() -> list[BaseRoute]:
    """Return `/`, and everything below `/console/`."""
    folder = str(resources.files("gateway.console").joinpath("static"))
    return [
        Route("/", _lead_there),
        Route("/console", _lead_there),
        Mount("/console", StaticFiles(directory=folder, html=True)),
    ]


async def _lead_there(_request: Request) -> Response:
    return RedirectResponse("/console/")
