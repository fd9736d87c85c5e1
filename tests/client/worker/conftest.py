"""A gateway whose leases are short, and a client that a worker has of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.client import Client
from tests.client.waits import SOON
from tests.support.running import RunningGateway, RunningStore, run_gateway


@pytest.fixture
async def gateway(store: RunningStore, anyio_backend: object) -> AsyncIterator[RunningGateway]:
    """A gateway in this process, with a tenant of its own."""
    async with run_gateway(store.url, lease_s=1.5) as running:
        yield running


@pytest.fixture
async def client(gateway: RunningGateway) -> AsyncIterator[Client]:
    """A client of the gateway."""
    async with Client(gateway.url, key=gateway.key, backoff=SOON) as opened:
        yield opened
