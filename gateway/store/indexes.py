"""A tenant's indexes: what lists, the inbox and the feed read. They over-approximate; the record decides."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import msgspec

from gateway.domain.lifecycle import ALL
from gateway.domain.run import Run, RunSpec
from gateway.errors import IdempotencyMismatch
from gateway.store import keys
from gateway.store.link import Argument, Link
from gateway.store.log import new_tags
from gateway.store.runs import Dedupe
from gateway.store.scripts import CONCLUDE, FORGET_KEY, READ_INDEXES, REINDEX, RESERVE, Word

MOVING = 1_000
"""Runs in change that a list reads; where there are more, it reads the index of all runs instead."""

LAST_REV = 2**53
_LINKS = ("parent_run_id", "root_run_id", "batch_id", "schedule_id")


class Reservation(msgspec.Struct, frozen=True):
    """A new run's identity."""

    run_id: str
    created_us: int
    change_id: str


class Note(msgspec.Struct, frozen=True):
    """A change of a run's status that was begun; `begun_ms` in Unix ms."""

    run_id: str
    change_id: str
    begun_ms: int


class Position(msgspec.Struct, frozen=True):
    """A run's place in a list, newest first."""

    created_us: int
    run_id: str


class Slice(msgspec.Struct, frozen=True):
    """What indexes showed at one moment, each newest first, and the runs that were between two of them."""

    pages: list[list[Position]]
    moving: list[Position]


