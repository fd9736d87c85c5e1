"""The link to the store: what a refusal means for whoever asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import hiredis
import pytest
from redis.exceptions import ResponseError

from gateway.errors import StoreUnavailable
from gateway.store.link import NodeLink
from tests.support.running import wait_until

pytestmark = pytest.mark.anyio


class Server:
    """Speaks the store's protocol: a command `SAY x` is answered `-x`, `HELLO` with its role, any other `+OK`."""

    def __init__(self, role: str = "master") -> None:
        self.role = role

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection; a link that leaves may do so with what it was told unread."""
        parser = hiredis.Reader(encoding="utf-8")
        with suppress(ConnectionError):
            while chunk := await reader.read(4096):
                parser.feed(chunk)
                while (command := parser.gets()) is not False:
                    writer.write(self._reply(command))
        writer.close()

    def _reply(self, command: list[str]) -> bytes:
        match command:
            case ["SAY", what]:
                return f"-{what}\r\n".encode()
            case ["HELLO"] if not self.role:
                return b"-ERR unknown command 'HELLO'\r\n"
            case ["HELLO"]:
                return f"*4\r\n$5\r\nproto\r\n:2\r\n$4\r\nrole\r\n+{self.role}\r\n".encode()
        return b"+OK\r\n"


@asynccontextmanager
async def linked(speaker: Server | None = None, *, timeout_s: float = 5.0) -> AsyncIterator[NodeLink]:
    """Give a link to a server that says what it is told to."""
    server = await asyncio.start_server((speaker or Server()).answer, "127.0.0.1", 0)
    link = NodeLink(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", "test", timeout_s=timeout_s)
    running = asyncio.create_task(link.run())
    try:
        yield link
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        server.close()


@pytest.mark.parametrize(
    "refusal",
    [
        "CLUSTERDOWN The cluster is down",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "MASTERDOWN Link with MASTER is down",
        "READONLY You can't write against a read only replica.",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "LOADING Redis is loading the dataset in memory",
        "MISCONF Redis is configured to save RDB snapshots",
        "NOREPLICAS Not enough good replicas to write.",
        "BUSY Redis is busy running a script.",
    ],
)
async def test_a_store_that_refuses_for_now_has_not_written(refusal: str) -> None:
    """Whoever asked may ask again, and the connection stands."""
    async with linked() as link:
        with pytest.raises(StoreUnavailable) as refused:
            await link.call("SAY", refusal)
        assert refused.value.facts["outcome"] == "not_written"
        assert await link.call("PING") == b"OK"
        assert link.connects == 1


async def test_a_command_that_is_wrong_is_no_outage() -> None:
    """A mistake of the gateway's own is not told as the store's absence."""
    async with linked() as link:
        with pytest.raises(ResponseError):
            await link.call("SAY", "WRONGTYPE Operation against a key")


async def test_a_primary_that_was_demoted_is_left() -> None:
    """A connection that outlives a failover, and leads to what takes no writes any more, is made anew."""
    async with linked() as link:

        async def is_left() -> bool:
            with pytest.raises(StoreUnavailable):
                await link.call("SAY", "READONLY You can't write against a read only replica.")
            return link.connects > 1

        await wait_until(is_left, timeout_s=30)
        assert await link.call("PING") == b"OK"


async def test_a_reader_leaves_a_primary_that_was_demoted() -> None:
    """A link that only reads is never refused, and finds out all the same that it reads a replica."""
    server = Server()
    async with linked(server, timeout_s=1) as link:
        assert await link.call("PING") == b"OK"
        server.role = "replica"
        await wait_until(lambda: link.connects > 1, timeout_s=30)


async def test_what_only_a_primary_knows_is_not_taken_from_a_replica() -> None:
    """A replica's word that something is not there counts for nothing; that of whoever has no role, or is the
    primary, does."""
    server = Server()
    async with linked(server) as link:
        await link.check_primary()
        server.role = ""
        await link.check_primary()
        server.role = "replica"
        with pytest.raises(StoreUnavailable, match="replica"):
            await link.check_primary()
