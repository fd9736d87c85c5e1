"""The directory of an embedded store: who may use it, and where its socket is.

Two locks, both the kernel's, so that none outlives its holder. `gateway.lock` belongs to the one gateway that
may start a store here. `store.lock` is held by the store's process itself, even when its gateway was killed:
a record lock, which stays through `exec` and, unlike `flock`, is not shared by a child that rewrites files.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from gateway.errors import GatewayError

# The shortest `sun_path` of the supported systems is macOS's: 104 bytes, the last of them NUL.
SOCKET_PATH_BYTES: Final = 103
OWNER_LOCK: Final = "gateway.lock"
STORE_LOCK: Final = "store.lock"


class DataDirInUse(GatewayError):
    """Another gateway owns the data directory; `facts["pid"]` is its process, if it said so."""

    code = "data_dir_in_use"


class DataDirUnusable(GatewayError):
    """The data directory cannot be created, written or reached by a socket."""

    code = "data_dir_unusable"


def prepare(data_dir: Path) -> Path:
    """Return `data_dir` made absolute and existing; a new one is its owner's alone.

    Raises:
        DataDirUnusable: it cannot be created or written.
    """
    path = data_dir.expanduser().resolve()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DataDirUnusable(f"The data directory {path} cannot be created: {error.strerror}.") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise DataDirUnusable(f"The data directory {path} cannot be written by this user.")
    return path


def find_socket_path(data_dir: Path) -> Path:
    """Return where the store of `data_dir` listens, short enough for a socket address.

    A directory with a long path gets a private one under the temporary directory, the same each time.

    Raises:
        DataDirUnusable: no path is short enough, or the temporary one belongs to somebody else.
    """
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    private = f"gateway-{os.getuid()}-{digest}"
    for parent in (data_dir, Path(tempfile.gettempdir()) / private, Path("/tmp") / private):
        path = parent / "store.sock"
        if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
            if parent != data_dir:
                _make_private(parent)
            return path
    raise DataDirUnusable(f"No path for a socket of the store in {data_dir} is short enough.")


def _make_private(path: Path) -> None:
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.lstat()
    # Anybody may create names in the temporary directory; a socket in another's directory is another's.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise DataDirUnusable(f"{path} is not a directory of this user alone; remove it.")


def take_ownership(data_dir: Path) -> int | None:
    """Return a descriptor that owns `data_dir` until it is closed, or None while somebody else does."""
    descriptor = os.open(data_dir / OWNER_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def read_owner(data_dir: Path) -> int | None:
    """Return the process that last owned `data_dir`."""
    text = (data_dir / OWNER_LOCK).read_text(encoding="ascii", errors="replace")
    return int(text) if text.isdecimal() else None


def open_store_lock(data_dir: Path) -> int:
    """Return a descriptor of the store's lock, not locked: the store's process does that for itself."""
    return os.open(data_dir / STORE_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def lock_for_store(descriptor: int) -> None:
    """Hold the store's lock for as long as this process lives, through `exec`.

    Raises:
        OSError: another process holds it.
    """
    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def store_lives(data_dir: Path) -> bool:
    """Tell whether a store's process lives in `data_dir`, whoever started it."""
    descriptor = open_store_lock(data_dir)
    try:
        lock_for_store(descriptor)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
