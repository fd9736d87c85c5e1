"""A relay in front of the store whose connections can go deaf without being closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path


class Relay:
    """Carries connections to the store; those that are `deafen`ed hear nothing any more, and are not told."""

    def __init__(self, target: str, path: Path) -> None:
        self._target = target
        self._path = path
        self._deaf: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0

    @property
    def url(self) -> str:
        """The URL by which the store is reached through this relay."""
        return f"unix://{self._path}"

    def deafen(self) -> None:
        """Swallow what the store says on the connections that stand now."""
        self._deaf.update(range(self.connections + 1))

    def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        self.connections += 1
        task = asyncio.create_task(self._serve(self.connections, reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(self._target)
        back = asyncio.create_task(self._carry(number, far_reader, writer))
        try:
            await self._carry(0, reader, far_writer)
        finally:
            back.cancel()
            await asyncio.wait([back])
            for end in (writer, far_writer):
                end.close()

    async def _carry(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(65536):
                if number == 0 or number not in self._deaf:
                    writer.write(chunk)
                    await writer.drain()

    async def close(self) -> None:
        """End every connection."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


@asynccontextmanager
async def lay_relay(store_url: str, folder: Path) -> AsyncIterator[Relay]:
    """Relay to a store while the block runs."""
    relay = Relay(store_url.removeprefix("unix://"), folder / "relay.sock")
    server = await asyncio.start_unix_server(relay.take, relay.url.removeprefix("unix://"))
    try:
        yield relay
    finally:
        server.close()
        await relay.close()
