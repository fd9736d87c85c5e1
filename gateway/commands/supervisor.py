"""Programs that run beside the gateway's own process: kept alive until it stops, never longer."""

from __future__ import annotations

import asyncio
import logging
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import anyio
import msgspec

from gateway.processes import Backoff, end_with_parent

logger = logging.getLogger(__name__)

KILL_S: Final = 5.0


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """What to run, and how long it may take to end once it is told to.

    `inherited` are descriptors that it gets under the same numbers; `tied` has Linux end it with its parent.
    """

    name: str
    arguments: Sequence[str]
    environ: Mapping[str, str]
    stop_s: float
    inherited: Sequence[int] = ()
    tied: bool = False


async def keep_running(
    program: Program, stop: anyio.Event, *, on_end: Callable[[int], None] = lambda pid: None
) -> None:
    """Run a program, and again whenever it ends, until `stop` is set and it has ended.

    Args:
        program: It is sent SIGTERM when `stop` is set, and killed `stop_s` later.
        on_end: Is told the process id of each that has ended.
    """
    backoff = Backoff()
    while not stop.is_set():
        backoff.began()
        # uvloop forgets a process whose start is cancelled half-way.
        with anyio.CancelScope(shield=True):
            process = await _start(program)
        try:
            await _attend(program, process, stop)
        finally:
            on_end(process.pid)
        if stop.is_set():
            return
        pause_s = backoff.ended()
        logger.error("%s ended with status %s; starting it again in %.2f s", program.name, process.returncode, pause_s)
        with anyio.move_on_after(pause_s):
            await stop.wait()


async def _start(program: Program) -> Process:
    return await asyncio.create_subprocess_exec(
        *program.arguments,
        stdin=asyncio.subprocess.DEVNULL,
        env=program.environ,
        pass_fds=program.inherited,
        # A terminal's Ctrl-C goes to the whole group; these are told to end in their turn.
        start_new_session=True,
        preexec_fn=end_with_parent() if program.tied else None,
    )


async def _attend(program: Program, process: Process, stop: anyio.Event) -> None:
    """Wait for the end of a process, and bring it about when `stop` is set."""

    async def end() -> None:
        await stop.wait()
        with suppress(ProcessLookupError):
            process.terminate()
            await anyio.sleep(program.stop_s)
            logger.error("%s does not end; killing it", program.name)
            process.kill()

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(end)
            await process.wait()
            group.cancel_scope.cancel()
    finally:
        if process.returncode is None:
            process.kill()
            with anyio.move_on_after(KILL_S, shield=True):
                await process.wait()
