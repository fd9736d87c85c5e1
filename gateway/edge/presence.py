"""Whether the client of a request that takes long is still there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request


@asynccontextmanager
async def watch_client(request: Request) -> AsyncIterator[asyncio.Event]:
    """Give an event that is set once the client is gone; the request's body must have been read."""
    gone = asyncio.Event()
    task = asyncio.create_task(_watch(request, gone))
    try:
        yield gone
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _watch(request: Request, gone: asyncio.Event) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    gone.set()
