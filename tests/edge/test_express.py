"""Plain requests answered from the connection: as the application would, in order, and everything else left to it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.edge.body import read_body
from gateway.edge.express import Express
from gateway.edge.plain import Headers
from gateway.edge.problems import IdentifiedRequests, exception_handlers
from gateway.edge.server import HttpProtocol
from gateway.errors import BadRequest, NotFound
from tests.edge.serving import request_bytes, serve
from tests.support.running import wait_until

Ways = list[str]


async def answer(name: str, colour: str, raw: bytes) -> bytes:
    """Answer a request; refuse `missing`, fail on `broken`."""
    if name == "missing":
        raise NotFound("There is no such thing.", name=name)
    if name == "broken":
        raise RuntimeError("bug")
    return b'{"name":"%b","colour":"%b","bytes":%d}' % (name.encode(), colour.encode(), len(raw))


def read_colour(headers: Headers) -> str:
    """Return the header `colour`; none of the short way's requests may be grey."""
    colour = dict(headers).get(b"colour", b"none").decode()
    if colour == "grey":
        raise BadRequest("Grey is no colour.")
    return colour


@asynccontextmanager
async def serve_both(*, part_s: float = 30.0, holding: asyncio.Event | None = None) -> AsyncIterator[tuple[int, Ways]]:
    """Serve one route in both ways; give the port, and the list of which way each request has gone."""
    ways: Ways = []

    async def by_application(request: Request) -> Response:
        ways.append("application")
        colour = read_colour([(k.encode(), v.encode()) for k, v in request.headers.items()])
        raw = await read_body(request, limit_bytes=10_000_000)
        return Response(await answer(request.path_params["name"], colour, raw), media_type="application/json")

    async def at_once(colour: str, name: str, raw: bytes, _: dict[str, Any]) -> bytes:
        ways.append("express")
        if holding is not None:
            await holding.wait()
        return await answer(name, colour, raw)

    route = "/things/{name}/parts"
    app = Starlette(
        routes=[Route(route, by_application, methods=["POST"])],
        middleware=[Middleware(IdentifiedRequests)],
        exception_handlers=exception_handlers(),
    )
    express = Express("/things/", "/parts", route, read_colour, at_once, part_s)
    async with serve(app, http=partial(HttpProtocol, express=express)) as port:
        yield port, ways


def post(
    name: str = "a",
    body: bytes = b"{}",
    *,
    query: str = "",
    version: str = "1.1",
    length: int | None = None,
    **more: Any,
) -> bytes:
    """Return a request; `more` are further headers."""
    lines = [f"POST /things/{name}/parts{query} HTTP/{version}", "Host: t", "X-Request-Id: same-id-1"]
    lines += [f"{key.replace('_', '-')}: {value}" for key, value in more.items()]
    if length != 0:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


LAST = b"GET /nothing HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"


async def exchange(port: int, raw: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Return the one answer to a request: status line, headers without the date, body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    headers = sorted(line for line in lines if not line.startswith(b"date"))
    length = next(int(line.split(b":")[1]) for line in headers if line.startswith(b"content-length"))
    body = await reader.readexactly(length)
    writer.close()
    return status, headers, body


def statuses(raw: bytes) -> list[int]:
    """Return the status of each answer."""
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d+)", raw)]


@pytest.mark.parametrize("name", ["a", "missing", "broken"])
async def test_both_ways_give_the_same_answer(name: str) -> None:
    """Status, headers and body: of an answer, a refusal and a failure."""
    async with serve_both() as (port, ways):
        short = await exchange(port, post(name, b'{"x":1}', colour="red"))
        long = await exchange(port, post(name, b'{"x":1}', colour="red", query="?"))
    assert ways == ["express", "application"]
    assert short == long


