"""Earlier states of a store's append-only files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


class Copies:
    """An earlier state of a directory's append-only files, and its return."""

    def __init__(self, data_dir: Path) -> None:
        self._live = data_dir / "appendonlydir"
        self._copy = data_dir.with_suffix(".copy")

    def take(self) -> None:
        """Copy the files; every write that was acknowledged is in them."""
        shutil.copytree(self._live, self._copy)

    def restore(self) -> None:
        """Put the copy in place of the files; no store may use them."""
        shutil.rmtree(self._live)
        shutil.copytree(self._copy, self._live)

    def forget(self) -> None:
        """Remove the copy."""
        shutil.rmtree(self._copy)


def cut_short(data_dir: Path, lost_bytes: int) -> None:
    """Take the last bytes from the newest append-only file, as a disk does that had not got them yet."""
    newest = max((data_dir / "appendonlydir").glob("*.incr.aof"), key=lambda path: int(path.name.split(".")[-3]))
    os.truncate(newest, max(0, newest.stat().st_size - lost_bytes))
