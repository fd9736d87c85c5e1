"""Where the processes of one socket share what they count: in memory, since a full disk would end them.

Counters are files that are mapped into memory; on a disk without room the first touch of a new page is SIGBUS.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

MEMORY: Final = Path("/dev/shm")


@contextmanager
def metrics_dir(data_dir: Path, port: int) -> Iterator[str]:
    """Yield an empty directory for the processes of a port; a link in `data_dir` leads to it.

    What a gateway that was killed has left is found by its link and removed.
    """
    link = data_dir.absolute() / f"metrics-{port}"
    link.parent.mkdir(parents=True, exist_ok=True)
    remove(link)
    path = Path(tempfile.mkdtemp(prefix="gateway-metrics-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
    try:
        # Without its link the directory outlives a gateway that is killed; on a full disk that has to do.
        with suppress(OSError):
            link.symlink_to(path)
        yield str(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)
        link.unlink(missing_ok=True)


def remove(link: Path) -> None:
    """Remove a directory and the link that leads to it, or a directory in its place."""
    if link.is_symlink():
        shutil.rmtree(link.resolve(), ignore_errors=True)
        link.unlink()
    else:
        shutil.rmtree(link, ignore_errors=True)
