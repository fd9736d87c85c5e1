"""WebSocket connections whose peers do what no good client does, and what they cost."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.utils import ClientDisconnected
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from gateway.edge.ws import json_frame
from gateway.edge.ws_server import WebSocketProtocol
from tests.edge.serving import request_bytes, serve
from tests.support.running import wait_until

pytestmark = pytest.mark.anyio

HANDSHAKE = b"""GET / HTTP/1.1
host: gateway
connection: Upgrade
upgrade: websocket
sec-websocket-version: 13
sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==
""".replace(b"\n", b"\r\n")

App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Seen:
    """An application that accepts, then does what a test says, and the connection that it saw."""

    def __init__(self, then: App) -> None:
        self._then = then
        self.protocol: WebSocketProtocol | None = None
        self.done = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        self.protocol = scope["extensions"]["gateway.close"].__self__
        await self._then(scope, receive, send)
        self.done.set()


async def echo(_scope: Scope, receive: Receive, send: Send) -> None:
    """Send every text back until the peer leaves."""
    while (message := await receive())["type"] == "websocket.receive":
        await send(json_frame(message.get("text")))


async def send_for_ever(send: Send) -> None:
    """Send large frames, one after the other."""
    while True:
        await send(json_frame("x" * 100_000))


@asynccontextmanager
async def open_client(port: int, **options: Any) -> AsyncIterator[ClientConnection]:
    """Open a connection."""
    async with connect(f"ws://127.0.0.1:{port}", proxy=None, **options) as client:
        yield client


@asynccontextmanager
async def open_raw(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a connection by hand that reads little of what it does not ask for."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", port))
    sock.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=sock, limit=1024)
    writer.write(HANDSHAKE + b"\r\n")
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def masked(opcode: Opcode, payload: bytes, *, fin: bool = True) -> bytes:
    """Return a client's frame."""
    return Frame(opcode, payload, fin).serialize(mask=True)


async def test_a_handshake_with_too_many_headers_is_refused() -> None:
    """A head that the framing refuses is answered and closed, not left open."""
    headers = b"".join(b"x-%d: 1\r\n" % number for number in range(200))
    async with serve(Seen(echo)) as port:
        answer = await request_bytes(port, HANDSHAKE + headers + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_bytes_that_are_no_websocket_frame_close_with_1002() -> None:
    """A peer that breaks the protocol is told so."""
    async with serve(Seen(echo)) as port, open_raw(port) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 5)
        assert answer[2:4] == (1002).to_bytes(2, "big")


async def test_a_message_in_very_many_fragments_is_one_message() -> None:
    """Fragments, empty ones included, add up to a message that costs its bytes and no more."""
    seen = Seen(echo)
    async with serve(seen) as port, open_client(port) as client:
        await client.ping()
        client.transport.write(masked(Opcode.TEXT, b"a", fin=False))
        for _ in range(2_000):
            client.transport.write(masked(Opcode.CONT, b"", fin=False) + masked(Opcode.CONT, b"b", fin=False))
        await (await client.ping())
        assert seen.protocol is not None
        assert len(seen.protocol.frames) == 1
        client.transport.write(masked(Opcode.CONT, b"c"))
        assert await client.recv() == '"a' + "b" * 2_000 + 'c"'


async def test_pings_of_a_peer_that_does_not_read_are_not_hoarded() -> None:
    """Who sends pings and reads no pong is owed only the latest ones."""

    async def then(_scope: Scope, receive: Receive, _send: Send) -> None:
        assert (await receive())["text"] == "enough"

    seen = Seen(then)
    async with serve(seen, ws_ping_interval=None) as port, open_raw(port) as (_, writer):
        flood = b"".join(masked(Opcode.PING, os.urandom(125)) for _ in range(1_000))
        for _ in range(60):
            writer.write(flood)
            await writer.drain()
        writer.write(masked(Opcode.TEXT, b"enough"))
        await asyncio.wait_for(seen.done.wait(), 10)
        protocol = seen.protocol
        assert protocol is not None
        assert not protocol.writable.is_set()
        assert protocol.transport.get_write_buffer_size() < 1 << 20
        assert sum(map(len, protocol.owed_pongs)) < 1 << 20


