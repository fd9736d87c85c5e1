"""Connections that the gateway ends on purpose, and those whose peer is gone."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import socket
from functools import partial
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.edge.heads import HEAD_BYTES
from gateway.edge.server import HttpProtocol, drop
from tests.edge.serving import request_bytes, serve
from tests.support.running import wait_until

GET = b"GET / HTTP/1.1\r\nhost: gateway\r\n\r\n"
START = {"type": "http.response.start", "status": 200, "headers": []}


async def test_a_drop_before_the_answer_sends_no_byte(caplog: pytest.LogCaptureFixture) -> None:
    """A client whose request is dropped sees its connection closed, and the log stays quiet."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await drop(scope, receive)

    async with serve(app) as port:
        assert await request_bytes(port, GET) == b""
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_drop_within_an_answer_delivers_what_was_written_and_no_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A client whose stream is dropped gets every frame sent to it, and can tell that this was not the end."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send({"type": "http.response.body", "body": b"one\n", "more_body": True})
        await drop(scope, receive)

    received: list[bytes] = []

    async def read_stream(port: int) -> None:
        async with httpx.AsyncClient() as client, client.stream("GET", f"http://127.0.0.1:{port}") as response:
            async for part in response.aiter_bytes():
                received.append(part)  # noqa: PERF401  # a comprehension would lose what came before the error

    async with serve(app) as port:
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
            await read_stream(port)
    assert received == [b"one\n"]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_drop_does_not_wait_for_a_peer_that_does_not_read() -> None:
    """A peer that takes no more bytes is cut off once it had its time."""
    sent_bytes = 32 * 1024 * 1024
    connections: list[HttpProtocol] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        connections.append(send.__self__.on_response.__self__)  # type: ignore[attr-defined]
        await send({"type": "http.response.body", "body": bytes(sent_bytes), "more_body": True})
        await drop(scope, receive, flush_s=0.05)
        await send({"type": "http.response.body", "body": b"into the void", "more_body": True})

    async with serve(app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(GET)
        await wait_until(lambda: bool(connections) and connections[0] not in connections[0].connections)
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while part := await reader.read(65_536):
                received += len(part)
        writer.close()
    assert received < sent_bytes


async def test_bytes_that_are_not_http_get_a_problem() -> None:
    """A sender of garbage is told so in the form of every other refusal."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("never called")

    async with serve(app) as port:
        head, body = (await request_bytes(port, b"\x16\x03\x01 no HTTP\r\n\r\n")).split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\n")
    problem = json.loads(body)
    assert (problem["status"], problem["code"]) == (400, "bad_request")
    assert f"x-request-id: {problem['request_id']}".encode() in head


async def test_garbage_behind_a_request_never_enters_its_answer() -> None:
    """A stream whose client starts to send garbage is cut: nothing is written into its body."""
    streaming = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send({"type": "http.response.body", "body": b"one\n", "more_body": True})
        streaming.set()
        while (await receive())["type"] != "http.disconnect":
            pass

    async with serve(app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        async with asyncio.timeout(5):
            await streaming.wait()
            writer.write(b"\x00garbage\r\n\r\n")
            received = await reader.read()
        writer.close()
    assert received.endswith(b"4\r\none\n\r\n")


async def test_a_stream_learns_of_its_end_behind_a_pipelined_request() -> None:
    """A client that sends a second request on its stream's connection and leaves does not leak the stream."""
    streaming, ended = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        streaming.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        ended.set()

    async with serve(app) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        async with asyncio.timeout(5):
            await streaming.wait()
            writer.write(GET)
            writer.close()
            await ended.wait()


async def test_requests_pile_up_behind_a_stream_only_so_far() -> None:
    """A client that keeps sending requests behind its stream is cut, instead of being remembered at length."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        while (await receive())["type"] != "http.disconnect":
            pass

    async with serve(app) as port:
        assert (await request_bytes(port, GET * 100)).count(b"HTTP/1.1") <= 1


async def test_requests_that_keep_their_connection_are_answered_one_after_another() -> None:
    """A connection used over and over does not gather what is finished."""
    kept: set[int] = set()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        protocol: HttpProtocol = send.__self__.on_response.__self__  # type: ignore[attr-defined]
        kept.add(len(protocol.unfinished))
        await send({**START, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async with serve(app) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        for _ in range(5):
            assert (await client.get("/")).text == "ok"
    assert kept == {1}


async def answer_ok(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer every request with two bytes."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def read_drip(port: int, begin: bytes, drips: bytes) -> bytes:
    """Send a beginning, then one byte after another for as long as the connection takes them; return what came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(begin)

    async def drip() -> None:
        for byte in itertools.cycle(drips):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.02)

    dripping = asyncio.create_task(drip())
    try:
        async with asyncio.timeout(30):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        dripping.cancel()
        await asyncio.wait([dripping])
        writer.close()


