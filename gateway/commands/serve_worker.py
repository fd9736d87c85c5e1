"""One of the processes that serve a gateway's socket; `gateway serve --workers` starts it."""

from __future__ import annotations

import logging
import os
import socket
from contextlib import suppress
from typing import Final

import anyio
import click

from gateway.commands.server import Stopping, serve_app, set_up_logging, stop_on_signals
from gateway.settings import Settings, load

logger = logging.getLogger(__name__)

# What an orphan may take to tell its readers; its store is gone, so nothing else is left to do.
ORPHAN_S: Final = 1.0


@click.command(hidden=True)
@click.option("--socket-fd", type=int, required=True, help="The listening socket.")
@click.option("--health-fd", type=int, help="The socket that listens for whoever asks how it is.")
@click.option("--told-fd", type=int, required=True, help="A pipe on which it says that it serves.")
@click.option("--lifeline-fd", type=int, required=True, help="A pipe that closes when the parent ends.")
def command(socket_fd: int, health_fd: int | None, told_fd: int, lifeline_fd: int) -> None:
    """Serve a socket that the parent listens on, until it says so or is gone."""
    settings = load(os.environ)
    set_up_logging(settings)
    health = None if health_fd is None else socket.socket(fileno=health_fd)
    anyio.run(
        run,
        settings,
        socket.socket(fileno=socket_fd),
        health,
        told_fd,
        lifeline_fd,
        backend_options={"use_uvloop": True},
    )


async def run(
    settings: Settings, sock: socket.socket, health: socket.socket | None, told_fd: int, lifeline_fd: int
) -> None:
    """Serve until a signal, or until the other end of the lifeline is closed."""
    assert settings.redis_url is not None
    stopping = Stopping()

    def announce() -> None:
        os.write(told_fd, b".")
        os.close(told_fd)
        logger.info("process %d serves", os.getpid())

    async with anyio.create_task_group() as group:
        group.start_soon(stop_on_signals, stopping)
        group.start_soon(_watch, lifeline_fd, sock, stopping)
        await serve_app(
            settings,
            sock,
            settings.redis_url,
            dev_key=settings.dev_key,
            stopping=stopping,
            announce=announce,
            health=health,
        )
        group.cancel_scope.cancel()


async def _watch(lifeline_fd: int, sock: socket.socket, stopping: Stopping) -> None:
    # Nobody ever writes: it is readable only when it is closed.
    await anyio.wait_readable(lifeline_fd)
    logger.error("the parent is gone; ending")
    # For all who inherited it at once: the next gateway may want the port before the last of them has ended.
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    stopping.abandon()
    await anyio.sleep(ORPHAN_S)
    os._exit(1)
