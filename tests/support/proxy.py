"""A TCP relay on 127.0.0.1 that breaks connections in the ways in which networks do.

Towards the client a cut is what it says; the gateway sees the same, except that a black hole is deaf to both.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from enum import StrEnum

import msgspec

READ_BYTES = 65536
LINGER_NONE = struct.pack("ii", 1, 0)


class Cut(StrEnum):
    """How a connection breaks: by RST, by FIN in the middle of an answer, or silently."""

    RESET = "reset"
    FIN = "fin"
    BLACK_HOLE = "black_hole"


class Fate(msgspec.Struct, frozen=True):
    """When a connection breaks: after so many bytes to the client or so many seconds, whichever comes first."""

    how: Cut
    after_bytes: int | None = None
    after_s: float | None = None


Choose = Callable[["Proxy"], Fate | None]
"""Decides the fate of a connection that has just been made; None lets it live."""


def let_live(_proxy: Proxy) -> None:
    """Let every connection live."""


class Dooms:
    """Fates from a seed, until as many cuts as wanted have been made; after that connections live.

    Args:
        black_holes: How many of a hundred cuts are black holes; the others are RST and FIN in equal parts.
    """

    def __init__(self, seed: int, *, cuts: int, most_bytes: int, most_s: float, black_holes: int = 10) -> None:
        self._random = random.Random(seed)
        self._cuts = cuts
        self._most_bytes = most_bytes
        self._most_s = most_s
        self._black_holes = black_holes

    def __call__(self, proxy: Proxy) -> Fate | None:
        """Return the next connection's fate."""
        if proxy.cuts.total() >= self._cuts:
            return None
        silent = self._random.randrange(100) < self._black_holes
        how = Cut.BLACK_HOLE if silent else self._random.choice((Cut.RESET, Cut.FIN))
        return Fate(how, self._random.randrange(self._most_bytes), self._random.uniform(0, self._most_s))


class _Wire:
    """One relayed connection; `broken` is set to how it is to break, None when a side ended it."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.client = client
        self.gateway: asyncio.StreamWriter | None = None
        self.broken: asyncio.Future[Cut | None] = asyncio.get_running_loop().create_future()

    def break_by(self, how: Cut | None) -> None:
        """Decide the end, unless it is decided."""
        if not self.broken.done():
            self.broken.set_result(how)


class Proxy:
    """Relays a port of this machine.

    Args:
        choose: Each new connection's fate.
        latency_s: How long every chunk is held back, either way.
    """

    def __init__(self, target_port: int, *, choose: Choose = let_live, latency_s: float = 0) -> None:
        self.choose = choose
        self.latency_s = latency_s
        self.connections = 0
        self.cuts: Counter[Cut] = Counter()
        self.port = 0
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._wires: set[_Wire] = set()
        self._changed = asyncio.Condition()

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"http://127.0.0.1:{self.port}"

    async def accept(self) -> None:
        """Take connections, on the same port as before."""
        self._server = await asyncio.start_server(self._take, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Have new connections refused; those that are open stay."""
        if self._server is not None:
            self._server.close()

    def cut_all(self, how: Cut) -> None:
        """Break every open connection."""
        for wire in self._wires:
            wire.break_by(how)

    async def wait_cuts(self, count: int) -> None:
        """Wait until so many cuts have been made altogether."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.cuts.total() >= count)

    async def close(self) -> None:
        """End everything."""
        self.refuse()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._relay(_Wire(writer), reader, self.choose(self)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _relay(self, wire: _Wire, reader: asyncio.StreamReader, fate: Fate | None) -> None:
        self._wires.add(wire)
        pumps: list[asyncio.Task[None]] = []
        try:
            far_reader, wire.gateway = await asyncio.open_connection("127.0.0.1", self._target_port)
            pumps.append(asyncio.create_task(self._pump(wire, reader, wire.gateway, None)))
            pumps.append(asyncio.create_task(self._pump(wire, far_reader, wire.client, fate)))
            how = await _await_end(wire, fate)
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps)
            if how is not None:
                await self._note(how)
            await _end(wire, reader, how)
        except OSError:
            pass
        finally:
            self._wires.discard(wire)
            for pump in pumps:
                pump.cancel()
            for end in (wire.client, wire.gateway):
                if end is not None:
                    end.transport.abort()

    async def _pump(
        self, wire: _Wire, source: asyncio.StreamReader, sink: asyncio.StreamWriter, fate: Fate | None
    ) -> None:
        left = fate.after_bytes if fate else None
        with suppress(OSError):
            while chunk := await source.read(READ_BYTES):
                if self.latency_s:
                    await asyncio.sleep(self.latency_s)
                sink.write(chunk[:left])
                await sink.drain()
                if fate is not None and left is not None:
                    left -= len(chunk)
                    if left <= 0:
                        return wire.break_by(fate.how)
        return wire.break_by(None)

    async def _note(self, how: Cut) -> None:
        async with self._changed:
            self.cuts[how] += 1
            self._changed.notify_all()


async def _await_end(wire: _Wire, fate: Fate | None) -> Cut | None:
    try:
        async with asyncio.timeout(fate.after_s if fate else None):
            return await asyncio.shield(wire.broken)
    except TimeoutError:
        return fate.how if fate else None


async def _end(wire: _Wire, reader: asyncio.StreamReader, how: Cut | None) -> None:
    """Bring about what a cut looks like; everything is closed after it."""
    ends = [end for end in (wire.client, wire.gateway) if end is not None]
    if how is Cut.RESET:
        for end in ends:
            end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
    elif how is Cut.BLACK_HOLE:
        # The client gives up by itself, and its going is swallowed like everything else.
        while await reader.read(READ_BYTES):
            pass
        wire.client.transport.abort()
        await asyncio.get_running_loop().create_future()
    else:
        for end in ends:
            end.close()
        for end in ends:
            await end.wait_closed()


@asynccontextmanager
async def lay_proxy(target_port: int, *, choose: Choose = let_live, latency_s: float = 0) -> AsyncIterator[Proxy]:
    """Relay a port of this machine for as long as the block lasts."""
    proxy = Proxy(target_port, choose=choose, latency_s=latency_s)
    await proxy.accept()
    try:
        yield proxy
    finally:
        await proxy.close()
