"""Where the figures come from, and whether something else disturbed them."""

from __future__ import annotations

import os
import platform
import time
from types import TracebackType
from typing import Self

import psutil

NOISY_SHARE = 0.05
SPREAD = 0.15


def describe() -> str:
    """Return the machine and the software in one line."""
    memory_gib = psutil.virtual_memory().total / 1024**3
    kernel = platform.release().split("-")[0]
    return f"{os.cpu_count()} cores, {memory_gib:.0f} GiB, Linux {kernel}, Python {platform.python_version()}"


class Disturbance:
    """The share of the machine's time, within a block, that went to processes other than this one's family."""

    share = 0.0

    def __enter__(self) -> Self:
        self._began_s, self._busy_s, self._own_s = time.monotonic(), _busy_s(), _own_s()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        whole_s = (time.monotonic() - self._began_s) * (os.cpu_count() or 1)
        self.share = max(0.0, (_busy_s() - self._busy_s - (_own_s() - self._own_s)) / whole_s)


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


def _own_s() -> float:
    """Return the CPU time of this process, of all that it started, and of those of them that have ended."""
    own = psutil.Process()
    times = own.cpu_times()
    total = times.user + times.system + times.children_user + times.children_system
    for child in own.children(recursive=True):
        try:
            spent = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += spent.user + spent.system + spent.children_user + spent.children_system
    return float(total)
