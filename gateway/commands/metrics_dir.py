"""Where the processes of one socket share what they count: in memory, since a full disk would end them.

Counters are files that are mapped into memory; on a disk without room the first touch of a new page is SIGBUS.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

MEMORY: Final = Path("/dev/shm")
PREFIX: Final = "gateway-metrics-"
LOCK: Final = "lock"


def default_place() -> Path:
    """Return the directory for files in memory, elsewhere that for temporary files."""
    return MEMORY if os.access(MEMORY, os.W_OK) else Path(tempfile.gettempdir())


@contextmanager
def metrics_dir(place: Path) -> Iterator[str]:
    """Yield an empty directory in `place`, locked for as long as this process lives.

    What gateways that were killed have left there is removed.
    """
    remove_left(place)
    path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    try:
        with make_lock(path):
            yield str(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def make_lock(path: Path) -> Iterator[None]:
    """Hold the lock of a directory; the lock gets its name once it is held, so that nobody finds it free."""
    new = path / f"{LOCK}.new"
    descriptor = os.open(new, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        new.rename(path / LOCK)
        yield
    finally:
        os.close(descriptor)


def remove_left(place: Path) -> None:
    """Remove the directories whose locks nobody holds any more."""
    for lock in place.glob(f"{PREFIX}*/{LOCK}"):
        # Another user's, held, or removed by somebody else meanwhile.
        with suppress(OSError):
            descriptor = os.open(lock, os.O_WRONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent)
            finally:
                os.close(descriptor)
