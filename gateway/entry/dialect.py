"""A dialect as the application mounts it: its operations, what they take and answer, and how it words refusals."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.routing import BaseRoute, Match, Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.edge.problems import Speech, Tell
from gateway.entry.asyncapi import Speaker
from gateway.entry.openapi import Text, document
from gateway.entry.operations import About as About
from gateway.entry.operations import Frames as Frames
from gateway.entry.operations import Operation as Operation
from gateway.entry.operations import Raw as Raw
from gateway.entry.reference import reference_routes


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """One system's API over the same runs.

    Args:
        name: Of its folder and of its mount, `/compat/<name>`.
        description: What its API is for, for whoever reads its reference.
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
    description: str = ""

    def mounts(self) -> list[BaseRoute]:
        """Return where it is served; everything below its prefix is told in its words."""
        routes: list[BaseRoute] = [_Method(each, self.operations) for each in self.operations]
        below = _Mount(self.prefix, [*routes, *reference_routes(self.openapi)], self.tell)
        return [below, _Mount("", routes, self.tell)] if self.at_root else [below]

    @property
    def prefix(self) -> str:
        """Where its paths begin."""
        return f"/compat/{self.name}"

    def openapi(self) -> dict[str, Any]:
        """Return its description."""
        text = Text(title=self.title, description=self.description, server=self.prefix, refusal=self.refusal)
        return document(text, self.operations)

    def streams(self) -> Speaker:
        """Return what of it streams, for the description of all that does."""
        return Speaker(self.name, self.prefix, self.operations)


class _Method(Route):
    """One method of a path, and whatever is no method of it: a later path would take that for something else."""

    def __init__(self, operation: Operation, operations: Sequence[Operation]) -> None:
        super().__init__(operation.path, operation.handle, methods=[operation.method])
        others = {each.method for each in operations if each.path == operation.path} - {operation.method}
        self._others = others | ({"HEAD"} if "GET" in others else set())

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match every method that no other operation of the path takes."""
        match, child = super().matches(scope)
        return (Match.FULL if match is Match.PARTIAL and scope["method"] not in self._others else match), child


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

    def __init__(self, prefix: str, routes: Sequence[BaseRoute], tell: Tell) -> None:
        super().__init__(prefix, app=_Speaking(Router(routes=routes, redirect_slashes=False), tell))
        # A segment may hold an escaped line break, which the dot of Starlette's pattern does not take.
        self.path_regex = re.compile(self.path_regex.pattern, re.DOTALL)

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
