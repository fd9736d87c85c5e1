"""One browser and one gateway for all tests of the console; where there is none, the report says so in plain sight."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from ulid import ULID

from gateway.domain.access import SCOPES
from gateway.keyring import open_access
from gateway.settings import Settings
from tests.support.browser import Page, find_chromium, open_page, run_chromium
from tests.support.running import RunningGateway, RunningStore, run_gateway

NODE_MAJOR = 20
NO_NODE = "NO NODE 20 OR NEWER ON THE PATH: THE BROWSER'S CLIENT WAS NOT TESTED IN IT (apt-get install nodejs)"


def find_node() -> str | None:
    """Return the path of a Node that has what browsers have, None where there is none."""
    program = shutil.which("node")
    if program is None:
        return None
    told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
    return program if int(told.strip().removeprefix("v").split(".")[0]) >= NODE_MAJOR else None


NODE = find_node()
TSC = shutil.which("tsc")
NO_TSC = (
    "NO TYPESCRIPT ON THE PATH: THE TYPES OF THE BROWSER'S CLIENT WERE NOT CHECKED (apt-get install node-typescript)"
)
MISSING = "NO CHROMIUM ON THE PATH: THE CONSOLE WAS NOT TESTED (apt-get install chromium)"


@pytest.fixture(scope="package")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the DevTools address of a browser with a fresh profile."""
    program = find_chromium()
    if program is None:
        pytest.skip(MISSING)
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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the very end what a line among the skipped tests might not."""
    programs = ((MISSING, find_chromium()), (NO_NODE, NODE), (NO_TSC, TSC))
    missing = [words for words, program in programs if program is None]
    if missing:
        terminalreporter.section("console", sep="!", red=True, bold=True)
    for words in missing:
        terminalreporter.line(words, red=True, bold=True)
