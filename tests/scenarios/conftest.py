"""What scenarios share: a folder whose path is short enough for a store's socket."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A data directory that does not exist yet, with room beside it."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        yield Path(folder) / "data"
