"""Ctrl-C and its kin: ever less patience with the command, then with the gateway."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gateway.commands.exec.child import Child
from gateway.commands.exec.outcome import GRACE_S

INTERRUPTED = "interrupted at the terminal"


class Interrupts:
    """What the next signal does: end the command, force it, give up what is not delivered yet."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.child: Child | None = None
        self._say = say
        self._count = 0

    @contextmanager
    def handled(self, give_up: Callable[[], object]) -> Iterator[None]:
        """Take INT, TERM and HUP while the block runs; `give_up` abandons what it does."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, self._take, number, give_up)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _take(self, number: signal.Signals, give_up: Callable[[], object]) -> None:
        child = self.child
        if child is None or (child.exited and not child.lingers):
            self._say("giving up; what the gateway has not taken is lost")
            give_up()
            return
        self._count += 1
        if self._count > 1:
            child.kill()
            return
        # A person can press again; nobody else says it twice.
        by_hand = number == signal.SIGINT
        child.stop(INTERRUPTED, grace_s=None if by_hand else GRACE_S)
        self._say("asked the command to stop" + ("; again to force it" if by_hand else ""))