@pytest.mark.parametrize(
    ("begin", "drips", "answers"),
    [
        (b"", b"", 0),
        (b"GET / HTTP/1.1\r\nhost: gateway\r\nx-slow: ", b"a", 0),
        (GET + b"GET / HTTP/1.1\r\nx-slow: ", b"a", 1),
    ],
    ids=["nothing", "drop by drop", "drop by drop behind a request"],
)
async def test_a_head_that_does_not_come_ends_its_connection(begin: bytes, drips: bytes, answers: int) -> None:
    """However it is kept from coming; what was asked before is answered."""
    async with serve(answer_ok, http=partial(HttpProtocol, head_s=1.0)) as port:
        if drips:
            got = await read_drip(port, begin, drips)
        else:
            got = await request_bytes(port, begin)
    assert got.count(b"HTTP/1.1 200") == answers


async def test_a_head_of_any_size_takes_only_so_much() -> None:
    """One header or ten thousand: refused in words, and the connection is closed; one of some size is answered."""
    async with serve(answer_ok) as port:
        for head in (b"x-large: " + b"a" * HEAD_BYTES, b"\r\n".join(b"x-%d: many" % n for n in range(10_000))):
            # One byte too many: what is sent on to a server that has closed would cost the client its answer.
            answer = await request_bytes(port, (b"GET / HTTP/1.1\r\nhost: gateway\r\n" + head)[: HEAD_BYTES + 1])
            assert answer.startswith(b"HTTP/1.1 431 "), answer
            assert b'"code":"head_too_large"' in answer
        usual = b"GET / HTTP/1.1\r\nhost: g\r\nconnection: close\r\nx-large: " + b"a" * 30_000 + b"\r\n\r\n"
        assert (await request_bytes(port, usual)).startswith(b"HTTP/1.1 200 ")


LARGE = 8 * 1024 * 1024


