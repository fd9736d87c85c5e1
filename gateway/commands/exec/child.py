"""The command's process group: its start, its signals, its end."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from asyncio.subprocess import PIPE, Process, SubprocessStreamProtocol
from collections.abc import Mapping, Sequence
from typing import cast

PIPE_BYTES = 64 * 1024
GROUP_POLL_S = 0.05
REST_S = 10.0
"""What the command started may outlive its stopping by so long."""


class Child:
    """A started command. Signals reach its whole group, and nobody once it is gone."""

    def __init__(self, process: Process, transport: asyncio.SubprocessTransport, exited: asyncio.Future[int]) -> None:
        self.pid = process.pid
        self.stopped: str | None = None
        self._process = process
        self._transport = transport
        self._exited = exited
        self._started_at = time.monotonic()
        self._duration_ms = 0
        self._killing: asyncio.TimerHandle | None = None
        self._killed = False
        self._going = asyncio.Event()
        self._going.set()
        exited.add_done_callback(self._note_end)

    @property
    def stdout(self) -> asyncio.StreamReader:
        """The read end of its standard output."""
        assert self._process.stdout is not None
        return self._process.stdout

    @property
    def stderr(self) -> asyncio.StreamReader:
        """The read end of its standard error."""
        assert self._process.stderr is not None
        return self._process.stderr

    @property
    def exited(self) -> bool:
        """Whether the command itself has ended; programs it started may still hold its pipes."""
        return self._exited.done()

    @property
    def lingers(self) -> bool:
        """Whether it is, or what it started is, still on the way to the end that `stop` asked for."""
        return self.stopped is not None and not self._killed and (not self.exited or self._group_lives())

    @property
    def duration_ms(self) -> int:
        """How long it ran, in milliseconds, once it has ended."""
        return self._duration_ms

    async def wait(self) -> int:
        """Return its exit status once it has ended, negative for a signal."""
        return await asyncio.shield(self._exited)

    async def wait_going(self) -> None:
        """Wait until it is not paused; a `stop`, and its end, end a pause."""
        await self._going.wait()

    async def wait_stopped(self) -> None:
        """Wait until nothing lingers; `stop`'s grace, or the next `kill`, bounds it."""
        while self.lingers:  # noqa: ASYNC110 — nothing announces the end of a process group
            await asyncio.sleep(GROUP_POLL_S)

    def stop(self, reason: str, *, grace_s: float | None) -> None:
        """Ask it to end, with TERM, and force it after `grace_s` seconds, if given.

        The first reason given stays.
        """
        if self.exited and self.stopped is None:
            return
        self.stopped = self.stopped or reason
        self._going.set()
        self._signal(signal.SIGTERM)
        # A stopped process only takes TERM when it continues.
        self._signal(signal.SIGCONT)
        if grace_s is not None and self._killing is None:
            self._killing = asyncio.get_running_loop().call_later(grace_s, self.kill)

    def kill(self) -> None:
        """End the whole group now."""
        self._killed = True
        self._signal(signal.SIGKILL)

    def pause(self) -> None:
        """Stop the whole group where it is."""
        if not self.exited:
            self._going.clear()
            self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused group go on."""
        self._going.set()
        if not self.exited:
            self._signal(signal.SIGCONT)

    def type(self, text: str) -> None:
        """Write `text` and a newline to its standard input, if it still reads it."""
        stdin = self._process.stdin
        if stdin is not None and not stdin.is_closing():
            stdin.write(text.encode("utf-8", "replace") + b"\n")

    def close_input(self) -> None:
        """Let it find its standard input at its end."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def release(self) -> None:
        """Let go of its pipes; a program that still writes to them gets a broken pipe."""
        if self._killing is not None:
            self._killing.cancel()
        self._transport.close()

    def _note_end(self, _: asyncio.Future[int]) -> None:
        self._going.set()
        self._duration_ms = round((time.monotonic() - self._started_at) * 1000)
        if self.stopped is not None and self._killing is None:
            self._killing = asyncio.get_running_loop().call_later(REST_S, self.kill)

    def _group_lives(self) -> bool:
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return


class _Protocol(SubprocessStreamProtocol):
    """Notices the end of the process itself, which `Process.wait` reports only with that of its pipes."""

    def __init__(self, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit, loop)
        self.exited: asyncio.Future[int] = loop.create_future()

        self._process_transport: asyncio.SubprocessTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not checked: uvloop's transports have the methods, but not the class.
        self._process_transport = cast(asyncio.SubprocessTransport, transport)
        super().connection_made(transport)

    def process_exited(self) -> None:
        assert self._process_transport is not None
        self.exited.set_result(self._process_transport.get_returncode() or 0)
        super().process_exited()


async def start_child(argv: Sequence[str], environment: Mapping[str, str]) -> Child:
    """Start a command in a session of its own, so that signals to it reach all that it starts.

    Raises:
        OSError: there is no such program, or it cannot be run.
    """
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.subprocess_exec(
        lambda: _Protocol(PIPE_BYTES, loop),
        *argv,
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env=dict(environment),
        start_new_session=True,
    )
    return Child(Process(transport, protocol, loop), transport, protocol.exited)