@pytest.mark.parametrize(
    "raw",
    [
        post(query="?x=1"),
        post("a%20b"),
        post("a.b"),
        post(version="1.0"),
        post(Content_Type="application/x-ndjson"),
        post(Content_Encoding="identity"),
        post(Transfer_Encoding="chunked", length=0, body=b"2\r\n{}\r\n0\r\n\r\n"),
        post(Expect="100-continue"),
        post(Origin="http://elsewhere"),
        post(Connection="keep-alive, x"),
        post(colour="grey"),
        post(body=b"x" * 300_000),
    ],
)
async def test_what_is_unusual_is_the_applications(raw: bytes) -> None:
    """A query, an escape, another version, media type or coding, a browser's origin, a large body, a bad header."""
    async with serve_both() as (port, ways):
        received = await request_bytes(port, raw + LAST)
    assert ways == ["application"]
    assert statuses(received)[0] in (100, 200, 400)


async def test_requests_of_one_connection_are_answered_in_order() -> None:
    """Whichever way each goes, and however many come in one piece."""
    names = ["a", "b", "c?", "d", "missing", "e?", "f"]
    raw = b"".join(post(name.rstrip("?"), query="?" * name.endswith("?")) for name in names)
    async with serve_both() as (port, ways):
        received = await request_bytes(port, raw + LAST)
    assert re.findall(rb'"name":"(\w+)"', received) == [b"a", b"b", b"c", b"d", b"missing", b"e", b"f"]
    assert statuses(received) == [200, 200, 200, 200, 404, 200, 200, 404]
    # Behind a request of the application's the others come through the same parser, until it has none left.
    assert ways[:2] == ["express", "express"]


async def test_a_body_may_come_in_pieces() -> None:
    """The head in one piece and the body in others is how most clients send."""
    raw, body = post(body=b"x" * 1_000), b"x" * 1_000
    async with serve_both() as (port, ways):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = raw[: -len(body)]
        for part in (head, body[:400], body[400:999], body[999:]):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        received = await reader.readuntil(b"}")
        writer.close()
    assert b'"bytes":1000' in received
    assert ways == ["express"]


async def test_a_head_in_pieces_is_the_applications() -> None:
    """Nothing of it is lost."""
    raw = post(body=b"{}")
    async with serve_both() as (port, ways):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for part in (raw[:10], raw[10:]):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.05)
        received = await reader.readuntil(b"}")
        writer.close()
    assert b'"bytes":2' in received
    assert ways == ["application"]


async def test_a_body_that_does_not_come_is_left_to_the_application() -> None:
    """Which has its own patience, and gets what had come."""
    raw = post(body=b"x" * 1_000)
    async with serve_both(part_s=0.01) as (port, ways):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(raw[:-500])
        await wait_until(lambda: ways == ["application"])
        writer.write(raw[-500:])
        received = await reader.readuntil(b"}")
        writer.close()
    assert b'"bytes":1000' in received


async def test_headers_of_one_request_are_not_the_next_ones() -> None:
    """A connection that changes its headers is answered by what it sends."""
    async with serve_both() as (port, ways):
        raw = post(colour="red") + post(colour="blue") + post() + post(colour="red")
        received = await request_bytes(port, raw + LAST)
    assert re.findall(rb'"colour":"(\w+)"', received) == [b"red", b"blue", b"none", b"red"]
    assert ways == ["express"] * 4


async def wait_until_closed(port: int) -> None:
    """Wait until nobody accepts connections any more: from then on the server ends."""
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return
            writer.close()
            await asyncio.sleep(0.01)


async def test_a_server_that_ends_finishes_what_it_has_begun() -> None:
    """The answer under way is given, says that it is the last one, and the connection closes."""
    holding = asyncio.Event()

    async def release() -> None:
        await wait_until_closed(port)
        holding.set()

    async with serve_both(holding=holding) as (port, ways):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post() + post("b"))
        await wait_until(lambda: ways == ["express"])
        releasing = asyncio.create_task(release())
    received = await reader.read()
    await releasing
    writer.close()
    assert statuses(received) == [200]
    assert b"connection: close" in received
    assert ways == ["express"]


