"""Ticks of schedules: one run each, whoever fires them and whatever dies in between.

First the tick and the id of its run are noted in the schedule, under its revision; then the run is created under that
id; then the note is cleared. Whoever finds the note goes on from there, and makes no second run.
"""

from __future__ import annotations

import logging

from msgspec.structs import replace
from ulid import ULID

from gateway import telemetry
from gateway.domain.access import SCOPES, Grant, Principal
from gateway.domain.run import SYSTEM
from gateway.domain.schedules import SKIP, Begun, Schedule, ScheduleError
from gateway.errors import GatewayError, StoreUnavailable
from gateway.service.actors import Caller
from gateway.service.runs import Runs
from gateway.service.schedules import change_schedule, new_run
from gateway.store.clock import StoreClock
from gateway.store.runs import RunStore
from gateway.store.schedules import ScheduleStore

logger = logging.getLogger(__name__)

KIND = "schedule"
"""The kind of timer that this looks after; its name is `tenant:id`."""


class Ticks:
    """Looks after schedules whose time has come."""

    def __init__(self, store: ScheduleStore, runs: Runs, records: RunStore, clock: StoreClock) -> None:
        self._store = store
        self._runs = runs
        self._records = records
        self._clock = clock

    async def look(self, name: str) -> int | None:
        """Create the runs that a schedule owes, and return when it ticks next."""
        while True:
            schedule = await self._find(name)
            if schedule is None:
                return None
            if schedule.begun is not None:
                await self._finish(schedule, schedule.begun)
            elif schedule.next_ms is None or schedule.next_ms > self._clock.now_ms():
                return schedule.next_ms
            else:
                await self._begin(schedule, schedule.next_ms)

    async def next_look_ms(self, name: str) -> int | None:
        """Return when a schedule ticks next."""
        schedule = await self._find(name)
        return None if schedule is None else schedule.look_ms(self._clock.now_ms())

    async def _find(self, name: str) -> Schedule | None:
        tenant, _, schedule_id = name.partition(":")
        return await self._store.get(tenant, schedule_id)

    async def _begin(self, schedule: Schedule, due_ms: int) -> None:
        """Decide on the last tick that is due; those before it were missed, and are not made up for."""
        now_ms = self._clock.now_ms()
        try:
            timetable = schedule.definition.timetable()
        except GatewayError as error:
            # The time zone is gone from the machine's data, say: nothing ticks until somebody changes the schedule.
            failed = ScheduleError(error.code, error.detail, due_ms)
            await self._store.put(replace(schedule, next_ms=None, last_error=failed), schedule)
            return
        tick_ms = timetable.latest_ms(due_ms - 1, now_ms) or due_ms
        next_ms = timetable.next_after_ms(tick_ms)
        if schedule.definition.overlap == SKIP and await self._is_busy(schedule):
            skipped = await self._store.put(replace(schedule, next_ms=next_ms, last_skipped_ms=tick_ms), schedule)
            if skipped is not None:
                telemetry.SCHEDULE_TICKS.labels("skipped").inc()
            return
        begun = Begun(tick_ms, str(ULID.from_timestamp(now_ms / 1000)))
        await self._store.put(replace(schedule, next_ms=next_ms, begun=begun), schedule)

    async def _is_busy(self, schedule: Schedule) -> bool:
        """Whether the run that the schedule created last has not ended."""
        if schedule.last_run_id is None:
            return False
        run = await self._records.load_any(schedule.last_run_id)
        return run is not None and not run.state.terminal

    async def _finish(self, schedule: Schedule, begun: Begun) -> None:
        """Create the run of a tick that was begun, unless it is there, and take the note of it away."""
        run_id, failed = begun.run_id, None
        try:
            run_id = await self._create(schedule, begun)
        except StoreUnavailable:
            raise
        except GatewayError as error:
            logger.warning("schedule %s of %s: %s", schedule.id, schedule.tenant, error.detail)
            failed = ScheduleError(error.code, error.detail, begun.tick_ms)

        def settle(now: Schedule) -> Schedule | None:
            if now.begun != begun:
                return None
            made = now.last_run_id if failed else run_id
            return replace(now, begun=None, last_tick_ms=begun.tick_ms, last_run_id=made, last_error=failed)

        settled = await change_schedule(self._store, schedule, settle)
        if settled is not None:
            telemetry.SCHEDULE_TICKS.labels("failed" if failed else "run").inc()

    async def _create(self, schedule: Schedule, begun: Begun) -> str:
        if await self._records.load_any(begun.run_id) is not None:
            return begun.run_id
        new = new_run(schedule, begun.tick_ms)
        run = await self._runs.create_for_tick(_clockwork(schedule), new, run_id=begun.run_id)
        return run.id


def _clockwork(schedule: Schedule) -> Caller:
    """Return who creates the runs of a schedule."""
    grant = Grant(schedule.tenant, Principal(SYSTEM.id or SYSTEM.kind), SCOPES, None, KIND)
    return Caller(grant, triggered_by=f"{KIND} {schedule.id}", by_system=True)
