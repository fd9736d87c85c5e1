"""Writers of one run that note of every append what they know of it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from enum import StrEnum

from tests.faults.address import Address
from tests.faults.channels import Channel, HttpChannel, SocketChannel
from tests.faults.history import Append
from tests.support.writers import Outcome

AGAIN_S = 0.05
PATIENCE_S = 60.0
MOST_BATCH = 8


class Way(StrEnum):
    """How a writer deals with an append that was not acknowledged."""

    NUMBERED = "numbered"  # it repeats it under its writer_seq; told of a loss, it writes again what was lost
    KEYED = "keyed"  # it repeats it under its Idempotency-Key
    ONCE = "once"  # it lets go of it, and notes what it was told
    SOCKET = "socket"  # as numbered, over a WebSocket


class FaultWriter:
    """One writer of one run; every event has a mark that no other event has.

    Args:
        name: Without a dash; marks begin with it.
        timeout_s: How long it waits for an answer.
        rest_s: Its pause between two appends.
        note: Called with every append that it lets go of.
        intend: Called with every new batch and its number before it is sent.
    """

    def __init__(
        self,
        address: Address,
        run_id: str,
        name: str,
        way: Way,
        *,
        timeout_s: float,
        rest_s: float = 0,
        note: Callable[[Append], None] | None = None,
        intend: Callable[[int, tuple[str, ...]], None] | None = None,
    ) -> None:
        self.appends: list[Append] = []
        self.batches: dict[int, tuple[str, ...]] = {}
        self.marks = 0
        self.acknowledged_events = 0
        self.failed_tries = 0
        self.failures: set[tuple[Outcome, int | None]] = set()
        self.name = name
        self._way = way
        self._channel = open_channel(way, address, run_id, name, timeout_s)
        self._rest_s = rest_s
        self._note = note or (lambda _append: None)
        self._intend = intend or (lambda _number, _marks: None)
        self._choice = random.Random(name)

    async def run(self, stopping: asyncio.Event) -> None:
        """Append batch after batch until told to stop."""
        try:
            while not stopping.is_set():
                await self.append(self._choice.randint(1, MOST_BATCH))
                await asyncio.sleep(self._rest_s)
        finally:
            await self._channel.close()

    async def append(self, count: int) -> None:
        """Append so many events in one request."""
        number = len(self.batches) + 1
        first = 1 + self.marks
        self.marks += count
        self.batches[number] = tuple(f"{self.name}-{mark}" for mark in range(first, first + count))
        self._intend(number, self.batches[number])
        await self.settle(number)

    async def settle(self, number: int) -> None:
        """Have a batch stored, and before it those that the store turns out to have lost."""
        due = [number]
        while due:
            append = await self._write(due[0])
            self.appends.append(append)
            self._note(append)
            if append.expected is not None and append.expected < due[0]:
                due = list(range(append.expected, number + 1))
            else:
                due.pop(0)

    async def _write(self, number: int) -> Append:
        """Have one batch stored, as this writer's way is, and return what is known of it then."""
        began_s = time.monotonic()
        outcomes: set[Outcome] = set()
        tries = 0
        while True:
            tries += 1
            answer = await self._channel.send(number, self.batches[number])
            if answer.outcome in (Outcome.ACKNOWLEDGED, Outcome.REFUSED):
                break
            outcomes.add(answer.outcome)
            self.failed_tries += 1
            self.failures.add((answer.outcome, answer.body.get("status")))
            if self._way is Way.ONCE or time.monotonic() - began_s > PATIENCE_S:
                break
            await asyncio.sleep(AGAIN_S)
        outcome = answer.outcome
        if outcome is Outcome.NOT_WRITTEN and Outcome.UNKNOWN in outcomes:
            outcome = Outcome.UNKNOWN
        if outcome is Outcome.ACKNOWLEDGED:
            self.acknowledged_events += len(self.batches[number])
        return Append(
            writer=self.name,
            number=number,
            marks=self.batches[number],
            outcome=outcome,
            first_seq=answer.body.get("first_seq"),
            code=answer.body.get("code"),
            expected=answer.body.get("expected"),
            tries=tries,
            began_s=began_s,
            ended_s=time.monotonic(),
        )


def open_channel(way: Way, address: Address, run_id: str, name: str, timeout_s: float) -> Channel:
    """Return what carries the appends of a writer of this way."""
    if way is Way.SOCKET:
        return SocketChannel(address, run_id, name, timeout_s=timeout_s)
    numbered, keyed = way is Way.NUMBERED, way is Way.KEYED
    return HttpChannel(address, run_id, name, timeout_s=timeout_s, numbered=numbered, keyed=keyed)
