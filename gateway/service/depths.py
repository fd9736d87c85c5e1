"""How deep the queues are, for metrics: the same from every process, with few labels however many queues there are."""

from __future__ import annotations

from typing import Final

from gateway import telemetry
from gateway.store.indexes import IndexStore
from gateway.store.queue import QueueDepth, QueueStore

MOST: Final = 200
"""Tenants, and queues, that one measurement asks after."""
NAMED: Final = 50
"""Queues that have a label of their own, first come first served; all others share one."""
OTHERS: Final = "(other)"


class Depths:
    """Measures the queues of all tenants; queues of one name are one to it."""

    def __init__(self, indexes: IndexStore, queues: QueueStore) -> None:
        self._indexes = indexes
        self._queues = queues
        self._named: set[str] = set()

    async def measure(self, *, now_us: int) -> None:
        """Publish how many runs wait and are held, and how long the first in turn has waited.

        Raises:
            StoreUnavailable: the store did not answer; nothing was published.
        """
        found = [await self._queues.depth(tenant, name) for tenant, name in await self._list()]
        found.sort(key=lambda depth: depth.waiting, reverse=True)
        names = [*self._named, OTHERS] if len(self._named) == NAMED else self._named
        sums: dict[str, list[QueueDepth]] = {name: [] for name in names}
        for depth in found:
            sums.setdefault(self._label(depth.name), []).append(depth)
        for name, depths in sums.items():
            telemetry.QUEUE_WAITING.labels(name).set(sum(depth.waiting for depth in depths))
            telemetry.QUEUE_HELD.labels(name).set(sum(depth.held for depth in depths))
            oldest_us = min((depth.oldest_us for depth in depths if depth.oldest_us is not None), default=now_us)
            telemetry.QUEUE_OLDEST_SECONDS.labels(name).set(max(now_us - oldest_us, 0) / 1e6)

    def _label(self, name: str) -> str:
        if name not in self._named and len(self._named) >= NAMED:
            return OTHERS
        self._named.add(name)
        return name

    async def _list(self) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for tenant in sorted(await self._indexes.tenants())[:MOST]:
            found += [(tenant, name) for name in await self._queues.names(tenant)]
            if len(found) >= MOST:
                break
        return found[:MOST]
