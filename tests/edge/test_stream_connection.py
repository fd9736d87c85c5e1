"""A streamed answer that is pushed to: taken over from the server, bounded, and handed back when it is complete."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.edge import frames
from gateway.edge.sse import EventStream, Line
from gateway.edge.stream_connection import EARLY_BYTES, StreamConnection
from tests.edge.serving import serve
from tests.support.running import wait_until

STREAM = b"GET /stream HTTP/1.1\r\nhost: gateway\r\n\r\n"
PLAIN = b"GET /plain HTTP/1.1\r\nhost: gateway\r\n\r\n"
PIECE = frames.sse_body(b"data: " + b"x" * 60_000 + b"\n\n")


class Pushed:
    """An application with a stream, the lines of those who read it, and how many of them have left."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.left = 0
        routes = [Route("/stream", self.stream), Route("/plain", self.plain)]
        self.app = Starlette(routes=routes)

    async def stream(self, _request: Request) -> Response:
        return EventStream(self.connect)

    async def plain(self, _request: Request) -> Response:
        return PlainTextResponse("plain")

    def connect(self, line: Line) -> Callable[[], None]:
        self.lines.append(line)
        return self.leave

    def leave(self) -> None:
        self.left += 1

    @asynccontextmanager
    async def open(
        self, request: bytes = STREAM, **options: Any
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, Line]]:
        """Serve, and read the stream on a connection; its head has been read."""
        async with serve(self.app, **options) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            writer.write(request)
            async with asyncio.timeout(10):
                await reader.readuntil(b"\r\n\r\n")
                await wait_until(lambda: bool(self.lines))
                yield reader, writer, self.lines[0]
                writer.close()
                await wait_until(lambda: self.left == len(self.lines))


async def test_the_request_is_over_while_its_stream_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """The server keeps no task for a stream, and says nothing of an answer without an end."""
    pushed = Pushed()
    async with pushed.open() as (reader, _, line):
        assert isinstance(line.send.__self__, StreamConnection)  # type: ignore[attr-defined]
        assert not [task for task in asyncio.all_tasks() if "run_asgi" in repr(task.get_coro())]
        assert line.write is not None
        assert line.write(frames.sse_body(b"data: 1\n\n")["wire"])
        assert await reader.readexactly(14) == b"9\r\ndata: 1\n\n\r\n"
        assert pushed.left == 0
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_client_that_does_not_read_is_written_a_bounded_amount() -> None:
    """Above the transport's high-water mark nothing is taken; what waits in `send` goes on when it is read."""
    pushed = Pushed()
    async with pushed.open() as (reader, _, line):
        assert line.write is not None
        taken = 0
        while line.write(PIECE["wire"]):
            taken += 1
            assert taken < 1000
        waiting = asyncio.create_task(_send(line, PIECE))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        expected = (taken + 1) * len(PIECE["wire"])
        assert len(await reader.readexactly(expected)) == expected
        await waiting
        assert line.write(PIECE["wire"])


async def test_a_stream_that_is_complete_gives_its_connection_back() -> None:
    """The client sees the end, and the request that it sent meanwhile is answered on the same connection."""
    pushed = Pushed()
    async with pushed.open() as (reader, writer, line):
        writer.write(PLAIN)
        await line.send(frames.sse_body(b"data: last\n\n"))
        await line.send(frames.END)
        assert await reader.readuntil(b"0\r\n\r\n") == b"c\r\ndata: last\n\n\r\n0\r\n\r\n"
        assert (await reader.readuntil(b"plain")).startswith(b"HTTP/1.1 200 OK")
        writer.write(STREAM)
        await reader.readuntil(b"\r\n\r\n")
        await wait_until(lambda: len(pushed.lines) == 2)
        assert pushed.left == 1
        assert line.write is not None
        assert not line.write(b"late")


async def test_a_client_that_closes_after_its_answer_gets_a_closed_connection() -> None:
    """A request that asked for it has its connection closed at the end of the stream."""
    pushed = Pushed()
    request = STREAM.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    async with pushed.open(request) as (reader, _, line):
        await line.send(frames.END)
        assert await reader.read() == b"0\r\n\r\n"


async def test_a_client_that_keeps_sending_behind_its_stream_is_cut() -> None:
    """What waits behind a stream is bounded in bytes."""
    pushed = Pushed()
    async with pushed.open() as (reader, writer, _):
        writer.write(b"x" * (EARLY_BYTES + 1))
        assert await reader.read() == b""


async def test_a_stream_that_is_hung_up_has_no_end() -> None:
    """A client gets all that was written, and can tell that this was not the end."""
    pushed = Pushed()
    async with pushed.open() as (reader, _, line):
        assert line.write is not None
        line.write(frames.sse_body(b"data: 1\n\n")["wire"])
        line.hang_up()
        assert await reader.read() == b"9\r\ndata: 1\n\n\r\n"
        assert not line.write(b"late")
        await line.send(PIECE)


async def test_a_send_ends_when_its_client_leaves() -> None:
    """Whoever waits for a client to read does not wait for one that is gone."""
    pushed = Pushed()
    async with pushed.open() as (_, writer, line):
        assert line.write is not None
        while line.write(PIECE["wire"]):
            pass
        waiting = asyncio.create_task(_send(line, PIECE))
        writer.transport.abort()
        await waiting
        await wait_until(lambda: pushed.left == 1)


async def test_a_request_that_waits_behind_keeps_the_stream_in_http() -> None:
    """Where requests were sent together the server keeps the connection; the stream works all the same."""
    pushed = Pushed()
    async with pushed.open(STREAM + PLAIN) as (reader, _, line):
        assert line.write is None
        await line.send(frames.sse_body(b"data: 1\n\n"))
        await line.send(frames.END)
        assert await reader.readuntil(b"0\r\n\r\n") == b"9\r\ndata: 1\n\n\r\n0\r\n\r\n"
        assert (await reader.readuntil(b"plain")).startswith(b"HTTP/1.1 200 OK")


async def test_another_servers_connections_are_pushed_to_by_send() -> None:
    """A server that gives no connection away gets the same bytes through ASGI, and hanging up cuts them."""
    pushed = Pushed()
    async with pushed.open(http=HttpToolsProtocol) as (reader, _, line):
        assert line.write is None
        await line.send(frames.sse_body(b"data: 1\n\n"))
        assert await reader.readexactly(14) == b"9\r\ndata: 1\n\n\r\n"
        line.hang_up()
        assert await reader.read() == b""


async def _send(line: Line, message: frames.Message) -> None:
    await line.send(message)
