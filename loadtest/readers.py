"""Readers that cost little more than the kernel does: a C program, built here, that holds all connections."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

SOURCE = Path(__file__).with_name("reader.c")


class Report(msgspec.Struct, frozen=True):
    """What the readers saw: `faults` are events that did not come once and in order; ages in ms, of sampled readers.

    `least` is the last seq of the reader that is furthest behind.
    """

    frames: int
    faults: int
    closed: int
    least: int
    p50: float
    p99: float


class Readers:
    """Many SSE connections to one path, all in one other process.

    Args:
        address: Host (an IPv4 address) and port.
        sample_every: Of every so many connections one takes the age of each event, by its member `sent_ns`.
    """

    def __init__(
        self, address: tuple[str, int], path: str, headers: dict[str, str], count: int, *, sample_every: int = 20
    ) -> None:
        host, port = address
        self._folder = tempfile.TemporaryDirectory(prefix="readers-")
        self._arguments = [host, str(port), str(count), str(sample_every)]
        lines = [f"GET {path} HTTP/1.1", f"Host: {host}:{port}", "Accept: text/event-stream"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._request = ("\r\n".join(lines) + "\r\n\r\n").encode() + b"\0"

    async def __aenter__(self) -> Self:
        program = _build(Path(self._folder.name))
        self._process = await asyncio.create_subprocess_exec(
            program, *self._arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        self._tell(self._request)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        self._folder.cleanup()

    async def wait_open(self, timeout_s: float) -> None:
        """Wait until every connection has been answered."""
        await self._hear(b"open", timeout_s)

    async def wait_seq(self, seq: int, timeout_s: float) -> bool:
        """Wait until every reader has seen event `seq`; False when that takes too long."""
        self._tell(b"until %d\n" % seq)
        try:
            await self._hear(b"reached", timeout_s)
        except TimeoutError:
            return False
        return True

    async def report(self) -> Report:
        """End the readers and return what they saw."""
        self._tell(b"report\n")
        return msgspec.json.decode(await self._hear(b"{", 30), type=Report)

    def _tell(self, text: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text)

    async def _hear(self, beginning: bytes, timeout_s: float) -> bytes:
        assert self._process.stdout is not None
        async with asyncio.timeout(timeout_s):
            while not (line := await self._process.stdout.readline()).startswith(beginning):
                if not line:
                    raise SystemExit("the readers ended early")
        return line


def _build(folder: Path) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise SystemExit("a C compiler is needed: readers in Python would be the bottleneck themselves")
    program = folder / "reader"
    subprocess.run([compiler, "-O2", "-o", program, SOURCE], check=True)
    return program