async def test_a_body_that_drips_has_no_more_time_than_one_that_does_not_come() -> None:
    """It is left to the application, which has its own patience, though each piece comes soon after the last."""
    async with serve_both(part_s=0.3) as (port, ways):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post(body=b"x" * 10, length=100_000))
        loop = asyncio.get_running_loop()
        began_s, sent = loop.time(), 10
        async with asyncio.timeout(10):
            while not ways:
                writer.write(b"x")
                sent += 1
                await writer.drain()
                await asyncio.sleep(0.02)
        assert ways == ["application"]
        assert loop.time() - began_s < 5
        writer.write(b"x" * (100_000 - sent))
        assert (await reader.readuntil(b"\r\n")) == b"HTTP/1.1 200 OK\r\n"
        assert b'"bytes":100000' in await reader.readuntil(b"}")
        writer.close()


@pytest.mark.parametrize("size", [1, 7, 1_000])
async def test_a_request_in_any_pieces_is_one_request(size: int) -> None:
    """Wherever it is cut; what comes behind it is the next."""
    raw = post(body=b"y" * 3_000, colour="red") + post("b", colour="blue") + LAST
    async with serve_both() as (port, ways):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for start in range(0, len(raw), size):
            writer.write(raw[start : start + size])
            await writer.drain()
            await asyncio.sleep(0)
        received = await reader.read()
        writer.close()
    assert statuses(received) == [200, 200, 404]
    assert b'"colour":"red","bytes":3000' in received
    assert b'"name":"b","colour":"blue","bytes":2' in received
    assert len(ways) == 2


SMUGGLED = [
    b"Content-Length: 2\r\nContent-Length: 2",
    b"Content-Length: 2\r\nContent-Length: 30",
    b"Content-Length: 2, 2",
    b"Content-Length: +2",
    b"Content-Length: 2\r\nTransfer-Encoding: chunked",
    b"TRANSFER-ENCODING: chunked\r\ncontent-length: 2",
    b"Content-Length: 2\r\nTransfer-Encoding : chunked",
    b"Content-Length: 2\r\n Transfer-Encoding: chunked",
    b"Content-Length: 2\r\nX-A: b\r\n\tfolded",
    b"Content-Length: 2\r\nX-A: b\nTransfer-Encoding: chunked",
    b"Content-Length: 2\r\nX-A: b\rTransfer-Encoding: chunked",
    b"Content-Length: 2\r\nX-A: b\x00",
    b"Content-Length: 0x2",
    b"Content-Length: 99999999999999999999",
    b"Content-Length: -1",
    b"Content_Length: 2\r\nContent-Length:2\r\nContent-Length:\t2",
]


@pytest.mark.parametrize("fields", SMUGGLED, ids=repr)
async def test_what_two_servers_could_read_differently_never_goes_the_short_way(fields: bytes) -> None:
    """Two lengths, a length and chunks, folded lines, bare line ends: refused, and nothing behind it is answered."""
    raw = b"POST /things/a/parts HTTP/1.1\r\nHost: t\r\n" + fields + b"\r\n\r\n{}"
    async with serve_both() as (port, ways):
        received = await request_bytes(port, raw + post("smuggled") + LAST)
    assert ways == []
    assert statuses(received) == [400]


@pytest.mark.parametrize(
    ("raw", "served"),
    [
        (post().replace(b"Content-Length", b"CONTENT-LENGTH"), ["express"]),
        (post(CONNECTION="Keep-Alive"), ["express"]),
        (post(version="1.0", Connection="keep-alive"), ["application"]),
        (post(Connection="close"), ["application"]),
        (post(Expect="100-continue"), ["application"]),
        (b"\r\n" + post(), ["application"]),
        (post(Upgrade="h2c"), ["application"]),
    ],
    ids=["name in capitals", "value in capitals", "1.0", "close", "expect", "empty line before", "upgrade"],
)
async def test_each_spelling_of_a_head_is_answered_once(raw: bytes, served: list[str]) -> None:
    """By either way, as HTTP says."""
    async with serve_both() as (port, ways):
        received = await request_bytes(port, raw + LAST)
    assert ways == served
    assert next(status for status in statuses(received) if status != 100) == 200
