"""Queues: who is next, who was promised to a worker a moment ago, and whose limits are used up."""

from __future__ import annotations

import asyncio

import msgspec

from gateway.domain.placement import Standing, agent_limit, lane, order, standing
from gateway.domain.run import Run
from gateway.store import keys
from gateway.store.link import Argument, Link
from gateway.store.scripts import LIMIT_QUEUE, RESERVE_RUNS, SYNC_QUEUE

HIDE_MS = 5_000
GONE_REV = 2**53
"""Newer than anything that a queue was told of a run."""
TRUST_MS = 60_000
"""After so long it is asked whether a run that holds a permit is still leased."""


class Reserved(msgspec.Struct, frozen=True):
    """Runs that are hidden for whoever reserved them, and runs whose permits should be asked after.

    `unfinished`: there is more to look at than one call may.
    """

    run_ids: list[str]
    suspects: list[str]
    unfinished: bool = False


class QueueDepth(msgspec.Struct, frozen=True):
    """How much a queue holds: runs that wait (reserved ones too), and runs that workers hold.

    `oldest_us` is when the first run in turn was queued, in Unix µs; None when no run may be claimed now.
    """

    name: str
    waiting: int
    held: int
    oldest_us: int | None


class QueueStore:
    """A tenant's queues; each lives in a slot of its own."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._known: set[tuple[str, str]] = set()

    async def register(self, tenant: str, name: str) -> None:
        """Have the queue listed; to be called before a run enters it."""
        if (tenant, name) not in self._known:
            await self._link.call("ZADD", keys.queues(tenant), 0, name)
            self._known.add((tenant, name))

    async def sync(self, run: Run) -> None:
        """Bring the run's queue to what its record says; wakes who waits for work."""
        spec = run.spec
        limit = "" if spec.max_concurrent is None else spec.max_concurrent
        await SYNC_QUEUE.call(
            self._link,
            keys.queue(spec.tenant, spec.queue),
            [
                run.id,
                run.rev,
                str(standing(run)),
                order(run),
                lane(spec),
                limit,
                TRUST_MS,
                keys.queue_channel(spec.tenant, spec.queue),
            ],
        )

    async def drop(self, tenant: str, name: str, run_id: str) -> None:
        """Have the queue forget a run that is gone."""
        args: list[Argument] = [run_id, GONE_REV, str(Standing.LEAVE), "-", "-", "", TRUST_MS]
        await SYNC_QUEUE.call(self._link, keys.queue(tenant, name), [*args, keys.queue_channel(tenant, name)])

    async def reserve(self, tenant: str, name: str, most: int, agents: frozenset[str] | None = None) -> Reserved:
        """Reserve up to `most` runs that are next; each shows again after 5 s unless it was claimed.

        Args:
            agents: Whose runs will do; None for any agent's.
        """
        wanted = "" if agents is None else "," + ",".join(sorted(agents)) + ","
        _word, reply = await RESERVE_RUNS.call(self._link, keys.queue(tenant, name), [most, HIDE_MS, wanted])
        unfinished, count = reply[:2]
        names = [run_id.decode() for run_id in reply[2:]]
        return Reserved(names[count:], names[:count], unfinished == b"1")

    async def limit(self, tenant: str, agent_id: str, most: int | None) -> None:
        """Let workers hold at most so many runs of an agent at once, in each queue; None for any number."""
        for name in await self.names(tenant):
            args: list[Argument] = [
                agent_limit(agent_id),
                "" if most is None else most,
                keys.queue_channel(tenant, name),
            ]
            unfinished = True
            while unfinished:
                _word, reply = await LIMIT_QUEUE.call(self._link, keys.queue(tenant, name), args)
                unfinished = reply[0] == b"1"

    async def names(self, tenant: str) -> list[str]:
        """Return the tenant's queues by name."""
        return [name.decode() for name in await self._link.call("ZRANGE", keys.queues(tenant), 0, -1)]

    async def page(self, tenant: str, after: str | None, limit: int) -> tuple[list[QueueDepth], str | None]:
        """Return queues by name, and the name after which the next page begins, None at the end."""
        low = "-" if after is None else f"({after}"
        reply = await self._link.call("ZRANGE", keys.queues(tenant), low, "+", "BYLEX", "LIMIT", 0, limit + 1)
        names = [name.decode() for name in reply]
        depths = await asyncio.gather(*(self.depth(tenant, name) for name in names[:limit]))
        return list(depths), names[limit - 1] if len(names) > limit else None

    async def depth(self, tenant: str, name: str) -> QueueDepth:
        """Return how much a queue holds."""
        parts = dict(zip(keys.QUEUE_PARTS, keys.queue(tenant, name), strict=True))
        waiting, held, first = await asyncio.gather(
            self._link.call("HLEN", parts["entries"]),
            self._link.call("HLEN", parts["holders"]),
            self._link.call("ZRANGE", parts["ready"], 0, 0),
        )
        hidden = await self._link.call("ZCARD", parts["hidden"])
        oldest_us = int(first[0][4:20]) if first else None
        return QueueDepth(name, waiting, held - hidden, oldest_us)
