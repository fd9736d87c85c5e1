"""Connections that are known to be served by one worker process each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx

from tests.support.processes import GatewayProcess

MOST_TRIES = 200


@asynccontextmanager
async def pin_clients(gateway: GatewayProcess) -> AsyncIterator[dict[int, httpx.AsyncClient]]:
    """Yield a client of each worker process, by its pid; each has one connection, which stays."""
    found: dict[int, httpx.AsyncClient] = {}
    async with AsyncExitStack() as stack:
        for _ in range(MOST_TRIES):
            one_connection = httpx.Limits(max_connections=1, keepalive_expiry=None)
            client = await stack.enter_async_context(gateway.client(limits=one_connection))
            pid = gateway.worker_of(await open_connection(client))
            if found.setdefault(pid, client) is not client:
                await client.aclose()
            if len(found) == gateway.workers:
                break
        assert len(found) == gateway.workers, "not every worker takes connections"
        yield found


async def open_connection(client: httpx.AsyncClient) -> int:
    """Have a client connect, and return the port of its end of the connection."""
    answer = await client.get("/healthz")
    assert answer.status_code == 200
    port: int = answer.extensions["network_stream"].get_extra_info("client_addr")[1]
    return port
