"""Taking connections: while there is room, and beyond that only as others end.

A connection that is not taken waits in the kernel's queue, and later ones are not even answered: a client sees a slow
connect, which all of them try again, and never a refusal, after which a browser's EventSource would give up.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from gateway import telemetry
from gateway.commands.listen import BACKLOG
from gateway.edge.server import HttpProtocol

logger = logging.getLogger(__name__)

SPARE_FILES: Final = 256
"""Descriptors that are no client's: the store's, those of files, of webhooks."""


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

    async def open(self, sockets: Sequence[socket.socket]) -> None:
        """Take connections of these sockets."""
        self._sockets = sockets
        await self._open()

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            # A copy: what is closed with the server must not be the socket itself.
            server = await loop.create_server(self._make_protocol, sock=sock.dup(), backlog=BACKLOG)
            self._servers.append(server)

    def close(self) -> None:
        """Take no more, for good."""
        self._sockets = ()
        self._pause()

    def _pause(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()

    async def pace(self, connections: Collection[Any]) -> None:
        """Stop or go on, by how many connections there are; at the limit, those that idle between requests end."""
        count = len(connections)
        telemetry.CONNECTIONS.set(count)
        if self._servers and count >= self._most:
            telemetry.REFUSED.labels("connections").inc()
            logger.warning("%d connections are open; no more are taken until some have ended", count)
            self._pause()
        if count >= self._most:
            end_idle(connections, count - self._most + 1)
        elif not self._servers:
            await self._open()


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
    return min(room, connections)
