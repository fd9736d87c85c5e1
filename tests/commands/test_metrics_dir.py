"""Where processes share their counters: not on a disk that may be full, and nothing of it stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.commands.metrics_dir import MEMORY, metrics_dir


@pytest.mark.skipif(not MEMORY.is_dir(), reason="NOT TRIED: this system keeps no files in memory")
def test_counters_are_kept_in_memory(tmp_path: Path) -> None:
    """The directory is in memory and nobody else's, and the data directory has a link to it."""
    with metrics_dir(tmp_path, 8000) as directory:
        path = Path(directory)
        assert path.parent == MEMORY
        assert path.stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "metrics-8000").resolve() == path


def test_nothing_stays_of_counters(tmp_path: Path) -> None:
    """Directory and link go with the gateway."""
    with metrics_dir(tmp_path / "data", 8000) as directory:
        (Path(directory) / "counter_1.db").touch()
    assert not Path(directory).exists()
    assert list((tmp_path / "data").iterdir()) == []


def test_what_a_killed_gateway_left_is_removed(tmp_path: Path) -> None:
    """A gateway that begins on the same port removes what its predecessor had no time to remove."""
    left = tmp_path / "left"
    left.mkdir()
    (left / "counter_1.db").touch()
    (tmp_path / "metrics-8000").symlink_to(left)
    (tmp_path / "metrics-8001").mkdir()
    with metrics_dir(tmp_path, 8000) as directory, metrics_dir(tmp_path, 8001) as other:
        assert not left.exists()
        assert list(Path(directory).iterdir()) == list(Path(other).iterdir()) == []
