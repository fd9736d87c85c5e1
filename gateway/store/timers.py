"""The timer index: when to look at which run. A timer only says look; the record decides."""

from __future__ import annotations

import asyncio

import msgspec

from gateway.store import keys
from gateway.store.link import Link
from gateway.store.scripts import SETTLE_TIMER, TAKE_DUE, Word


class Taken(msgspec.Struct, frozen=True):
    """Runs taken to be looked at, and what is left; times in Unix ms of the store's clock."""

    now_ms: int
    hidden_until_ms: int
    run_ids: list[str]
    next_due_ms: int | None
    oldest_due_ms: int | None


class TimerStore:
    """One entry a run, in one of sixteen partitions."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def arm(self, run_id: str, due_ms: int) -> None:
        """Have the run looked at `due_ms` or earlier."""
        await self._link.call("ZADD", keys.timers(keys.partition(run_id)), "LT", due_ms, run_id)

    async def take(self, *, most: int, hide_ms: int) -> list[Taken]:
        """Take what is due from every partition; a taken run shows again after `hide_ms` unless settled."""
        return list(await asyncio.gather(*(self._take(n, most, hide_ms) for n in range(keys.PARTITIONS))))

    async def _take(self, number: int, most: int, hide_ms: int) -> Taken:
        _word, reply = await TAKE_DUE.call(self._link, [keys.timers(number)], [most, hide_ms])
        now_ms, next_due, oldest, hidden = reply[:4]
        return Taken(
            now_ms=now_ms,
            hidden_until_ms=hidden,
            run_ids=[run_id.decode() for run_id in reply[4:]],
            next_due_ms=next_due if next_due >= 0 else None,
            oldest_due_ms=oldest if oldest >= 0 else None,
        )

    async def settle(self, run_id: str, hidden_until_ms: int, next_due_ms: int | None) -> bool:
        """Put a taken run to its next time; False when somebody set an earlier one meanwhile."""
        key = keys.timers(keys.partition(run_id))
        due = "" if next_due_ms is None else next_due_ms
        word, _reply = await SETTLE_TIMER.call(self._link, [key], [run_id, hidden_until_ms, due])
        return word is Word.OK
