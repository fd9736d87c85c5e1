"""The worker processes of one gateway: as many as it was told at all times, and new ones in their place when asked."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from typing import Final

import anyio
from anyio.abc import TaskGroup

from gateway.commands.supervisor import Program, keep_running

logger = logging.getLogger(__name__)

READY_S: Final = 60.0


class _Member:
    """One worker's place: the process in it, and those that follow when it dies."""

    def __init__(self) -> None:
        self.stop = anyio.Event()
        self.ended = anyio.Event()
        # Each process of the place writes a byte once it serves.
        self.serves_fd, self.told_fd = os.pipe()

    async def serves(self) -> bool:
        """Wait until its process serves; False when it does not in time."""
        with anyio.move_on_after(READY_S) as patience:
            await anyio.wait_readable(self.serves_fd)
        return not patience.cancelled_caught

    async def keep(self, program: Program, on_end: Callable[[int], None]) -> None:
        """Have a process in the place until it is to stop and has ended."""
        try:
            await keep_running(program, self.stop, on_end=on_end)
        finally:
            os.close(self.serves_fd)
            os.close(self.told_fd)
            self.ended.set()


class Crew:
    """Worker processes, each replaced when it dies; on SIGHUP all of them, one after another.

    A successor serves before its predecessor drains, so that there are never fewer than were asked for.

    Args:
        plan: How a worker is run that tells on this descriptor that it serves.
        on_end: Is told the process id of each that has ended.
    """

    def __init__(self, plan: Callable[[int], Program], count: int, *, on_end: Callable[[int], None]) -> None:
        self._plan = plan
        self._count = count
        self._on_end = on_end
        self._members: list[_Member] = []

    async def run(self, stop: anyio.Event, stopped: Callable[[], None]) -> None:
        """Keep the workers until `stop`; `stopped` is called before it is waited for their end."""
        async with anyio.create_task_group() as group:
            for _ in range(self._count):
                self._hire(group)
            async with anyio.create_task_group() as renewing:
                renewing.start_soon(self._renew_on_signal, group)
                await stop.wait()
                renewing.cancel_scope.cancel()
            stopped()
            for member in self._members:
                member.stop.set()

    def _hire(self, group: TaskGroup) -> _Member:
        member = _Member()
        self._members.append(member)
        group.start_soon(member.keep, self._plan(member.told_fd), self._on_end)
        return member

    async def _renew_on_signal(self, group: TaskGroup) -> None:
        with anyio.open_signal_receiver(signal.SIGHUP) as signals:
            async for _ in signals:
                logger.info("new workers take the place of %d", len(self._members))
                if await self._renew(group):
                    logger.info("all workers are new")

    async def _renew(self, group: TaskGroup) -> bool:
        """Replace every worker that there is now; False when a new one does not serve, and the old ones stay."""
        for old in list(self._members):
            fresh = self._hire(group)
            if not await fresh.serves():
                logger.error("a new worker does not serve within %g s; the others stay", READY_S)
                await self._let_go(fresh)
                return False
            await self._let_go(old)
        return True

    async def _let_go(self, member: _Member) -> None:
        member.stop.set()
        await member.ended.wait()
        self._members.remove(member)
