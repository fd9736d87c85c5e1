"""What follows a change of a run, and may be done again: its queue, dependents, webhooks, indexes and the feed."""

from __future__ import annotations

import logging
from collections.abc import Collection

from gateway.domain.run import Run
from gateway.service.feed_events import feed_event, forgotten_event
from gateway.service.hook_bell import HookBell
from gateway.store.clock import StoreClock
from gateway.store.indexes import IndexStore
from gateway.store.queue import QueueStore
from gateway.store.timers import TimerStore

logger = logging.getLogger(__name__)


class Aftermath:
    """Brings everything after a run's record; what is cut off here, the reconciler finishes."""

    def __init__(
        self, indexes: IndexStore, timers: TimerStore, queues: QueueStore, bell: HookBell, clock: StoreClock
    ) -> None:
        self._indexes = indexes
        self._timers = timers
        self._queues = queues
        self._bell = bell
        self._clock = clock

    async def finish(self, run: Run, change_id: str, types: Collection[str] | None = None) -> None:
        """As `reindex`, after a write that stands whatever becomes of this."""
        try:
            await self.reindex(run, change_id, types=types)
        except Exception as error:
            # The change itself is stored and will be acknowledged; the reconciler finishes its indexes.
            logger.warning("indexes of run %s follow later: %r", run.id, error)

    async def reindex(
        self, run: Run, change_id: str, *, gone: bool = False, types: Collection[str] | None = None
    ) -> None:
        """Bring queue, dependents, webhooks (if `types` may concern them), indexes and feed to what the record says."""
        # Also of a run that is gone: it may have been removed before its end was told to its queue.
        await self._follow_up(run)
        if not gone:
            await self._bell.ring(run.id, run.hooked, types)
        await self._indexes.apply(run, change_id, feed_event=feed_event(run, gone=gone), gone=gone)

    async def _follow_up(self, run: Run) -> None:
        if run.spec.is_queued:
            await self._queues.sync(run)
        if run.state.terminal:
            dependents = await self._indexes.dependents(run.spec.tenant, run.id)
            if dependents:
                await self._timers.arm_many(dependents, self._clock.now_ms())

    async def forget(self, tenant: str, run_id: str, change_id: str) -> None:
        """Take a run that does not exist out of the indexes, and tell the feed."""
        event = forgotten_event(run_id, self._clock.now_ms())
        await self._indexes.forget(tenant, run_id, change_id, feed_event=event)

    async def finish_removal(self, run: Run, change_id: str) -> None:
        """Take a run that was just removed out of the indexes; what fails here, the reconciler finishes."""
        try:
            await self.reindex(run, change_id, gone=True)
        except Exception as error:
            logger.warning("indexes of purged run %s follow later: %r", run.id, error)
