"""A program that is started again whenever the code beside it changes: for whoever is writing it."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from gateway.processes import end_with_parent

logger = logging.getLogger(__name__)

LOOK_S: Final = 0.3
END_S: Final = 60.0
_PASSED_OVER: Final = {"__pycache__", "node_modules", "site-packages"}


def run_reloading(command: Sequence[str], folder: Path) -> int:
    """Run a program, and again whenever a Python file under `folder` changes, until SIGTERM or Ctrl-C.

    One that ends by itself, since its code is broken, say, is started again after the next change.

    Returns:
        The status of the program when it was stopped; 0 where it had ended before.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    seen, child = _look(folder), _start(command)
    while not stop.wait(LOOK_S):
        found = _look(folder)
        if found != seen:
            seen = found
            logger.info("the code has changed; starting again")
            _end(child)
            child = _start(command)
    was_running = child.poll() is None
    _end(child)
    return child.returncode if was_running else 0


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C is this process's to pass on, once.
    return subprocess.Popen(command, start_new_session=True, preexec_fn=end_with_parent())


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(END_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _look(folder: Path) -> dict[str, tuple[int, int]]:
    """Return when each Python file was changed last, and its size."""
    found = {}
    for path in _files(folder):
        try:
            about = os.stat(path)
        except OSError:
            # Gone since it was listed: the next look says so.
            continue
        found[path] = (about.st_mtime_ns, about.st_size)
    return found


def _files(folder: Path) -> Iterator[str]:
    for where, folders, names in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and name not in _PASSED_OVER and not _is_environment(where, name)
        ]
        yield from (os.path.join(where, name) for name in names if name.endswith(".py"))


def _is_environment(where: str, name: str) -> bool:
    return os.path.exists(os.path.join(where, name, "pyvenv.cfg"))


def again_without(flag: str, *more: str) -> list[str]:
    """Return the command line of this process without `flag`, and with `more` behind it."""
    return [sys.executable, "-m", "gateway", *(word for word in sys.argv[1:] if word != flag), *more]
