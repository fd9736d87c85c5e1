"""A TCP balancer: each new connection to the next gateway that says it is ready."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

CHECK_S = 0.05
ANSWER_S = 2.0


class _Side(asyncio.Protocol):
    """One of the two connections of a relay; what it gets goes to its peer, and so does its end."""

    def __init__(self, balancer: Balancer) -> None:
        self._balancer = balancer
        self.peer: asyncio.Transport | None = None
        self.transport: asyncio.Transport | None = None
        self.early = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.peer is None:
            self.early += data
        else:
            self.peer.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.peer is not None:
            self.peer.close()


class _Front(_Side):
    """A client's connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._balancer.begin(self)


class _Back(_Side):
    """A gateway's connection."""

    port = 0

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._balancer.ended.append((time.monotonic(), self.port))


class Balancer:
    """Relays a port of this machine to others in turn, and looks at their readiness now and then.

    `refused` counts connections that a gateway which was ready did not take; `ended` has when, and by which port,
    connections ended.
    """

    def __init__(self, ports: Sequence[int]) -> None:
        self.ports = ports
        self.ready: set[int] = set()
        self.refused: Counter[int] = Counter()
        self.ended: list[tuple[float, int]] = []
        self.port = 0
        self._turn = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"http://127.0.0.1:{self.port}"

    def begin(self, front: _Front) -> None:
        """Connect a client."""
        task = asyncio.create_task(self._connect(front))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, front: _Front) -> None:
        assert front.transport is not None
        for _ in self.ports:
            ready = [port for port in self.ports if port in self.ready]
            if not ready:
                break
            self._turn += 1
            port = ready[self._turn % len(ready)]
            try:
                back = _Back(self)
                back.port = port
                await asyncio.get_running_loop().create_connection(partial(_same, back), "127.0.0.1", port)
            except OSError:
                self.refused[port] += 1
                continue
            assert back.transport is not None
            front.peer, back.peer = back.transport, front.transport
            back.transport.write(front.early)
            if front.transport.is_closing():
                back.transport.close()
            return
        front.transport.abort()

    async def watch(self) -> None:
        """Look at every gateway's readiness; for ever."""
        while True:
            for port in self.ports:
                if await _is_ready(port):
                    self.ready.add(port)
                else:
                    self.ready.discard(port)
            await asyncio.sleep(CHECK_S)


def _same(back: _Back) -> _Back:
    return back


async def _is_ready(port: int) -> bool:
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: balancer\r\nConnection: close\r\n\r\n")
                return (await reader.readline()).startswith(b"HTTP/1.1 200")
            finally:
                writer.transport.abort()
    return False


@asynccontextmanager
async def balance(ports: Sequence[int]) -> AsyncIterator[Balancer]:
    """Balance connections for as long as the block lasts."""
    balancer = Balancer(ports)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Front(balancer), "127.0.0.1", 0, backlog=4096)
    balancer.port = server.sockets[0].getsockname()[1]
    watching = asyncio.create_task(balancer.watch())
    try:
        yield balancer
    finally:
        watching.cancel()
        server.close()
        await asyncio.wait([watching])
