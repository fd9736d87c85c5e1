"""Streams begun from the connection: as the application would begin them, and everything unusual left to it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from gateway.edge import frames
from gateway.edge.express import Express
from gateway.edge.express_stream import ExpressStream
from gateway.edge.problems import IdentifiedRequests, exception_handlers
from gateway.edge.server import HttpProtocol
from gateway.edge.sse import Dropped, EventStream, Line
from gateway.edge.stream_connection import EARLY_BYTES, StreamConnection
from gateway.errors import NotFound, TooManyStreams
from tests.edge.serving import serve
from tests.support.running import wait_until

PLAIN = b"GET /plain HTTP/1.1\r\nhost: t\r\n\r\n"
FIRST = frames.sse_body(b"data: first\n\n")


def get(name: str = "a", *, query: str = "", version: str = "1.1", **more: str) -> bytes:
    """Return a request for a stream; `more` are further headers."""
    lines = [f"GET /things/{name}/live{query} HTTP/{version}", "Host: t", "X-Request-Id: same-id-1"]
    lines += [f"{key.replace('_', '-')}: {value}" for key, value in more.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


class Served:
    """A route of streams, served both ways; which way each request went, the lines opened, and how many were left.

    Named `missing` it is refused, `full` finds no place, `gone` is dropped, `none` is answered without content,
    `broken` fails, `tripped` fails once its head is due, `silent` says nothing at first; `held` waits for `released`.
    """

    def __init__(self) -> None:
        self.ways: list[str] = []
        self.lines: list[Line] = []
        self.seen: list[tuple[bytes, str | None]] = []
        self.left = self.refused = 0
        self.released = asyncio.Event()

    def by(self, way: str) -> Callable[[Request], Awaitable[Response]]:
        """Return the endpoint as one way calls it."""

        async def endpoint(request: Request) -> Response:
            self.ways.append(way)
            return await self.answer(request)

        return endpoint

    async def answer(self, request: Request) -> Response:
        name = request.path_params["name"]
        self.seen.append((request.scope["query_string"], request.headers.get("last-event-id")))
        match name:
            case "missing":
                raise NotFound("There is no such thing.", name=name)
            case "broken":
                raise RuntimeError("bug")
            case "gone":
                return Dropped()
            case "none":
                return Response(status_code=204)
            case "held":
                await self.released.wait()
        return EventStream(partial(self.connect, name), partial(self.enter, name), self.refuse)

    async def enter(self, name: str) -> None:
        if name == "full":
            raise TooManyStreams("As many streams are open as may be.", limit="streams", retry_after_s=1)

    def refuse(self) -> None:
        self.refused += 1

    def connect(self, name: str, line: Line) -> Callable[[], None]:
        self.lines.append(line)
        if name == "tripped":
            raise RuntimeError("bug")
        if name != "silent" and line.write is not None:
            assert line.write(FIRST["wire"])
        return self.leave

    def leave(self) -> None:
        self.left += 1

    @asynccontextmanager
    async def serve(self, **options: Any) -> AsyncIterator[int]:
        """Serve the route, and yield the port."""
        path = "/things/{name}/live"

        async def plain(_request: Request) -> Response:
            return PlainTextResponse("plain")

        async def never(_about: Any, _name: str, _raw: bytes, _facts: dict[str, Any]) -> bytes:
            raise AssertionError("nothing is posted")

        app = Starlette(
            routes=[Route(path, self.by("application"), methods=["GET"]), Route("/plain", plain)],
            middleware=[Middleware(IdentifiedRequests)],
            exception_handlers=exception_handlers(),
        )
        express = Express("/things/", "/parts", "/things/{name}/parts", lambda _: None, never)
        streams = ExpressStream(path, self.by("express"))
        async with serve(app, http=partial(HttpProtocol, express=express, streams=streams), **options) as port:
            yield port


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Give a connection while the block runs, which may take ten seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(10):
            yield reader, writer
    finally:
        writer.transport.abort()


async def exchange(port: int, raw: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Return the answer to a request: status line, headers without the date, what of its body comes at once."""
    async with connected(port) as (reader, writer):
        writer.write(raw)
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        headers = sorted(line for line in lines if not line.startswith(b"date"))
        if b"transfer-encoding: chunked" in headers:
            return status, headers, b""
        length = next((int(line.split(b":")[1]) for line in headers if line.startswith(b"content-length")), 0)
        return status, headers, await reader.readexactly(length)


@pytest.mark.parametrize("name", ["a", "silent", "missing", "broken", "none"])
async def test_both_ways_give_the_same_answer(name: str) -> None:
    """Status, headers and body: of a stream, a refusal, a failure, and of nothing to say."""
    served = Served()
    async with served.serve() as port:
        short = await exchange(port, get(name))
        long = await exchange(port, get(name, TE="trailers"))
    assert served.ways == ["express", "application"]
    assert short == long