class IndexStore:
    """Indexes by creation time, one set a tenant and value."""

    def __init__(self, reads: Link, writes: Link, *, feed_entries: int) -> None:
        self._reads = reads
        self._writes = writes
        self._feed_entries = feed_entries
        self._tenants: set[str] = set()

    async def reserve(self, spec: RunSpec, dedupe: Dedupe) -> Reservation:
        """Reserve the id and time of a run that is about to be created, and enter it in its indexes.

        Where an idempotency key has reserved another id before, nothing is entered: ask again with that id.

        Raises:
            IdempotencyMismatch: the idempotency key was used with another body.
        """
        tenant, change_id = spec.tenant, _new_change_id()
        await self.note_tenant(tenant)
        names = [
            keys.tenant_idempotency(tenant, dedupe.idempotency or "-"),
            keys.tenant_clock(tenant),
            keys.moving(tenant),
        ]
        word, reply = await RESERVE.call(
            self._writes,
            [*names, *self._homes(spec)],
            [spec.id, dedupe.fingerprint, dedupe.lifetime_ms if dedupe.idempotency else "", change_id],
        )
        if word is Word.MISMATCH:
            raise _mismatch()
        run_id, created_us = reply
        return Reservation(run_id.decode(), created_us, change_id)

    async def note_tenant(self, tenant: str) -> None:
        """Have the tenant among those that the reconciler walks."""
        if tenant not in self._tenants:
            await self._writes.call("SADD", keys.TENANTS, tenant)
            self._tenants.add(tenant)

    async def find_reserved(self, tenant: str, idempotency: str, fingerprint: str) -> str | None:
        """Return the run id that was reserved under an idempotency key, None when none was.

        Raises:
            IdempotencyMismatch: it was used with another body.
        """
        known = await self._reads.call("GET", keys.tenant_idempotency(tenant, idempotency))
        if known is None:
            return None
        run_id, _created_us, kept = known.decode().split(" ", 2)
        if kept != fingerprint:
            raise _mismatch()
        return str(run_id)

    def _homes(self, spec: RunSpec) -> list[str]:
        tenant = spec.tenant
        values = [("agent", spec.agent_id), ("thread", spec.thread_id), ("trigger", spec.trigger)]
        values += [(name, value) for name in _LINKS if (value := getattr(spec, name)) is not None]
        values += [("depends_on", need.run_id) for need in spec.depends_on]
        values += [("tag", f"{key}:{value}") for key, value in spec.tags.items()]
        return [keys.all_runs(tenant), *(keys.index(tenant, name, value) for name, value in values)]

    async def begin_change(self, tenant: str, run_id: str, now_ms: int) -> str:
        """Note that a run's status is about to change; returns the change's id for `apply`."""
        change_id = _new_change_id()
        await self._writes.call("ZADD", keys.moving(tenant), now_ms, f"{run_id} {change_id}")
        return change_id

    async def apply(self, run: Run, change_id: str, *, feed_event: tuple[bytes, bytes], gone: bool = False) -> None:
        """Bring the status indexes to what the record says, once per revision, and tell the feed.

        Args:
            feed_event: The feed's event, before and after the value of `previous`.
            gone: The run has been removed.
        """
        tenant, run_id = run.spec.tenant, run.id
        status = "" if gone else str(run.status)
        asks = bool(run.state.open) and not gone
        created_us = run.spec.created_us
        await self._move(tenant, run_id, run.rev + gone, status, asks, created_us, change_id, feed_event)
        if gone:
            await self._writes.call_many([("ZREM", home, run_id) for home in self._homes(run.spec)])

    async def forget(self, tenant: str, run_id: str, change_id: str, *, feed_event: tuple[bytes, bytes]) -> None:
        """Take a run out of the indexes of which nothing but a note is left; lists drop what else names it."""
        await self._move(tenant, run_id, LAST_REV, "", False, 0, change_id, feed_event)
        await self._writes.call("ZREM", keys.all_runs(tenant), run_id)

    async def _move(
        self,
        tenant: str,
        run_id: str,
        rev: int,
        status: str,
        asks: bool,
        created_us: int,
        change_id: str,
        feed_event: tuple[bytes, bytes],
    ) -> None:
        names = [keys.applied(tenant), keys.moving(tenant), keys.asking(tenant)]
        names += [keys.feed_record(tenant), keys.feed_log(tenant)]
        args: list[Argument] = [
            run_id,
            rev,
            status,
            "1" if asks else "",
            created_us,
            change_id,
            keys.feed_channel(tenant),
            new_tags(1)[0],
            *feed_event,
            self._feed_entries,
            len(ALL),
            *map(str, ALL),
        ]
        await REINDEX.call(self._writes, [*names, *(keys.status_index(tenant, s) for s in ALL)], args)

    async def bury(self, tenant: str, run_id: str, mark: str, lifetime_ms: int) -> None:
        """Remember that a run is being purged, so that the repeat of its creation does not make it again.

        Args:
            mark: Of the request that purges it, so that its repeat is recognised.
        """
        await self._writes.call("SET", keys.gone(tenant, run_id), mark, "PX", lifetime_ms)

    async def find_grave(self, tenant: str, run_id: str) -> str | None:
        """Return the mark of the request that purged the run lately, None when none did."""
        mark = await self._reads.call("GET", keys.gone(tenant, run_id))
        return None if mark is None else str(mark.decode())

    async def settle(self, tenant: str, digest: str, value: bytes, lifetime_ms: int) -> bytes:
        """Keep `value` under an idempotency digest unless one is kept there, and return the one that is."""
        known = await self.begin(tenant, digest, value, lifetime_ms)
        return value if known is None else known

    async def begin(self, tenant: str, digest: str, value: bytes, lifetime_ms: int) -> bytes | None:
        """Keep `value` under an idempotency digest unless one is kept there, which is then returned."""
        key = keys.tenant_idempotency(tenant, digest)
        known: bytes | None = await self._writes.call("SET", key, value, "NX", "GET", "PX", lifetime_ms)
        return known

    async def conclude(self, tenant: str, digest: str, mark: bytes, value: bytes, lifetime_ms: int) -> bytes | None:
        """Put `value` (nothing, where it is empty) in the place of `mark`; returns what else stands there."""
        key = keys.tenant_idempotency(tenant, digest)
        word, reply = await CONCLUDE.call(self._writes, [key], [mark, value, lifetime_ms])
        known: bytes | None = reply[0] if word is Word.HELD else None
        return known

    async def forget_key(self, tenant: str, digest: str, run_id: str) -> None:
        """Free the idempotency digest under which a run was created, if it still stands for that run."""
        key = keys.tenant_idempotency(tenant, digest)
        await FORGET_KEY.call(self._writes, [key], [run_id])

    async def settled(self, tenant: str, digest: str) -> bytes | None:
        """Return what is kept under an idempotency digest."""
        known: bytes | None = await self._reads.call("GET", keys.tenant_idempotency(tenant, digest))
        return known

    async def unsettle(self, tenant: str, digest: str) -> None:
        """Forget what is kept under an idempotency digest."""
        await self._writes.call("DEL", keys.tenant_idempotency(tenant, digest))

    async def ensure_feed(self, tenant: str) -> None:
        """Have a feed to follow, even before the tenant's first run."""
        fields: dict[str, Argument] = {"head_seq": 0, "head_tag": 0, "first_seq": 1, "status": "open"}
        await self._writes.call_many([("HSETNX", keys.feed_record(tenant), f, v) for f, v in fields.items()])

    async def abandon_change(self, tenant: str, run_id: str, change_id: str) -> None:
        """Forget a change that did not happen."""
        await self._writes.call("ZREM", keys.moving(tenant), f"{run_id} {change_id}")

    async def read(
        self, tenant: str, names: Sequence[str], before: Position | None, limit: int, *, moving: bool
    ) -> Slice | None:
        """Read up to `limit` runs after `before` from each of several indexes, all at one moment.

        Args:
            moving: Read the runs too whose status is just changing: no status index can be trusted to show them.

        Returns:
            None when too many runs are just changing for any index of statuses to be of use.
        """
        # Equal times cannot happen within a tenant, so a time is a position.
        top: Argument = "+inf" if before is None else f"({before.created_us}"
        word, reply = await READ_INDEXES.call(
            self._reads,
            [keys.moving(tenant), keys.all_runs(tenant), *names],
            [top, limit, "1" if moving else "", MOVING],
        )
        if word is Word.CROWDED:
            return None
        between, *pages = map(_positions, reply)
        between = sorted(between, key=lambda p: -p.created_us)
        return Slice(pages, [p for p in between if before is None or p.created_us < before.created_us])

    async def enter(self, names: Iterable[str], position: Position) -> None:
        """Enter a run in several indexes."""
        await self._writes.call_many([("ZADD", name, position.created_us, position.run_id) for name in names])

    async def drop(self, key: str, run_ids: Iterable[str]) -> None:
        """Remove entries of runs that do not exist from one index."""
        await self._writes.call("ZREM", key, *run_ids)

    async def tenants(self) -> list[str]:
        """Return every tenant that ever created a run or a file."""
        return [t.decode() for t in await self._reads.call("SMEMBERS", keys.TENANTS)]

    async def take_turn(self, process_id: str, lifetime_ms: int) -> bool:
        """Whether it is this process's turn to finish what was left half done; a turn that is not renewed ends."""
        mine = process_id.encode()
        holder = await self._writes.call("SET", keys.RECONCILING, mine, "NX", "GET", "PX", lifetime_ms)
        if holder == mine:
            await self._writes.call("PEXPIRE", keys.RECONCILING, lifetime_ms)
        return holder in (None, mine)

    async def dependents(self, tenant: str, run_id: str) -> list[str]:
        """Return the runs that were created to wait for this one."""
        reply = await self._reads.call("ZRANGE", keys.index(tenant, "depends_on", run_id), 0, -1)
        return [member.decode() for member in reply]

    async def stuck_changes(self, tenant: str, before_ms: int) -> list[Note]:
        """Return changes begun before `before_ms` that were never applied, oldest first; at most 100."""
        reply = await self._reads.call(
            "ZRANGE", keys.moving(tenant), "-inf", before_ms, "BYSCORE", "LIMIT", 0, 100, "WITHSCORES"
        )
        notes = []
        for member, begun_ms in zip(reply[::2], reply[1::2], strict=True):
            run_id, _, change_id = member.decode().partition(" ")
            notes.append(Note(run_id, change_id, int(float(begun_ms))))
        return notes


def _positions(reply: list[bytes]) -> list[Position]:
    return [Position(int(float(reply[i + 1])), reply[i].decode()) for i in range(0, len(reply), 2)]


def _mismatch() -> IdempotencyMismatch:
    return IdempotencyMismatch("This idempotency key was used before with another body.")


def _new_change_id() -> str:
    return os.urandom(6).hex()
