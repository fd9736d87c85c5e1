"""Having a run's webhooks looked after once events have come that they want."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from gateway.domain.hooks import filter_of
from gateway.errors import StoreUnavailable
from gateway.store import keys
from gateway.store.clock import StoreClock
from gateway.store.timers import TimerStore

logger = logging.getLogger(__name__)


class HookBell:
    """Arms the timer of a run's webhooks; where that is lost, their next event makes up for it."""

    def __init__(self, timers: TimerStore, clock: StoreClock) -> None:
        self._timers = timers
        self._clock = clock

    async def ring(self, run_id: str, hooked: str, types: Iterable[str] | None = None) -> None:
        """Have the webhooks looked after, if there are any.

        Args:
            hooked: What they want, as the run's record says.
            types: Of the events that have come; None where nobody knows.
        """
        if hooked and (types is None or any(map(filter_of(hooked).passes, types))):
            await self._timers.arm_now(keys.hook_timer(run_id), self._clock.now_ms())

    async def ring_late(self, run_id: str, hooked: str, types: Iterable[str]) -> None:
        """As `ring`, after a write that stands whatever becomes of this."""
        try:
            await self.ring(run_id, hooked, types)
        except StoreUnavailable:
            logger.warning("webhooks of run %s follow with its next event", run_id)