async def test_the_head_and_what_is_said_first_are_one_write() -> None:
    """A client gets them together; what is pushed later follows on the connection itself."""
    served = Served()
    async with served.serve() as port, connected(port) as (reader, writer):
        writer.write(get(query="?x=%20y&z=1", Last_Event_ID="7"))
        head, _, body = (await reader.read(65_536)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert body == FIRST["wire"]
        (line,) = served.lines
        assert isinstance(line.send.__self__, StreamConnection)  # type: ignore[attr-defined]
        assert line.write is not None
        assert line.write(FIRST["wire"])
        assert await reader.readexactly(len(body)) == body
    assert served.seen == [(b"x=%20y&z=1", "7")]
    assert served.ways == ["express"]
    await wait_until(lambda: served.left == 1)


@pytest.mark.parametrize(
    "raw",
    [
        get(version="1.0"),
        get(Connection="close"),
        get(Origin="https://app.example"),
        get(Upgrade="h2c"),
        get(Content_Length="0"),
        get(Expect="100-continue"),
        get(query="?a[]=1"),
        get("a%62"),
        get(TE="trailers"),
        get().replace(b"GET", b"HEAD"),
        b"\r\n" + get(),
    ],
    ids=repr,
)
async def test_what_is_unusual_goes_the_applications_way(raw: bytes) -> None:
    """And is answered there."""
    served = Served()
    async with served.serve() as port, connected(port) as (reader, writer):
        writer.write(raw)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert re.match(rb"HTTP/1\.[01] (200|100|404)", answer)
        await wait_until(lambda: served.ways == ["application"])


@pytest.mark.parametrize("at", [1, 10, 40, -1])
async def test_a_head_in_pieces_is_one_request(at: int) -> None:
    """Nothing of it is lost, wherever it is cut."""
    served, raw = Served(), get(query="?after=3")
    async with served.serve() as port, connected(port) as (reader, writer):
        for part in (raw[:at], raw[at:]):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.02)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    assert served.seen == [(b"after=3", None)]


async def test_a_stream_that_finds_no_place_is_dropped() -> None:
    """As one that the handler drops: no status, the connection ends, and nothing is left open."""
    served = Served()
    async with served.serve() as port:
        for name in ("full", "gone"):
            async with connected(port) as (reader, writer):
                writer.write(get(name))
                assert await reader.read() == b""
    assert (served.refused, served.lines, served.ways) == (1, [], ["express", "express"])


async def test_a_stream_that_fails_as_it_begins_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    """Its head has been promised: the client sees an answer without an end."""
    served = Served()
    async with served.serve() as port, connected(port) as (reader, writer):
        writer.write(get("tripped"))
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert body == b""
    assert [record.getMessage() for record in caplog.records] == ["request failed"]


async def test_a_stream_that_says_nothing_at_first_has_its_head() -> None:
    """It is not held back for a frame that may not come."""
    served = Served()
    async with served.serve() as port, connected(port) as (reader, writer):
        writer.write(get("silent"))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")


async def test_a_request_behind_a_stream_is_answered_when_it_is_complete() -> None:
    """Sent with it, while it is opened, or after: each in its turn, on the same connection, by the short way again."""
    served = Served()
    async with served.serve() as port, connected(port) as (reader, writer):
        writer.write(get("held") + PLAIN)
        await wait_until(lambda: served.ways == ["express"])
        writer.write(PLAIN)
        await writer.drain()
        served.released.set()
        await wait_until(lambda: bool(served.lines))
        await served.lines[0].send(frames.END)
        received = await reader.readuntil(b"0\r\n\r\n")
        for _ in range(2):
            assert (await reader.readuntil(b"\r\n\r\nplain")).startswith(b"HTTP/1.1 200 OK")
        writer.write(get())
        assert (await reader.readuntil(FIRST["wire"])).startswith(b"HTTP/1.1 200 OK")
    assert received.count(b"HTTP/1.1") == 1
    assert served.ways == ["express", "express"]


async def test_requests_before_a_stream_are_answered_first() -> None:
    """A refused stream leaves the connection to what comes behind it."""
    served = Served()
    async with served.serve() as port, connected(port) as (reader, writer):
        writer.write(get("missing") + get("none") + get())
        received = await reader.readuntil(FIRST["wire"])
    assert re.findall(rb"HTTP/1\.1 (\d+)", received) == [b"404", b"204", b"200"]
    assert served.ways == ["express"] * 3


async def test_much_behind_a_stream_is_the_applications_to_keep() -> None:
    """More than a stream keeps goes the way that can stop reading."""
    served = Served()
    async with served.serve() as port, connected(port) as (reader, writer):
        writer.write(get() + b"POST /plain HTTP/1.1\r\nhost: t\r\ncontent-length: 40000\r\n\r\n" + b"x" * 40_000)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    assert EARLY_BYTES < 40_000
    assert len(served.ways) == 1


async def test_a_peer_that_leaves_while_its_stream_is_opened_is_forgotten() -> None:
    """What was taken for it is given back as soon as the handler has it."""
    served = Served()
    async with served.serve() as port:
        async with connected(port) as (_, writer):
            writer.write(get("held"))
            await wait_until(lambda: served.ways == ["express"])
        async with connected(port) as (reader, writer):
            writer.write(PLAIN)
            await reader.readuntil(b"\r\n\r\nplain")
        served.released.set()
        await wait_until(lambda: served.left == 1)
    assert [line.write for line in served.lines] == [None]


async def test_a_server_that_ends_closes_behind_a_stream_that_it_has_begun_to_open() -> None:
    """The head says that nothing follows, and the end of the stream is that of the connection."""
    served = Served()

    async def end() -> None:
        # Nobody accepts connections any more: from then on the server ends.
        await wait_until(lambda: refuses(port))
        served.released.set()
        await wait_until(lambda: bool(served.lines))
        await served.lines[0].send(frames.END)

    async with served.serve() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(get("held"))
        await wait_until(lambda: served.ways == ["express"])
        ending = asyncio.create_task(end())
    received = await reader.read()
    await ending
    writer.close()
    assert b"\r\nconnection: close\r\n" in received
    assert received.endswith(FIRST["wire"] + b"0\r\n\r\n")


async def refuses(port: int) -> bool:
    """Whether nobody listens."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return True
    writer.close()
    return False
