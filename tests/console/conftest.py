"""One browser and one gateway for all tests of the console."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from ulid import ULID

from gateway.domain.access import SCOPES
from gateway.keyring import open_access
from gateway.settings import Settings
from tests.support.browser import Page, open_page, run_chromium
from tests.support.programs import NO_CHROMIUM, find_chromium
from tests.support.running import RunningGateway, RunningStore, run_gateway


@pytest.fixture(scope="package")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the DevTools address of a browser with a fresh profile."""
    program = find_chromium()
    if program is None:
        pytest.skip(NO_CHROMIUM)
    with run_chromium(program, tmp_path_factory.mktemp("chromium")) as devtools_url:
        yield devtools_url


@pytest.fixture(scope="package")
async def served(store: RunningStore, anyio_backend: object) -> AsyncIterator[RunningGateway]:
    """Return one gateway for all tests: a page does not care who else is served."""
    async with run_gateway(store.url) as running:
        yield running


@pytest.fixture
async def gateway(served: RunningGateway, store: RunningStore) -> AsyncIterator[RunningGateway]:
    """Return the gateway with a key of a tenant of its own."""
    tenant = f"t{ULID()}"
    async with open_access(Settings(), store.url) as keys:
        key, _ = await keys.create(tenant=tenant, name="test", scopes=SCOPES, principal=None, agents=None)
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=served.url, headers=headers, timeout=20) as client:
        yield RunningGateway(served.gateway, served.url, key, tenant, client, served.data_dir)


@pytest.fixture
async def page(chromium: str, anyio_backend: object) -> AsyncIterator[Page]:
    """Return an empty tab."""
    async with open_page(chromium) as opened:
        yield opened
