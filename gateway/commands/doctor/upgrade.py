"""Whether a WebSocket reaches the gateway."""

from __future__ import annotations

import asyncio
import json
from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from gateway.commands.doctor.finding import Level, Ward
from gateway.edge.ws_server import CloseCode

PATIENCE_S: Final = 10.0
CURE: Final = (
    "Pass upgrades on; in nginx set `proxy_http_version 1.1`, `proxy_set_header Upgrade $http_upgrade` "
    'and `proxy_set_header Connection "upgrade"` for /v1/ws.'
)


def dial(url: str, key: str | None) -> connect:
    """Return what connects to the gateway's WebSocket."""
    return connect(
        f"ws{url.removeprefix('http').rstrip('/')}/v1/ws",
        subprotocols=[Subprotocol("gateway.v1")],
        additional_headers={"Authorization": f"Bearer {key}"} if key else None,
        open_timeout=PATIENCE_S,
        # The gateway's own pings are to keep the connection alive.
        ping_interval=None,
        proxy=None,
    )


async def judge(ward: Ward, url: str, key: str | None) -> None:
    """Open a WebSocket and ask for an answer; without a key, the gateway says that it needs one."""
    try:
        async with dial(url, key) as socket:
            said = await _ask(socket)
    except InvalidStatus as error:
        told = f"A WebSocket does not get through: it is answered with {error.response.status_code}."
        ward.add("WebSocket", "problem", told, CURE)
    except (InvalidHandshake, OSError, TimeoutError) as error:
        told = f"A WebSocket does not get through: {error or type(error).__name__}."
        ward.add("WebSocket", "problem", told, CURE)
    else:
        ward.add("WebSocket", *said)


async def _ask(socket: ClientConnection) -> tuple[Level, str]:
    try:
        async with asyncio.timeout(PATIENCE_S):
            await socket.send(json.dumps({"type": "ping", "id": "doctor"}))
            await socket.recv()
    except ConnectionClosed as error:
        code = error.rcvd.code if error.rcvd is not None else None
        if code == CloseCode.UNAUTHENTICATED:
            return "good", "A WebSocket gets through, up to the question for a key."
        return "problem", f"A WebSocket opens, and is closed with {code or 'no code'}."
    return "good", "A WebSocket gets through, and is answered."
