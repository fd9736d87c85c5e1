"""The routes that are asked for all the time, called without the layers and the search that others go through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, ExceptionHandler, Receive, Scope, Send

METHODS: Final = ("GET", "POST")


class Shortcut:
    """ASGI middleware: the last of `Starlette(middleware=[…])`, before it looks for a route among all of them.

    Every other request goes on to Starlette, which would have answered these in the same way.

    Args:
        routes: Plain routes whose path parameters are texts, and which no earlier route hides.
        handlers: Starlette's `exception_handlers=`, for what an endpoint raises.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[Route], handlers: Mapping[Any, ExceptionHandler]) -> None:
        self.app = app
        self._routes = {method: [route for route in routes if method in (route.methods or ())] for method in METHODS}
        self._handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["root_path"]:
            for route in self._routes.get(scope["method"], ()):
                found = route.path_regex.match(scope["path"])
                if found is not None:
                    scope["route"], scope["path_params"] = route, found.groupdict()
                    await self._answer(route, scope, receive, send)
                    return
        await self.app(scope, receive, send)

    async def _answer(self, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        try:
            response = await route.endpoint(request)
        except Exception as error:
            handler = self._find_handler(error)
            if handler is None:
                raise
            response = await handler(request, error)  # type: ignore[arg-type, misc]
        await response(scope, receive, send)

    def _find_handler(self, error: Exception) -> ExceptionHandler | None:
        return next((self._handlers[kind] for kind in type(error).__mro__ if kind in self._handlers), None)
