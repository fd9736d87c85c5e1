"""What every test may ask for: the real store, and a gateway over it on a port of its own."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.programs import say_what_lacks
from tests.support.running import RunningGateway, RunningStore, run_gateway

# How fast examples come says what else the machine does, not whether they hold.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Run asynchronous tests on asyncio over uvloop, as the gateway is run."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="session")
def store() -> Iterator[RunningStore]:
    """A Valkey server for the whole session; tests keep apart by their tenants."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        running = RunningStore(Path(folder))
        running.start()
        yield running
        running.stop()


@pytest.fixture
def empty_store() -> Iterator[RunningStore]:
    """A store that nobody else uses."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        running = RunningStore(Path(folder))
        running.start()
        yield running
        running.stop()


@pytest.fixture
async def gateway(store: RunningStore, anyio_backend: object) -> AsyncIterator[RunningGateway]:
    """A gateway in this process, served by uvicorn on a free port, with a key of a tenant of its own."""
    async with run_gateway(store.url) as running:
        yield running


@pytest.fixture(scope="module")
async def api(store: RunningStore, anyio_backend: object) -> AsyncIterator[RunningGateway]:
    """A gateway for all tests of a module, its only tenant: most of them ask no more than a run of their own."""
    async with run_gateway(store.url) as running:
        yield running


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Here, and not beside the tests: where they run in several processes, the one that reports loads no other."""
    say_what_lacks(terminalreporter)
