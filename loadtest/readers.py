"""Readers that cost little more than the kernel does: a C program, built here, that holds all connections."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import msgspec
import psutil

from loadtest.build import build


class Report(msgspec.Struct, frozen=True):
    """What the readers saw: `faults` are events that did not come once and in order; ages in ms, of sampled readers.

    `least` is the number of frames of the reader that got fewest.
    """

    frames: int
    faults: int
    closed: int
    least: int
    p50: float
    p90: float
    p99: float
    most: float


class Readers:
    """Many connections, all in one other process.

    Args:
        address: Host (an IPv4 address) and port.
        requests: What the connections ask for, in turn; see `loadtest.targets.Target`.
        marker: What comes before an event's number.
        at_once: How many connections may be opened and not answered.
        sample_every: Of every so many connections one takes the age of each event, by its member `sent_ns`.
    """

    def __init__(
        self,
        address: tuple[str, int],
        requests: Sequence[str],
        marker: str,
        count: int,
        *,
        at_once: int = 64,
        sample_every: int = 20,
    ) -> None:
        host, port = address
        self._arguments = [host, str(port), str(count), str(sample_every), marker, str(at_once)]
        self._requests = "".join(requests).encode() + b"\0"

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            build("reader.c"), *self._arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        self.pid = self._process.pid
        self._tell(self._requests)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def cpu_s(self) -> float:
        """Return the CPU time of the readers: where it nears what passed, they are what is measured."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    async def wait_open(self, timeout_s: float) -> float:
        """Wait until every connection has been answered; return how long that took from the first one on."""
        return float((await self._hear(b"open", timeout_s)).split()[1])

    async def wait_frames(self, count: int, timeout_s: float) -> bool:
        """Wait until so many frames have come in all; False when that takes too long."""
        self._tell(b"frames %d\n" % count)
        return await self._heard(b"framed", timeout_s)

    async def stop(self, count: int) -> None:
        """Have the last connections read nothing more."""
        self._tell(b"stop %d\n" % count)

    async def report(self) -> Report:
        """End the readers and return what they saw."""
        self._tell(b"report\n")
        return msgspec.json.decode(await self._hear(b"{", 60), type=Report)

    def _tell(self, text: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text)

    async def _heard(self, beginning: bytes, timeout_s: float) -> bool:
        try:
            await self._hear(beginning, timeout_s)
        except TimeoutError:
            return False
        return True

    async def _hear(self, beginning: bytes, timeout_s: float) -> bytes:
        assert self._process.stdout is not None
        async with asyncio.timeout(timeout_s):
            while not (line := await self._process.stdout.readline()).startswith(beginning):
                if not line:
                    raise SystemExit("the readers ended early")
        return line
