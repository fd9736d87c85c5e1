"""Child processes: how they learn of their parent's end, and how soon a dead one is started again."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Final

FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 5.0
# A process that has lived as long was no failed start; its successor is not made to wait.
HEALTHY_S: Final = 10.0
PR_SET_PDEATHSIG: Final = 1


class Backoff:
    """Pauses between restarts: doubling from 50 ms to 5 s, from the first again after 10 s of health."""

    def __init__(self) -> None:
        self._pause_s = FIRST_PAUSE_S
        self._since = time.monotonic()

    def began(self) -> None:
        """Note that the process has just been started."""
        self._since = time.monotonic()

    def ended(self) -> float:
        """Return how many seconds to wait before the process, which has just ended, is started again."""
        if time.monotonic() - self._since > HEALTHY_S:
            self._pause_s = FIRST_PAUSE_S
        pause_s = self._pause_s
        self._pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
        return pause_s


def end_with_parent() -> Callable[[], None]:
    """Return what a child runs before its program so that Linux sends it SIGTERM when its parent dies.

    The parent is the *thread* that starts the child. Elsewhere nothing is sent.
    """
    # Loaded here: between fork and exec nothing may take a lock, the loader's included.
    prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None
    parent = os.getpid()

    def prepare() -> None:
        if prctl is not None:
            prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
            # A parent that died before the call sends nothing any more.
            if os.getppid() != parent:
                os._exit(1)

    return prepare
