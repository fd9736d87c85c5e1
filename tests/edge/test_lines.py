"""Answers to a streamed body: line by line, to clients that read them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator

import pytest
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.edge.body import read_lines
from gateway.edge.lines import LineResponse
from tests.edge.serving import serve

POST = b"POST / HTTP/1.1\r\nhost: gateway\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Return a piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def answering(answer: bytes, closed: list[bool], answer_s: float) -> ASGIApp:
    """Return an application that answers every line with `answer`, and notes the end of its work."""

    async def answers(request: Request) -> AsyncGenerator[bytes, None]:
        try:
            async for lines in read_lines(request, line_bytes=1_000, idle_s=5):
                yield answer * len(lines)
        finally:
            closed.append(True)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await LineResponse(answers(Request(scope, receive)), answer_s=answer_s)(scope, receive, send)

    return app


async def send_for_ever(writer: asyncio.StreamWriter) -> None:
    """Send lines until the connection breaks."""
    async with asyncio.timeout(10):
        while True:
            writer.write(chunk(b"{}\n" * 1_000))
            await writer.drain()


async def test_each_line_is_answered_while_the_body_goes_on() -> None:
    """A client learns what is stored before it has sent all."""
    async with serve(answering(b"ok\n", [], 5)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(POST)
        async with asyncio.timeout(5):
            for _ in range(3):
                writer.write(chunk(b"{}\n"))
                assert (await reader.readuntil(b"ok\n")).endswith(b"ok\n")
            writer.write(END)
            await reader.readuntil(END)
        writer.close()


async def test_a_client_that_sends_without_reading_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    """Both sides' buffers fill; neither waits for the other for ever."""
    closed: list[bool] = []
    async with serve(answering(b"x" * 65_536, closed, 0.2)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(POST)
        with pytest.raises(ConnectionError):
            await send_for_ever(writer)
        writer.close()
        assert closed == [True]
        assert reader.at_eof() or reader.exception() is not None
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
