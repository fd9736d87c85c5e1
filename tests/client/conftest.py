"""A client of the tested gateway, quick to try again, and a run to try it on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.client import Client, Run
from tests.client.waits import SOON
from tests.support.running import RunningGateway


@pytest.fixture
async def client(gateway: RunningGateway) -> AsyncIterator[Client]:
    """Return a client of the gateway."""
    async with Client(gateway.url, key=gateway.key, backoff=SOON) as opened:
        yield opened


@pytest.fixture
async def run(client: Client) -> Run:
    """Return a new direct run."""
    return await client.runs.create("tester")
