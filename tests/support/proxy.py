"""A TCP relay on 127.0.0.1 that breaks connections in the ways in which networks do, switchable at any moment.

Towards the client a cut is what it says; the far side sees the same, except that a black hole is deaf to both.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec

from tests.support.fates import Cut, Dooms, Fate

__all__ = ["Choose", "Cut", "Dooms", "Far", "Fate", "Proxy", "lay_proxy", "let_live"]

READ_BYTES = 65536
LINGER_NONE = struct.pack("ii", 1, 0)


class Far(msgspec.Struct, frozen=True):
    """Where a relay leads: a host and a port, with TLS if wanted, or a unix socket."""

    host: str = "127.0.0.1"
    port: int = 0
    tls: bool = False
    path: Path | None = None

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a connection to it."""
        if self.path is not None:
            return await asyncio.open_unix_connection(self.path)
        return await asyncio.open_connection(self.host, self.port, ssl=self.tls or None)


Choose = Callable[["Proxy"], Fate | None]
"""Decides the fate of a connection that has just been made; None lets it live."""


def let_live(_proxy: Proxy) -> None:
    """Let every connection live."""


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
    """Relays to another place; `far`, `choose`, `latency_s` and `bytes_per_s` may be changed while it works.

    Args:
        choose: Each new connection's fate.
        latency_s: How long every chunk is held back, either way.
    """

    def __init__(self, far: Far, *, choose: Choose = let_live, latency_s: float = 0) -> None:
        self.far = far
        self.choose = choose
        self.latency_s = latency_s
        self.bytes_per_s: float | None = None
        self.connections = 0
        self.cuts: Counter[Cut] = Counter()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._wires: set[_Wire] = set()
        self._changed = asyncio.Condition()
        self._passing = asyncio.Event()
        self._passing.set()
        self._answering = asyncio.Event()
        self._answering.set()

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

    def hold(self, *, answers_only: bool = False) -> None:
        """Let nothing pass any more, not even an end: the network is parted, nobody is told.

        Args:
            answers_only: What clients send still arrives, and they hear nothing of it.
        """
        self._answering.clear()
        if not answers_only:
            self._passing.clear()

    def release(self) -> None:
        """Let pass what was held back, in its order."""
        self._passing.set()
        self._answering.set()

    def cut_all(self, how: Cut) -> None:
        """Break every open connection."""
        for wire in self._wires:
            wire.break_by(how)

    def cut_one(self, how: Cut) -> None:
        """Break one open connection, any."""
        open_wires = [wire for wire in self._wires if not wire.broken.done()]
        if open_wires:
            random.choice(open_wires).break_by(how)

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
            await self._passing.wait()
            far_reader, wire.gateway = await self.far.connect()
            how = fate.how if fate else None
            sent, received = (fate.after_sent_bytes, fate.after_bytes) if fate else (None, None)
            there = self._pump(wire, reader, wire.gateway, self._passing, how, sent)
            back = self._pump(wire, far_reader, wire.client, self._answering, how, received)
            pumps += [asyncio.create_task(there), asyncio.create_task(back)]
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
        self,
        wire: _Wire,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        passing: asyncio.Event,
        how: Cut | None,
        left: int | None,
    ) -> None:
        with suppress(OSError):
            while chunk := await source.read(self._piece_bytes):
                await self._travel(len(chunk))
                await passing.wait()
                sink.write(chunk[:left])
                await sink.drain()
                if left is not None:
                    left -= len(chunk)
                    if left <= 0:
                        return wire.break_by(how)
        await passing.wait()
        return wire.break_by(None)

    @property
    def _piece_bytes(self) -> int:
        """What is passed on at once: where the line is thin, the twentieth part of a second."""
        return READ_BYTES if self.bytes_per_s is None else max(1, int(self.bytes_per_s / 20))

    async def _travel(self, size_bytes: int) -> None:
        """Take as long as the line needs for so many bytes."""
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        if self.bytes_per_s:
            await asyncio.sleep(size_bytes / self.bytes_per_s)

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
            sock = end.get_extra_info("socket")
            # One that has been closed meanwhile has none.
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
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
async def lay_proxy(far: int | Far, *, choose: Choose = let_live, latency_s: float = 0) -> AsyncIterator[Proxy]:
    """Relay to a port of this machine, or to another place, for as long as the block lasts."""
    proxy = Proxy(Far(port=far) if isinstance(far, int) else far, choose=choose, latency_s=latency_s)
    await proxy.accept()
    try:
        yield proxy
    finally:
        await proxy.close()
