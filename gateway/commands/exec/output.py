"""Carrying a command's output to the terminal and to its run."""

from __future__ import annotations

import asyncio
import time
from typing import IO

from gateway.commands.exec.child import PIPE_BYTES, Child
from gateway.commands.exec.journal import Journal
from gateway.commands.exec.lines import LineSplitter
from gateway.commands.exec.questions import Asker

QUIET_S = 0.15
"""A program that has printed a prompt and nothing for so long waits for its answer."""
LEFT_OPEN_S = 2.0
LEFT_OPEN_BYTES = 4 * 1024 * 1024
"""How long, and how much, is still read after the command's end from a pipe that others hold open."""


class Tap:
    """One output pipe of a command, until its end or until waiting for it makes no more sense."""

    def __init__(self, source: asyncio.StreamReader, child: Child) -> None:
        self._source = source
        self._child = child
        self._idle_s = 0.0
        self._read_bytes = 0

    async def read(self, timeout_s: float | None) -> bytes | None:
        """Return what the command wrote, empty at the end, None after `timeout_s` silent seconds."""
        silent_s = 0.0
        while True:
            step_s = min(0.5, timeout_s - silent_s) if timeout_s is not None else 0.5
            started_at = time.monotonic()
            try:
                async with asyncio.timeout(max(0.0, step_s)):
                    chunk = await self._source.read(PIPE_BYTES)
            except TimeoutError:
                chunk = None
            waited_s = time.monotonic() - started_at
            silent_s += waited_s
            if self._is_given_up(waited_s, len(chunk or b"")):
                return b""
            if chunk is not None:
                return chunk
            if timeout_s is not None and silent_s >= timeout_s:
                return None

    def _is_given_up(self, waited_s: float, read_bytes: int) -> bool:
        # Only time spent waiting for output counts: output that the gateway is slow to take is not lost.
        if not self._child.exited or self._child.lingers:
            return False
        self._idle_s += waited_s
        self._read_bytes += read_bytes
        return self._idle_s > LEFT_OPEN_S or self._read_bytes > LEFT_OPEN_BYTES


class Echo:
    """Repeats output on the terminal until the terminal is gone."""

    def __init__(self, target: IO[bytes] | None) -> None:
        self._target = target

    async def write(self, chunk: bytes) -> None:
        """Write and flush `chunk`; a terminal that stands still holds up the command, not the run."""
        if self._target is None:
            return
        try:
            await asyncio.to_thread(self._write, self._target, chunk)
        except (OSError, ValueError):
            self._target = None

    @staticmethod
    def _write(target: IO[bytes], chunk: bytes) -> None:
        target.write(chunk)
        target.flush()


async def relay(tap: Tap, stream: str, *, journal: Journal, echo: Echo, asker: Asker | None) -> None:
    """Carry everything from `tap` to the terminal and, line by line, to the run."""
    splitter = LineSplitter()
    watching = False
    while True:
        chunk = await tap.read(QUIET_S if watching else None)
        if chunk is None:
            watching = False
            if asker is not None:
                await asker.look(splitter, stream)
            continue
        if not chunk:
            break
        watching = asker is not None
        await echo.write(chunk)
        for line in splitter.feed(chunk):
            await journal.record_line(line, stream)
    for line in splitter.finish():
        await journal.record_line(line, stream)
