"""A tenant's indexes: what lists, the inbox and the feed read. They over-approximate; the record decides."""

from __future__ import annotations

import os
from collections.abc import Iterable

import msgspec

from gateway.domain.lifecycle import ALL
from gateway.domain.run import Run, RunSpec
from gateway.errors import IdempotencyMismatch
from gateway.store import keys
from gateway.store.link import Argument, Link
from gateway.store.log import new_tags
from gateway.store.scripts import REINDEX, RESERVE, Word

_LINKS = ("parent_run_id", "root_run_id", "batch_id")


class Reservation(msgspec.Struct, frozen=True):
    """A new run's identity; `repeated` when an idempotency key had reserved it before."""

    run_id: str
    created_us: int
    change_id: str
    repeated: bool


class Position(msgspec.Struct, frozen=True):
    """A run's place in a list, newest first."""

    created_us: int
    run_id: str


class IndexStore:
    """Indexes by creation time, one set a tenant and value."""

    def __init__(self, reads: Link, writes: Link, *, feed_entries: int) -> None:
        self._reads = reads
        self._writes = writes
        self._feed_entries = feed_entries
        self._tenants: set[str] = set()

    async def reserve(self, spec: RunSpec, *, idempotency: str, fingerprint: str, lifetime_ms: int) -> Reservation:
        """Reserve the id and time of a run that is about to be created, and enter it in its indexes.

        Raises:
            IdempotencyMismatch: the idempotency key was used with another body.
        """
        tenant, change_id = spec.tenant, _new_change_id()
        if tenant not in self._tenants:
            await self._writes.call("SADD", keys.TENANTS, tenant)
            self._tenants.add(tenant)
        names = [
            keys.tenant_idempotency(tenant, idempotency or "-"),
            keys.tenant_clock(tenant),
            keys.moving(tenant),
        ]
        word, reply = await RESERVE.call(
            self._writes,
            [*names, *self._homes(spec)],
            [spec.id, fingerprint, lifetime_ms if idempotency else "", change_id],
        )
        if word is Word.MISMATCH:
            raise IdempotencyMismatch("This idempotency key was used before with another body.")
        run_id, created_us, _now_ms = reply
        return Reservation(run_id.decode(), created_us, change_id, word is Word.HELD)

    def _homes(self, spec: RunSpec) -> list[str]:
        tenant = spec.tenant
        values = [("agent", spec.agent_id), ("thread", spec.thread_id), ("trigger", spec.trigger)]
        values += [(name, value) for name in _LINKS if (value := getattr(spec, name)) is not None]
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
        names = [keys.applied(tenant), keys.moving(tenant), keys.asking(tenant)]
        names += [keys.feed_record(tenant), keys.feed_log(tenant)]
        args: list[Argument] = [
            run_id,
            run.rev + gone,
            "" if gone else str(run.status),
            "1" if run.state.open and not gone else "",
            run.spec.created_us,
            change_id,
            keys.feed_channel(tenant),
            new_tags(1)[0],
            *feed_event,
            self._feed_entries,
            len(ALL),
            *map(str, ALL),
        ]
        await REINDEX.call(self._writes, [*names, *(keys.status_index(tenant, s) for s in ALL)], args)
        if gone:
            await self._writes.call_many([("ZREM", home, run_id) for home in self._homes(run.spec)])

    async def settle(self, tenant: str, digest: str, value: bytes, lifetime_ms: int) -> bytes:
        """Keep `value` under an idempotency digest unless one is kept there, and return the one that is."""
        key = keys.tenant_idempotency(tenant, digest)
        known: bytes | None = await self._writes.call("SET", key, value, "NX", "GET", "PX", lifetime_ms)
        return value if known is None else known

    async def settled(self, tenant: str, digest: str) -> bytes | None:
        """Return what is kept under an idempotency digest."""
        known: bytes | None = await self._reads.call("GET", keys.tenant_idempotency(tenant, digest))
        return known

    async def ensure_feed(self, tenant: str) -> None:
        """Have a feed to follow, even before the tenant's first run."""
        fields: dict[str, Argument] = {"head_seq": 0, "head_tag": 0, "first_seq": 1, "status": "open"}
        await self._writes.call_many([("HSETNX", keys.feed_record(tenant), f, v) for f, v in fields.items()])

    async def abandon_change(self, tenant: str, run_id: str, change_id: str) -> None:
        """Forget a change that did not happen."""
        await self._writes.call("ZREM", keys.moving(tenant), f"{run_id} {change_id}")

    async def page(self, key: str, before: Position | None, limit: int) -> list[Position]:
        """Return up to `limit` runs of one index, newest first, that come after `before` in that order."""
        # Equal times cannot happen within a tenant, so a time is a position.
        top: Argument = "+inf" if before is None else f"({before.created_us}"
        reply = await self._reads.call("ZRANGE", key, top, "-inf", "BYSCORE", "REV", "LIMIT", 0, limit, "WITHSCORES")
        return [Position(int(float(reply[i + 1])), reply[i].decode()) for i in range(0, len(reply), 2)]

    async def in_change(self, tenant: str) -> set[str]:
        """Return the runs whose status is changing just now."""
        return {m.decode().partition(" ")[0] for m in await self._reads.call("ZRANGE", keys.moving(tenant), 0, 999)}

    async def positions(self, tenant: str, run_ids: Iterable[str]) -> list[Position]:
        """Return the positions of runs, of those that have one."""
        ids = list(run_ids)
        if not ids:
            return []
        scores = await self._reads.call("ZMSCORE", keys.all_runs(tenant), *ids)
        return [Position(int(float(s)), i) for i, s in zip(ids, scores, strict=True) if s is not None]

    async def drop(self, key: str, run_ids: Iterable[str]) -> None:
        """Remove entries of runs that do not exist from one index."""
        await self._writes.call("ZREM", key, *run_ids)

    async def tenants(self) -> list[str]:
        """Return every tenant that ever created a run."""
        return [t.decode() for t in await self._reads.call("SMEMBERS", keys.TENANTS)]

    async def stuck_changes(self, tenant: str, before_ms: int) -> list[tuple[str, str]]:
        """Return (run id, change id) of changes begun before `before_ms` that were never applied; at most 100."""
        members = await self._reads.call("ZRANGE", keys.moving(tenant), "-inf", before_ms, "BYSCORE", "LIMIT", 0, 100)
        pairs = [m.decode().partition(" ") for m in members]
        return [(run_id, change_id) for run_id, _, change_id in pairs]


def _new_change_id() -> str:
    return os.urandom(6).hex()
