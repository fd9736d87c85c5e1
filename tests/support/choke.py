"""A relay before the store that loses its connection at a chosen command, before the command or after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

Command = list[bytes]


class Choke:
    """Relays a store's unix socket, and breaks every connection when a chosen command comes by.

    `arm` chooses: the n-th command (from 0) that `counts`, which the store still executes, or never sees.
    """

    def __init__(self, target: Path, path: Path) -> None:
        self._target = target
        self._path = path
        self._left: int | None = None
        self._executed = False
        self._counts: Callable[[Command], bool] = lambda _command: False
        self._writers: set[asyncio.StreamWriter] = set()
        self.seen: list[Command] = []

    @property
    def url(self) -> str:
        """Where a gateway finds the store."""
        return f"unix://{self._path}"

    @property
    def sprung(self) -> bool:
        """Whether the chosen command came by."""
        return self._left is None

    def arm(self, number: int, *, executed: bool, counts: Callable[[Command], bool]) -> None:
        """Break at the n-th command that counts."""
        self._left, self._executed, self._counts = number, executed, counts
        self.seen = []

    def disarm(self) -> None:
        """Let everything pass."""
        self._left = None

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection until either side ends it."""
        store_reader, store_writer = await asyncio.open_unix_connection(str(self._target))
        self._writers |= {writer, store_writer}
        back = asyncio.create_task(self._carry(store_reader, writer))
        try:
            while True:
                command, raw = await _read_command(reader)
                if self._chosen(command):
                    if self._executed:
                        await self._execute_alone(raw)
                    self._break_all()
                    return
                store_writer.write(raw)
        except (asyncio.IncompleteReadError, OSError, ValueError):
            pass
        finally:
            back.cancel()
            for side in (writer, store_writer):
                self._writers.discard(side)
                side.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65536):
            writer.write(chunk)
        writer.close()

    def _chosen(self, command: Command) -> bool:
        if self._left is None or not self._counts(command):
            return False
        self.seen.append(command)
        if self._left:
            self._left -= 1
            return False
        self._left = None
        return True

    async def _execute_alone(self, raw: bytes) -> None:
        reader, writer = await asyncio.open_unix_connection(str(self._target))
        writer.write(raw)
        await reader.read(1)
        writer.close()

    def _break_all(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def close(self) -> None:
        """Break what is left."""
        self._break_all()


async def _read_command(reader: asyncio.StreamReader) -> tuple[Command, bytes]:
    head = await reader.readuntil(b"\r\n")
    if head[:1] != b"*":
        raise ValueError("a client speaks arrays")
    raw, words = [head], []
    for _ in range(int(head[1:])):
        size = await reader.readuntil(b"\r\n")
        body = await reader.readexactly(int(size[1:]) + 2)
        raw += [size, body]
        words.append(body[:-2])
    return words, b"".join(raw)


@asynccontextmanager
async def open_choke(store_url: str, folder: Path) -> AsyncIterator[Choke]:
    """Relay a store for as long as the block lasts."""
    path = folder / "choke.sock"
    choke = Choke(Path(store_url.removeprefix("unix://")), path)
    server = await asyncio.start_unix_server(choke.take, path=str(path), limit=2**24)
    try:
        yield choke
    finally:
        server.close()
        await choke.close()
