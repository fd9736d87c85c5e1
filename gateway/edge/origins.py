"""The origin of the page that a request comes from, as its browser tells it: no page can choose what that says."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.edge.problems import problem_response, request_id_of
from gateway.errors import OriginRefused

Headers = Iterable[tuple[bytes, bytes]]

ORIGIN_CHARS: Final = 256
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[!-~]+")
_NOT_IN_HOSTS: Final = frozenset("/\\?#@,")
_PORTS: Final = {"http": ":80", "https": ":443"}
_REFUSED: Final = OriginRefused(
    "Pages of this origin may not open a WebSocket here; GATEWAY_CORS_ORIGINS says which may."
)


def parse_origin(text: str) -> str | None:
    """Return an origin as browsers write it (`https://app.example`, `http://localhost:3000`); None for what is none."""
    origin = text.lower()
    if len(origin) > ORIGIN_CHARS or not _ORIGIN.fullmatch(origin):
        return None
    scheme, _, host = origin.partition("://")
    return None if _NOT_IN_HOSTS & set(host) else f"{scheme}://{host.removesuffix(_PORTS.get(scheme, '/'))}"


def told_origin(headers: Headers) -> str | None:
    """Return what a request's `Origin` says, in lower case; None where it has none, which pages cannot have happen
    but for what they read from where they came from themselves."""
    told = [value.decode("latin-1").strip().lower() for name, value in headers if name == b"origin"]
    return ", ".join(told) if told else None


def comes_from(headers: Headers, origin: str) -> bool:
    """Whether a browser says that a request is made by a page of `origin`."""
    headers = list(headers)
    told = told_origin(headers)
    if told is not None:
        return told == origin
    # A page that reads from its own origin: the browser leaves the name out, and says so.
    return (b"sec-fetch-site", b"same-origin") in headers and is_at_home(headers, origin)


def is_at_home(headers: Headers, origin: str) -> bool:
    """Whether a request is for the host, by its `Host`, that pages of `origin` come from."""
    hosts = [value.decode("latin-1").strip().lower() for name, value in headers if name == b"host"]
    port = _PORTS.get(urlsplit(origin).scheme, "/")
    home = origin.partition("://")[2]
    return [host.removesuffix(port) for host in hosts] == [home.removesuffix(port)] and bool(home)


class SocketOrigins:
    """ASGI middleware: a page opens a WebSocket if it is at home here, or of one of the origins that are allowed.

    What CORS is for requests, which browsers do not apply to WebSockets. Whoever names no origin is no browser.

    Args:
        allowed: As for CORS; `*` is all.
    """

    def __init__(self, app: ASGIApp, allowed: Collection[str]) -> None:
        self.app = app
        self._allowed = {parse_origin(origin) or origin for origin in allowed}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and not self._admits(scope["headers"]):
            await receive()
            with suppress(OSError):  # it has left already
                await problem_response(_REFUSED, request_id_of(scope))(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _admits(self, headers: Headers) -> bool:
        origin = told_origin(headers)
        return origin is None or "*" in self._allowed or origin in self._allowed or is_at_home(headers, origin)