async def test_a_close_reaches_a_peer_that_takes_nothing() -> None:
    """A connection that is closed ends in time, whether or not its peer reads what was written."""

    async def then(scope: Scope, receive: Receive, send: Send) -> None:
        protocol = seen.protocol
        assert protocol is not None
        while protocol.writable.is_set():
            await send(json_frame("x" * 100_000))
        scope["extensions"]["gateway.close"](4408, "enough", 0.1)
        assert (await receive())["code"] == 4408

    seen = Seen(then)
    async with serve(seen, ws_ping_interval=None) as port, open_raw(port):
        await asyncio.wait_for(seen.done.wait(), 5)
        await wait_until(lambda: seen.protocol is not None and seen.protocol.disconnected)


async def test_a_send_that_waits_for_its_peer_ends_with_the_connection() -> None:
    """Whoever waits for a peer to read is told when it has left, and cannot send to it any more."""

    async def then(_scope: Scope, _receive: Receive, send: Send) -> None:
        for _ in range(2):
            with pytest.raises(ClientDisconnected):
                await send_for_ever(send)

    seen = Seen(then)
    async with serve(seen, ws_ping_interval=None) as port:
        async with open_raw(port):
            await wait_until(lambda: seen.protocol is not None and not seen.protocol.writable.is_set())
        await asyncio.wait_for(seen.done.wait(), 5)


async def test_a_close_after_the_peer_has_gone_is_no_error() -> None:
    """Who closes a connection that was just reset need not know that."""

    async def then(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "websocket.disconnect":
            pass
        scope["extensions"]["gateway.close"](1012, "drain")
        with pytest.raises(ClientDisconnected):
            await send(json_frame("late"))

    seen = Seen(then)
    async with serve(seen) as port:
        async with open_raw(port) as (_, writer):
            reset = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        await asyncio.wait_for(seen.done.wait(), 5)


async def test_nothing_is_sent_after_a_close() -> None:
    """Frames after the close frame would break the protocol; the sender is told instead."""

    async def then(scope: Scope, _receive: Receive, send: Send) -> None:
        scope["extensions"]["gateway.close"](4401, "a reason" * 100)
        with pytest.raises(ClientDisconnected):
            await send(json_frame("late"))

    async with serve(Seen(then)) as port, open_client(port) as client:
        with pytest.raises(ConnectionClosed) as caught:
            await client.recv()
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, len(caught.value.rcvd.reason)) == (4401, 123)


async def test_a_peer_whose_messages_wait_unread_is_not_silent() -> None:
    """Its pong may wait behind them: who is not read is not closed for what it could not say."""
    enough = asyncio.Event()

    async def then(scope: Scope, receive: Receive, send: Send) -> None:
        await enough.wait()
        await echo(scope, receive, send)

    async with serve(Seen(then), ws_ping_interval=0.05, ws_ping_timeout=0.05) as port, open_client(port) as client:
        for number in range(3):
            await client.send(str(number))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.wait_closed(), 0.5)
        enough.set()
        assert [await client.recv() for _ in range(3)] == ['"0"', '"1"', '"2"']


@pytest.mark.parametrize(("left", "goes_on"), [(4, True), (20, False)])
async def test_the_next_frames_are_read_while_some_are_worked_on(*, left: int, goes_on: bool) -> None:
    """Where few are left of what has come; then reading pauses again, so that no more than one read is hoarded."""
    most, taken, checked = 10, asyncio.Event(), asyncio.Event()

    async def then(scope: Scope, receive: Receive, send: Send) -> None:
        protocol = scope["extensions"]["gateway.close"].__self__
        await wait_until(lambda: protocol.queue.qsize() == 1 + most + left)
        await receive()
        assert protocol.read_paused
        assert len(scope["extensions"]["gateway.waiting"](most)) == most
        assert protocol.read_paused is not goes_on
        taken.set()
        if goes_on:
            await wait_until(lambda: protocol.queue.qsize() > left)
            assert protocol.read_paused
        checked.set()
        await echo(scope, receive, send)

    async with serve(Seen(then)) as port, open_client(port) as client:
        client.transport.write(b"".join(masked(Opcode.TEXT, b"x") for _ in range(1 + most + left)))
        await asyncio.wait_for(taken.wait(), 10)
        client.transport.write(masked(Opcode.TEXT, b"later"))
        await asyncio.wait_for(checked.wait(), 10)


async def test_a_shutdown_closes_with_1012() -> None:
    """A server that stops tells its peers so."""
    seen = Seen(echo)
    async with AsyncExitStack() as stack:
        async with serve(seen) as port:
            client = await stack.enter_async_context(open_client(port))
            await client.ping()
            await wait_until(lambda: seen.protocol is not None)
        with pytest.raises(ConnectionClosed) as caught:
            await client.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1012
