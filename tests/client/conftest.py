"""One gateway for all tests of its client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from gateway.client import Client, Run
from tests.client.serving import Gateway, run_gateway


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Return asyncio on uvloop."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Return a running gateway."""
    with run_gateway(tmp_path_factory.mktemp("gateway") / "data") as running:
        yield running


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[Client]:
    """Return a client of the gateway."""
    async with gateway.client() as opened:
        yield opened


@pytest.fixture
async def run(client: Client) -> Run:
    """Return a new direct run."""
    return await client.runs.create("tester")
