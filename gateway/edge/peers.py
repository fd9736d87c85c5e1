"""Who is at the other end of a connection."""

from __future__ import annotations

import asyncio


def peer_of(transport: asyncio.BaseTransport) -> str | None:
    """Return the address of the other end; None on a socket that is a file. Asks the system: not for every request."""
    name = transport.get_extra_info("peername")
    return name[0] if isinstance(name, tuple | list) else None
