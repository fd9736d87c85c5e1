"""A store of a test's own, for tests that look at all that is in it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.running import RunningStore


@pytest.fixture
def empty_store() -> Iterator[RunningStore]:
    """A store that nobody else uses."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        running = RunningStore(Path(folder))
        running.start()
        yield running
        running.stop()
