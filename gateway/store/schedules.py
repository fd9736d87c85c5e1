"""Schedules of a tenant, each changed only as it was read."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from gateway.domain.schedules import Schedule
from gateway.store import keys
from gateway.store.link import Link
from gateway.store.scripts import SWAP_SCHEDULE, Word

_decoder = msgspec.json.Decoder(Schedule)


class ScheduleStore:
    """Schedules by tenant and id."""

    def __init__(self, reads: Link, writes: Link) -> None:
        self._reads = reads
        self._writes = writes

    async def get(self, tenant: str, schedule_id: str) -> Schedule | None:
        """Return a schedule, None when there is none."""
        line = await self._reads.call("HGET", keys.schedules(tenant), schedule_id)
        return None if line is None else _read(line)

    async def page(self, tenant: str, after_id: str | None, limit: int) -> tuple[Sequence[Schedule], str | None]:
        """Return schedules by id, and the id after which the next page begins, None at the end."""
        low = "-" if after_id is None else f"({after_id}"
        ids = await self._reads.call("ZRANGE", keys.schedule_ids(tenant), low, "+", "BYLEX", "LIMIT", 0, limit + 1)
        shown = ids[:limit]
        if not shown:
            return [], None
        lines = await self._reads.call("HMGET", keys.schedules(tenant), *shown)
        found = [_read(line) for line in lines if line is not None]
        return found, shown[-1].decode() if len(ids) > limit else None

    async def put(self, schedule: Schedule, known: Schedule | None) -> Schedule | None:
        """Store a schedule in the place of `known`; returns it as it then is, None when somebody changed it."""
        changed = replace(schedule, rev=(known.rev if known else 0) + 1)
        line = f"{changed.rev} ".encode() + msgspec.json.encode(changed)
        word = await self._swap(schedule.tenant, schedule.id, "" if known is None else str(known.rev), line)
        return changed if word is Word.OK else None

    async def remove(self, tenant: str, schedule_id: str) -> bool:
        """Remove a schedule; False when there is none."""
        return await self._swap(tenant, schedule_id, "*", b"") is Word.OK

    async def _swap(self, tenant: str, schedule_id: str, rev: str, line: bytes) -> Word:
        names = [keys.schedules(tenant), keys.schedule_ids(tenant)]
        word, _reply = await SWAP_SCHEDULE.call(self._writes, names, [schedule_id, rev, line])
        return word


def _read(line: bytes) -> Schedule:
    return _decoder.decode(line[line.index(b" ") + 1 :])