async def answer_at_length(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer every request with more than fits between two peers."""
    length = str(LARGE).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": bytes(LARGE)})


@pytest.mark.parametrize("raw", [GET, GET * 3, GET[:-2] + b"connection: close\r\n\r\n"], ids=["one", "three", "last"])
async def test_answers_that_nobody_reads_end_their_connection(raw: bytes) -> None:
    """Though they are complete, and the connection was closed on them: they would be kept for as long as it stood."""
    connections: list[HttpProtocol] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        connections.append(send.__self__.on_response.__self__)  # type: ignore[attr-defined]
        await answer_at_length(scope, receive, send)

    async with serve(app, http=partial(HttpProtocol, unread_s=0.3), timeout_keep_alive=1) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(raw)
        await wait_until(lambda: bool(connections) and connections[0] not in connections[0].connections)
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while part := await reader.read(65_536):
                received += len(part)
        writer.close()
    assert received < LARGE


async def test_an_answer_that_is_read_slowly_is_read_whole() -> None:
    """A slow peer is not one that does not read, whatever the server wants to do with its connection meanwhile."""
    async with serve(answer_at_length, http=partial(HttpProtocol, unread_s=2), timeout_keep_alive=1) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(GET)
        head = await reader.readuntil(b"\r\n\r\n")
        received = 0
        while received < LARGE:
            part = await reader.read(256 * 1024)
            assert part, received
            received += len(part)
            # Four seconds in all; a kernel asks for more in steps of some hundred KiB.
            await asyncio.sleep(0.5 * len(part) / 1024**2)
        writer.close()
    assert head.startswith(b"HTTP/1.1 200 ")
    assert received == LARGE


@pytest.mark.parametrize(
    "raw",
    [
        b"POST / HTTP/1.1\r\nhost: g\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nhost: g\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET / ",
        b"POST / HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: g\r\ncontent-length: +5\r\n\r\nhello",
        b"GET / HTTP/1.1\r\nhost: g\r\nx-a : b\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: g\r\nx-a: b\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\nhost: g\n\n",
        b"GET / HTTP/1.1\r\nhost: g\r\nx-a: b\x00c\r\n\r\n",
    ],
    ids=[
        "two lengths",
        "length and chunks",
        "chunks not last",
        "a signed length",
        "space before colon",
        "folded",
        "bare newlines",
        "a zero byte",
    ],
)
async def test_what_two_servers_could_read_differently_is_refused(raw: bytes) -> None:
    """A proxy that reads a request otherwise than this server would let another be smuggled behind it."""
    async with serve(answer_ok) as port:
        answer = await request_bytes(port, raw)
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert answer.count(b"HTTP/1.1 ") == 1


async def test_a_vanished_peer_is_noticed() -> None:
    """Every accepted connection has a limit on unacknowledged bytes, and probes for a peer that owes none."""
    options: dict[str, int] = {}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        transport = scope["extensions"]["gateway.abort"].__self__
        sock = transport.get_extra_info("socket")
        for name in ("TCP_NODELAY", "TCP_KEEPIDLE"):
            options[name] = sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
        options["SO_KEEPALIVE"] = sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        await drop(scope, receive)

    async with serve(app) as port:
        await request_bytes(port, GET)
    assert options == {"TCP_NODELAY": 1, "TCP_KEEPIDLE": 60, "SO_KEEPALIVE": 1}


async def test_a_unix_socket_is_served_as_well(tmp_path: Path) -> None:
    """A connection that is not TCP has no TCP options, and needs none."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**START, "headers": [(b"content-length", b"2"), (b"connection", b"close")]})
        await send({"type": "http.response.body", "body": b"ok"})

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "gateway.sock"))
    listener.listen()
    async with serve(app, listener):
        reader, writer = await asyncio.open_unix_connection(listener.getsockname())
        writer.write(GET)
        async with asyncio.timeout(5):
            assert (await reader.read()).endswith(b"ok")
        writer.close()


async def test_a_connection_begins_as_the_server_s_own_does() -> None:
    """What uvicorn notes of a new connection is noted, but for the addresses, which take calls of the system."""
    made: list[dict[str, object]] = []

    def watch(kind: type[HttpToolsProtocol]) -> type[HttpToolsProtocol]:
        class Watched(kind):  # type: ignore[valid-type, misc]
            def connection_made(self, transport: asyncio.Transport) -> None:
                before = dict(vars(self))
                super().connection_made(transport)
                made.append({name: value for name, value in vars(self).items() if before[name] is not value})

        return Watched

    for kind in (HttpToolsProtocol, HttpProtocol):
        async with serve(answer_ok, http=watch(kind)) as port:
            assert (
                await request_bytes(port, b"GET / HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n")
            ).startswith(b"HTTP/1.1 200 ")
    theirs, ours = made
    assert set(theirs) - set(ours) == {"server", "client"}
    assert {name: type(value) for name, value in ours.items()} == {name: type(theirs[name]) for name in ours}


@pytest.mark.parametrize("host", ["", "host: elsewhere:1\r\n"])
async def test_a_request_that_names_no_host_is_told_of_the_address_that_it_came_to(host: str) -> None:
    """URLs in its answer begin with that."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(str(Request(scope).base_url))(scope, receive, send)

    async with serve(app) as port:
        answer = await request_bytes(port, f"GET / HTTP/1.0\r\n{host}\r\n".encode())
    assert answer.endswith(f"http://{'elsewhere:1' if host else f'127.0.0.1:{port}'}/".encode())
