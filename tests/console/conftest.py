"""One browser for all tests of the console; where there is none, the report says so in plain sight."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.browser import Page, find_chromium, open_page, run_chromium

MISSING = "NO CHROMIUM ON THE PATH: THE CONSOLE WAS NOT TESTED (apt-get install chromium)"


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the DevTools address of a browser with a fresh profile."""
    program = find_chromium()
    if program is None:
        pytest.skip(MISSING)
    with run_chromium(program, tmp_path_factory.mktemp("chromium")) as devtools_url:
        yield devtools_url


@pytest.fixture
async def page(chromium: str, anyio_backend: object) -> AsyncIterator[Page]:
    """Return an empty tab."""
    async with open_page(chromium) as opened:
        yield opened


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the very end what a line among the skipped tests might not."""
    if find_chromium() is None:
        terminalreporter.section("console", sep="!", red=True, bold=True)
        terminalreporter.line(MISSING, red=True, bold=True)
