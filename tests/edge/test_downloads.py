"""Downloads: as much as was asked for, to whoever takes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.edge.downloads import Content, answer_file, write_disposition
from gateway.edge.problems import IdentifiedRequests, exception_handlers
from gateway.errors import StoreUnavailable
from tests.edge.serving import request_bytes, serve
from tests.support.running import wait_until

PIECE = b"x" * 100_000


class Source:
    """A file of many pieces that counts what was read of it, and fails after some."""

    def __init__(self, pieces: int, *, good: int | None = None, stall_s: float = 30) -> None:
        self.pieces = pieces
        self.good = pieces if good is None else good
        self.stall_s = stall_s
        self.read = 0
        self.closed = False

    async def answer(self, request: Request) -> Response:
        """Answer a request for it."""
        content = Content("x", self.pieces * len(PIECE), "a/b", "ab" * 32, 0)
        return await answer_file(request, content, self.open, stall_s=self.stall_s)

    async def open(self, _start: int, _stop: int) -> AsyncGenerator[bytes, None]:
        """Return its pieces."""
        return self._pieces()

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        try:
            for _ in range(self.good):
                self.read += 1
                yield PIECE
            if self.good < self.pieces:
                raise StoreUnavailable("The disk is gone.")
        finally:
            self.closed = True

    @property
    def app(self) -> Any:
        """An application that serves it."""
        app = Starlette(routes=[Route("/", self.answer)], exception_handlers=exception_handlers())
        return IdentifiedRequests(app)


GET = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def test_a_file_is_sent_whole() -> None:
    """With its length, and closed afterwards."""
    source = Source(20)
    async with serve(source.app) as port:
        head, _, body = (await request_bytes(port, GET)).partition(b"\r\n\r\n")
    assert b"content-length: 2000000" in head
    assert (len(body), source.read, source.closed) == (2_000_000, 20, True)


async def test_a_file_that_cannot_be_read_on_does_not_look_whole(caplog: pytest.LogCaptureFixture) -> None:
    """The connection is cut where its bytes end."""
    source = Source(20, good=3)
    async with serve(source.app) as port:
        head, _, body = (await request_bytes(port, GET)).partition(b"\r\n\r\n")
    assert b"content-length: 2000000" in head
    assert len(body) == 300_000
    assert source.closed
    assert "request failed" in caplog.text


async def test_reading_ends_when_the_client_leaves() -> None:
    """What it would not get is not read for it."""
    source = Source(10_000)
    async with serve(source.app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        await reader.readexactly(1000)
        writer.transport.abort()
        await wait_until(lambda: source.closed)
    assert source.read < 1_000


async def test_a_client_that_takes_nothing_is_dropped() -> None:
    """Its connection ends, and no more is read for it than its buffers hold."""
    source = Source(10_000, stall_s=0.05)
    async with serve(source.app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000)
        writer.write(GET)
        await wait_until(lambda: source.closed)
        assert source.read < 1_000
        taken = 0
        with suppress(ConnectionError):
            while chunk := await reader.read(1_000_000):
                taken += len(chunk)
        assert taken < source.pieces * len(PIECE)
        writer.transport.abort()


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60))
def test_every_name_is_one_header_that_says_it(name: str) -> None:
    """It ends no line and no quote, and reads back."""
    header = write_disposition(name)
    assert header.isascii()
    assert header.isprintable()
    plain, _, coded = header.removeprefix('attachment; filename="').partition("\"; filename*=UTF-8''")
    assert '"' not in plain
    assert "\\" not in plain
    assert unquote(coded) == name
