"""A gateway for all tests of a module: most of them ask no more of it than a run of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.running import RunningGateway, RunningStore, run_gateway


@pytest.fixture(scope="module")
async def api(store: RunningStore, anyio_backend: object) -> AsyncIterator[RunningGateway]:
    """A gateway whose module is its only tenant."""
    async with run_gateway(store.url) as running:
        yield running
