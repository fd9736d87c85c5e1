"""Requests that are plain, read by the server's own parser; and the bytes of answers, around what a handler made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Final

import httptools
from starlette.responses import Response

Headers = list[tuple[bytes, bytes]]

HEAD_BYTES: Final = 8 * 1024
"""The largest head that is looked for the end of; a longer one is the application's parser's."""
NAME_BYTES: Final = 200
UNUSUAL: Final = frozenset(
    {b"transfer-encoding", b"expect", b"upgrade", b"content-encoding", b"origin", b"trailer", b"te", b"range"}
)
"""Headers of requests that only the application knows how to answer."""

STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class _Fields:
    """What httptools tells of a head."""

    def __init__(self) -> None:
        self.headers: Headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))


def parse_headers(head: bytes) -> Headers:
    """Return the headers of a request's head as the server's own parser reads them; none where it refuses it."""
    fields = _Fields()
    try:
        httptools.HttpRequestParser(fields).feed_data(head)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return []
    return fields.headers


def find_header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    """Return the first value of a header, None where it was not given; names are in lower case, as a scope has them."""
    for known, value in headers:
        if known == name:
            return value.decode("latin-1")
    return None


def join_fields(response: Response) -> bytes:
    """Return a response's headers as they go over the wire."""
    return b"".join([b"%b: %b\r\n" % field for field in response.raw_headers])


class _Defaults:
    """The headers of every answer, joined once for as long as the server has the same: a second."""

    def __init__(self) -> None:
        self._headers: Sequence[tuple[bytes, bytes]] = ()
        self._joined = b""

    def join(self, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
        """Return them as they go over the wire."""
        if headers is not self._headers:
            self._headers, self._joined = headers, b"".join([b"%b: %b\r\n" % field for field in headers])
        return self._joined


DEFAULTS: Final = _Defaults()
