"""The socket that a gateway listens on: made once, inherited by every process that serves it."""

from __future__ import annotations

import errno
import ipaddress
import socket
import time
from typing import Final

import anyio

from gateway.errors import GatewayError

BACKLOG: Final = 2048
# The processes of a gateway that was killed let its address go as soon as they notice.
RELEASE_S: Final = 2.0
POLL_S: Final = 0.05


class CannotListen(GatewayError):
    """The address is taken, not this machine's, or not this user's to take."""

    code = "cannot_listen"


async def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on `host`; with port 0 on a free port.

    Raises:
        CannotListen: the detail names the address, the reason and what to set.
    """
    deadline = time.monotonic() + RELEASE_S
    while True:
        try:
            return _bind(host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() >= deadline:
                raise CannotListen(
                    f"Cannot listen on {format_address(host, port)}: {error.strerror}. "
                    "Choose another with --host and --port, or GATEWAY_HOST and GATEWAY_PORT."
                ) from error
        await anyio.sleep(POLL_S)


def _bind(host: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # A name with both is taken at its IPv4 address, which every client of this machine tries.
    family, kind, protocol, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        # At once: until one of them listens, two may bind the same address.
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def is_loopback(sock: socket.socket) -> bool:
    """Tell whether only this machine can reach the socket."""
    return ipaddress.ip_address(sock.getsockname()[0]).is_loopback


def format_url(sock: socket.socket) -> str:
    """Return the address of the socket as a browser takes it."""
    host, port = sock.getsockname()[:2]
    return f"http://{format_address(host, port)}"


def format_address(host: str, port: int) -> str:
    """Return host and port in one, with the brackets that IPv6 needs."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
