"""Taking connections: while there is room, and beyond that only as others end.

A connection that is not taken waits in the kernel's queue, and later ones are not even answered: a client sees a slow
connect, which all of them try again, and never a refusal, after which a browser's EventSource would give up.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import resource
import socket
import struct
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any, Final

from gateway import telemetry
from gateway.commands.listen import BACKLOG
from gateway.edge.server import HttpProtocol

logger = logging.getLogger(__name__)

SPARE_FILES: Final = 256
"""Descriptors that are no client's: the store's, those of files, of webhooks."""

ACCEPTS: Final = 16
"""Connections that are taken in a turn of the event loop while many come: libuv takes one a descriptor and turn."""

CROWD: Final = 2
"""So many that wait in the kernel's queue are many."""

CALM: Final = 32
"""Fewer than these between two looks are few: they are taken by one descriptor, the others would look in vain."""

_TCP_INFO_WAITING: Final = struct.Struct("24xI")
"""`tcpi_unacked` of Linux's `struct tcp_info`: of a socket that listens, the connections that wait to be taken."""


class Acceptance:
    """The listening end of a server; closed and opened again without its sockets being closed.

    Args:
        make_protocol: For each connection.
        most: Connections at which no more are taken.
    """

    def __init__(self, make_protocol: Callable[[], asyncio.Protocol], *, most: int) -> None:
        self._make_protocol = make_protocol
        self._most = most
        self._sockets: Sequence[socket.socket] = ()
        self._servers: list[asyncio.Server] = []
        self._more: list[asyncio.Server] = []
        self._taken = 0
        self._connections: Collection[Any] = ()

    async def open(self, sockets: Sequence[socket.socket]) -> None:
        """Take connections of these sockets."""
        self._sockets = sockets
        await self._listen(self._servers)

    async def _listen(self, servers: list[asyncio.Server]) -> None:
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            # A copy: what is closed with the server must not be the socket itself.
            server = await loop.create_server(self._take, sock=sock.dup(), backlog=BACKLOG)
            # Known before the next one may fail.
            servers.append(server)

    def _take(self) -> asyncio.Protocol:
        self._taken += 1
        if len(self._connections) >= self._most:
            # Not within the server's own call; nor at the next look: by then many a turn would use up all descriptors.
            asyncio.get_running_loop().call_soon(self._fill)
        return self._make_protocol()

    def close(self) -> None:
        """Take no more, for good."""
        self._sockets = ()
        self._pause()

    def _fill(self) -> None:
        """Take no more until there is room."""
        if self._servers:
            telemetry.REFUSED.labels("connections").inc()
            logger.warning("%d connections are open; no more are taken until some have ended", len(self._connections))
            self._pause()

    def _pause(self) -> None:
        _end(self._more)
        _end(self._servers)

    async def pace(self, connections: Collection[Any]) -> None:
        """Stop or go on, by how many connections there are; at the limit, those that idle between requests end.

        While many come, take more of them in a turn: a turn that begins streams of one run asks the store once.

        Args:
            connections: Those of this moment and of every later one: the limit is kept between two looks, too.
        """
        self._connections, count = connections, len(connections)
        telemetry.CONNECTIONS.set(count)
        if count >= self._most:
            self._fill()
            end_idle(connections, count - self._most + 1)
        elif not self._servers:
            await self._listen(self._servers)
        taken, self._taken = self._taken, 0
        if self._more and taken < CALM:
            _end(self._more)
        elif self._servers and not self._more and max(map(count_waiting, self._sockets), default=0) >= CROWD:
            # Without a descriptor to spare, as many as there are do.
            with suppress(OSError):
                for _ in range(ACCEPTS - 1):
                    await self._listen(self._more)


def _end(servers: list[asyncio.Server]) -> None:
    while servers:
        servers.pop().close()


def count_waiting(sock: socket.socket) -> int:
    """Return how many connections wait on a socket that listens, 0 where the system does not tell."""
    with suppress(AttributeError, OSError, struct.error):
        return int(_TCP_INFO_WAITING.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28))[0])
    return 0


def end_idle(connections: Collection[Any], most: int) -> None:
    """Close up to `most` connections on which nothing is asked at present."""
    idle = (each for each in list(connections) if isinstance(each, HttpProtocol) and each.timeout_keep_alive_task)
    for _, connection in zip(range(most), idle, strict=False):
        connection.timeout_keep_alive_handler()


def fit_files(connections: int) -> int:
    """Return how many connections this process can have, with as many descriptors as it may give itself."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    room = connections if hard == resource.RLIM_INFINITY else max(16, hard - SPARE_FILES)
    if room < connections:
        logger.info("%d connections at most, not %d: the limit of open files is %d", room, connections, hard)
    _make_table(min(room, connections) + SPARE_FILES)
    return min(room, connections)


def _make_table(files: int) -> None:
    """Have the kernel's table of descriptors made as large as it will be.

    Linux doubles it as it fills, and may stop a process of several threads for 10 to 20 ms then.
    """
    with suppress(OSError), open(os.devnull) as last:
        os.close(fcntl.fcntl(last, fcntl.F_DUPFD_CLOEXEC, files - 1))
