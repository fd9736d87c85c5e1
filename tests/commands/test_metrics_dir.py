"""Where processes share their counters: not on a disk that may be full, and nothing of it stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.commands.metrics_dir import LOCK, MEMORY, PREFIX, default_place, metrics_dir


@pytest.mark.skipif(not MEMORY.is_dir(), reason="NOT TRIED: this system keeps no files in memory")
def test_counters_are_kept_in_memory() -> None:
    """The directory is in memory and nobody else's."""
    with metrics_dir(default_place()) as directory:
        path = Path(directory)
        assert path.parent == MEMORY
        assert path.stat().st_mode & 0o777 == 0o700


def test_nothing_stays_of_counters(tmp_path: Path) -> None:
    """The directory goes with the gateway."""
    with metrics_dir(tmp_path) as directory:
        (Path(directory) / "counter_1.db").touch()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_gateway_left_is_removed(tmp_path: Path) -> None:
    """The next gateway to begin, whichever it is, removes what one that was killed had no time to remove."""
    left = tmp_path / f"{PREFIX}left"
    left.mkdir()
    (left / LOCK).touch()
    (left / "counter_1.db").touch()
    with metrics_dir(tmp_path) as directory:
        assert list(tmp_path.iterdir()) == [Path(directory)]


def test_what_belongs_to_others_stays(tmp_path: Path) -> None:
    """A gateway that lives keeps its counters, and so does one that has just made its directory."""
    making = tmp_path / f"{PREFIX}making"
    making.mkdir()
    with metrics_dir(tmp_path) as one:
        (Path(one) / "counter_1.db").touch()
        with metrics_dir(tmp_path):
            assert (Path(one) / "counter_1.db").exists()
            assert making.exists()
