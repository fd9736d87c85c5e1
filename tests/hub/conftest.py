"""A connection to the real store, and a log on it."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.store.link import Link
from tests.hub.logs import Log, forget, open_link
from tests.support.running import RunningStore


@pytest.fixture
async def link(store: RunningStore, anyio_backend: object) -> AsyncIterator[Link]:
    """A connection to the store."""
    async with open_link(store.url) as link:
        yield link


@pytest.fixture
async def log(link: Link) -> AsyncIterator[Log]:
    """A log of one event."""
    log = await Log(link).create()
    yield log
    await forget(link, log)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder in which the path of a socket is short enough."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        yield Path(folder)
