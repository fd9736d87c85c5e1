"""A dialect as the application mounts it: its operations, what they take and answer, and how it words refusals."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.edge.problems import Speech, Tell

Handler = Callable[[Request], Awaitable[Response]]


class Frames(msgspec.Struct, frozen=True):
    """An answer that is an SSE stream; `item` is the type of each frame's data."""

    item: Any


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What an operation takes and answers: the very types that its handler decodes and encodes.

    Args:
        query: A struct whose fields are the query parameters.
        body: The type of the JSON body, None where there is none.
        answers: The type of the JSON body of each status of success; `Frames` for a stream, None for no body.
        refusals: Statuses of refusals beyond 401 and 403, which all may have.
        headers: Request headers that matter beyond those that all operations take.
    """

    query: type[msgspec.Struct] | None = None
    body: Any = None
    answers: Mapping[int, Any] = {}
    refusals: Sequence[int] = ()
    headers: Sequence[str] = ()


class Operation(msgspec.Struct, frozen=True):
    """One method of one path; `path` is as Starlette spells it, longer ones before those that would take them."""

    method: str
    path: str
    handle: Handler
    about: About = About()

    @property
    def summary(self) -> str:
        """What it does, in the words of its handler's docstring."""
        first = (self.handle.__doc__ or "").strip().partition("\n")[0]
        return first.rpartition("`: ")[2].rstrip(".")


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """One system's API over the same runs.

    Args:
        name: Of its folder and of its mount, `/compat/<name>`.
        tell: How it words a refusal.
        refusal: The type of the body that `tell` returns.
        at_root: Whether its paths are served without the mount's prefix, too.
    """

    name: str
    title: str
    operations: Sequence[Operation]
    tell: Tell
    refusal: Any
    at_root: bool = False

    def mounts(self) -> list[BaseRoute]:
        """Return where it is served; everything below its prefix is told in its words."""
        mounts: list[BaseRoute] = [_Mount(f"/compat/{self.name}", self._router(), self.tell)]
        if self.at_root:
            mounts.append(_Mount("", self._router(), self.tell))
        return mounts

    def _router(self) -> Router:
        routes = [Route(each.path, each.handle, methods=[each.method]) for each in self.operations]
        return Router(routes=routes, redirect_slashes=False)


class _Speaking:
    """ASGI application that has refusals below it told as a dialect does."""

    def __init__(self, router: Router, tell: Tell) -> None:
        self._app: ASGIApp = router
        self.routes = router.routes
        self._speech = Speech(tell, router.routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["speech"] = self._speech
        await self._app(scope, receive, send)


class _Mount(Mount):
    """Takes everything below its prefix; without one, only the paths that it knows."""

    def __init__(self, prefix: str, router: Router, tell: Tell) -> None:
        super().__init__(prefix, app=_Speaking(router, tell))

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match what the mount takes."""
        if scope["type"] != "http":
            return Match.NONE, {}
        match, child = super().matches(scope)
        if match is Match.FULL and not self.path:
            inner = {**scope, **child}
            if all(route.matches(inner)[0] is Match.NONE for route in self.routes):
                return Match.NONE, {}
        return match, child
