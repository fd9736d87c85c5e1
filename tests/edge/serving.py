"""A real server around an application, and requests made by hand."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.requests import Request
from starlette.types import ASGIApp, Message

from gateway.edge.server import HttpProtocol
from gateway.edge.ws_server import WebSocketProtocol


@asynccontextmanager
async def serve(app: ASGIApp, listener: socket.socket | None = None, **options: Any) -> AsyncIterator[int]:
    """Serve `app` with the gateway's protocols and yield its port; connections are taken from the first moment on."""
    listener = listener or socket.create_server(("127.0.0.1", 0))
    options = {"http": HttpProtocol, "ws": WebSocketProtocol, "timeout_graceful_shutdown": 2, **options}
    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, **options)
    server = uvicorn.Server(config)
    # No task group: a failing test would cancel the server, and its connections would outlive it.
    serving = asyncio.create_task(server.serve([listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await serving


def make_request(
    chunks: Iterable[bytes] = (), *, headers: dict[str, str] | None = None, disconnects: bool = False
) -> Request:
    """Return a request whose body comes in these chunks, and then ends, or is cut by a disconnect."""
    messages: list[Message] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append({"type": "http.disconnect"} if disconnects else {"type": "http.request", "body": b""})

    async def receive() -> Message:
        return messages.pop(0)

    raw = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": raw}
    return Request(scope, receive)


async def request_bytes(port: int, raw: bytes) -> bytes:
    """Send `raw` on a connection of its own and return everything that comes until it is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    try:
        async with asyncio.timeout(5):
            return await reader.read()
    finally:
        writer.close()
