"""How the process itself fares: what it takes from the machine, and how punctual its event loop is."""

from __future__ import annotations

import asyncio
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from gateway import __version__, telemetry
from gateway.edge.ledger import Ledger
from gateway.errors import StoreUnavailable
from gateway.service.depths import Depths
from gateway.store.clock import StoreClock
from gateway.store.link import Link

TICK_S: Final = 0.1
LOOK_S: Final = 2.0
WINDOW_S: Final = 30.0
DEPTHS_S: Final = 10.0
_FILES: Final = Path("/proc/self/fd")
_MEMORY: Final = Path("/proc/self/statm")


class Vitals:
    """Measures the process, its links to the store, and the depths of queues; `run` is for ever.

    Args:
        links: By the names under which they are counted.
        bodies: Who holds how much of the memory for requests' bodies.
    """

    def __init__(
        self,
        links: Mapping[str, Link],
        clock: StoreClock,
        depths: Depths,
        bodies: Ledger,
        why_not_ready: Callable[[], list[str]],
    ) -> None:
        self._links = links
        self._clock = clock
        self._depths = depths
        self._bodies = bodies
        self._why_not_ready = why_not_ready
        self._cpu_s = 0.0

    async def run(self) -> None:
        """Measure until cancelled."""
        telemetry.BUILD_INFO.labels(__version__, platform.python_version()).set(1)
        telemetry.PROCESSES.set(1)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._time_loop())
            tasks.create_task(self._look())
            tasks.create_task(self._measure_queues())

    async def _time_loop(self) -> None:
        """Sleep for a known time and see how much longer it was: that long everybody has waited."""
        loop = asyncio.get_running_loop()
        longest_s, older_longest_s, window_ends_s = 0.0, 0.0, loop.time() + WINDOW_S
        while True:
            due_s = loop.time() + TICK_S
            await asyncio.sleep(TICK_S)
            late_s = max(loop.time() - due_s, 0.0)
            telemetry.LOOP_PAUSE_SECONDS.observe(late_s)
            if loop.time() > window_ends_s:
                longest_s, older_longest_s, window_ends_s = 0.0, longest_s, loop.time() + WINDOW_S
            longest_s = max(longest_s, late_s)
            telemetry.LOOP_PAUSE_MAX_SECONDS.set(max(longest_s, older_longest_s))

    async def _look(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(LOOK_S)

    def look(self) -> None:
        """Measure once what can be read without waiting."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cpu_s = usage.ru_utime + usage.ru_stime
        telemetry.PROCESS_CPU_SECONDS.inc(cpu_s - self._cpu_s)
        self._cpu_s = cpu_s
        telemetry.PROCESS_RESIDENT_BYTES.set(_read_resident_bytes(usage))
        with suppress(OSError):
            telemetry.PROCESS_OPEN_FILES.set(_count_files())
        soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        telemetry.PROCESS_FILES_LIMIT.set(float("inf") if soft == resource.RLIM_INFINITY else soft)
        telemetry.PROCESSES_READY.set(not self._why_not_ready())
        telemetry.BODIES_BYTES.set(self._bodies.total_bytes)
        telemetry.STORE_CLOCK_AHEAD_SECONDS.set(self._clock.ahead_s)
        for name, link in self._links.items():
            telemetry.STORE_UP.labels(name).set(link.is_up)
            telemetry.STORE_CALLS_OPEN.labels(name).set(link.calls_open)
            telemetry.STORE_OLDEST_CALL_SECONDS.labels(name).set(link.oldest_call_s)

    async def _measure_queues(self) -> None:
        while True:
            # While the store is away, what was measured last stays told; that it is away is told elsewhere.
            with suppress(StoreUnavailable):
                await self._depths.measure(now_us=time.time_ns() // 1_000 + int(self._clock.ahead_s * 1e6))
            await asyncio.sleep(DEPTHS_S)


def _count_files() -> int:
    # Linux tells it as the size of the directory since 6.2; to list ten thousand would stop everybody for 20 ms.
    return os.stat(_FILES).st_size or len(os.listdir(_FILES))


def _read_resident_bytes(usage: resource.struct_rusage) -> int:
    try:
        return int(_MEMORY.read_text().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        # Where that cannot be read: its greatest so far, in bytes on macOS and KiB elsewhere.
        return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
