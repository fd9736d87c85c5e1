"""A connection to the store: who may open it, and what its owner sees of it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from gateway.store.valkey import find_server
from gateway.store.wire import ProtocolBroken, open_wire
from tests.support.running import wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def guarded(anyio_backend: object) -> AsyncIterator[Path]:
    """The socket of a store that asks for a password."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        path = Path(folder) / "s.sock"
        options = ["--port", "0", "--unixsocket", str(path), "--dir", folder, "--save", "", "--requirepass", "secret"]
        process = await asyncio.create_subprocess_exec(
            str(await find_server()), *options, stdout=asyncio.subprocess.DEVNULL
        )
        try:
            await wait_until(path.exists)
            yield path
        finally:
            process.terminate()
            await process.wait()


async def test_a_password_and_a_database_are_taken_from_the_url(guarded: Path) -> None:
    """The connection is known by its name, and works in its database."""
    wire = await open_wire(f"unix://:secret@{guarded}?db=3", "tester")
    clients = (await wire.ask("CLIENT", "LIST")).decode()
    assert "name=tester " in clients
    assert " db=3 " in clients
    wire.close()


@pytest.mark.parametrize("credentials", ["", ":wrong@", "nobody:secret@"])
async def test_a_store_that_refuses_whoever_connects_says_so(guarded: Path, credentials: str) -> None:
    """Without the password, or with another, nothing is connected."""
    with pytest.raises(ResponseError):
        await open_wire(f"unix://{credentials}{guarded}", "tester")


async def test_nobody_answering_is_an_error_of_the_network(tmp_path: Path) -> None:
    """Whoever connects again and again tells it from a refusal."""
    with pytest.raises(OSError, match="No such file"):
        await open_wire(f"unix://{tmp_path}/nothing.sock", "tester")


async def test_replies_are_told_in_order_until_the_connection_is_lost(guarded: Path) -> None:
    """Commands of one moment share a write; the owner sees a refusal among the replies, and the end."""
    wire = await open_wire(f"unix://:secret@{guarded}", "tester")
    replies: list[object] = []
    wire.take = replies.append
    for packed in (b"PING\r\n", b"NONSENSE\r\n", b"ECHO x\r\n"):
        wire.send(packed)
    await wait_until(lambda: len(replies) == 3)
    assert (replies[0], replies[2]) == (b"PONG", b"x")
    assert isinstance(replies[1], ResponseError)
    wire.send(b"QUIT\r\n")
    async with asyncio.timeout(5):
        with pytest.raises(ProtocolBroken):
            await wire.lost


async def test_a_server_that_speaks_otherwise_is_left() -> None:
    """Bytes that are no reply end the connection."""

    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    with pytest.raises(ProtocolBroken):
        await open_wire(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", "tester")
    server.close()
    await server.wait_closed()
