"""The timer index: when to look at what. A timer only says look; the record decides.

A member is a run's id, or `kind:rest` for what is no run: a schedule, a run's webhooks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import msgspec

from gateway.errors import StoreUnavailable
from gateway.store import keys
from gateway.store.link import Link
from gateway.store.scripts import ARM_TIMER, SETTLE_TIMER, TAKE_DUE, Word

ARM_AT_ONCE = 500
ALL_PARTITIONS = frozenset(range(keys.PARTITIONS))


class Timer(msgspec.Struct, frozen=True):
    """What is to be looked at, and since when it is due, in Unix ms."""

    member: str
    due_ms: int


class Taken(msgspec.Struct, frozen=True):
    """Timers taken to be looked after, oldest first, and when the next one is due; Unix ms of the store's clock."""

    now_ms: int
    hidden_until_ms: int
    timers: list[Timer]
    next_due_ms: int | None


class TimerStore:
    """One entry a member, in one of sixteen partitions."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._rung = asyncio.Event()
        self._rung_partitions: set[int] = set()

    async def arm(self, member: str, due_ms: int) -> None:
        """Have the member looked at `due_ms` or earlier."""
        await ARM_TIMER.call(self._link, [keys.timers(keys.partition(member))], [member, due_ms])

    async def arm_many(self, members: Sequence[str], due_ms: int) -> None:
        """Have several members looked at `due_ms` or earlier, a few hundred at once."""
        for start in range(0, len(members), ARM_AT_ONCE):
            await asyncio.gather(*(self.arm(member, due_ms) for member in members[start : start + ARM_AT_ONCE]))
        self._rung_partitions |= {keys.partition(member) for member in members}
        self._rung.set()

    async def arm_now(self, member: str, now_ms: int) -> None:
        """Have the member looked at by this process at once, by any other within its next round."""
        await self.arm(member, now_ms)
        self._rung_partitions.add(keys.partition(member))
        self._rung.set()

    async def wait_rung(self, timeout_s: float) -> frozenset[int]:
        """Wait until this process armed something for now; returns the partitions, none when the time is up."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._rung.wait()
        except TimeoutError:
            return frozenset()
        self._rung.clear()
        rung = frozenset(self._rung_partitions)
        self._rung_partitions.clear()
        return rung

    async def take(self, *, most: int, hide_ms: int, partitions: Iterable[int] = ALL_PARTITIONS) -> list[Taken]:
        """Take what is due, at most so many a partition; a taken timer shows again after `hide_ms` unless settled.

        Returns those of the partitions that could be reached: in a cluster they are on several nodes.

        Raises:
            StoreUnavailable: none could.
        """
        asked = await asyncio.gather(*(self._take(n, most, hide_ms) for n in partitions), return_exceptions=True)
        failures = [each for each in asked if isinstance(each, BaseException)]
        for failure in failures:
            if not isinstance(failure, StoreUnavailable) or len(failures) == len(asked):
                raise failure
        return [each for each in asked if isinstance(each, Taken)]

    async def _take(self, number: int, most: int, hide_ms: int) -> Taken:
        _word, reply = await TAKE_DUE.call(self._link, [keys.timers(number)], [most, hide_ms])
        now_ms, next_due, hidden = reply[:3]
        due = [Timer(member.decode(), due_ms) for member, due_ms in zip(reply[3::2], reply[4::2], strict=True)]
        return Taken(now_ms=now_ms, hidden_until_ms=hidden, timers=due, next_due_ms=next_due if next_due >= 0 else None)

    async def settle(self, member: str, hidden_until_ms: int, next_due_ms: int | None) -> bool:
        """Put a taken timer to its next time; False when somebody armed it meanwhile."""
        key = keys.timers(keys.partition(member))
        due = "" if next_due_ms is None else next_due_ms
        word, _reply = await SETTLE_TIMER.call(self._link, [key], [member, hidden_until_ms, due])
        return word is Word.OK
