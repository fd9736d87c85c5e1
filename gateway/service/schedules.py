"""The registry of schedules: what ticks when, and creating a run of it by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from msgspec.structs import replace

from gateway.domain import access
from gateway.domain.access import Grant
from gateway.domain.agents import Overrides, check_preset
from gateway.domain.lifecycle import QUEUED
from gateway.domain.run import Run
from gateway.domain.schedules import Schedule, ScheduleDefinition
from gateway.errors import Contended, NotFound, TooLarge
from gateway.service.actors import Caller
from gateway.service.agents import Agents
from gateway.service.audit import audits
from gateway.service.runs import NewRun, Runs
from gateway.store import keys
from gateway.store.clock import StoreClock
from gateway.store.schedules import ScheduleStore
from gateway.store.timers import TimerStore

TRIES = 50
SCHEDULE_BYTES = 64 * 1024
"""Largest definition: lists show them whole."""


class Schedules:
    """Schedules of all tenants, as callers may see them."""

    def __init__(self, store: ScheduleStore, timers: TimerStore, runs: Runs, agents: Agents, clock: StoreClock) -> None:
        self._store = store
        self._timers = timers
        self._runs = runs
        self._agents = agents
        self._clock = clock

    @audits("put_schedule")
    async def put(self, caller: Caller, schedule_id: str, definition: ScheduleDefinition) -> tuple[Schedule, bool]:
        """Make a schedule, or change it; the same definition again changes nothing.

        A tick that is due already stays due, unless the times change or the schedule is paused.

        Returns:
            The schedule as it now is, and whether this made it.

        Raises:
            Forbidden: the caller may not create runs of this agent, or of the one that the schedule has had.
            InvalidBody: the expression, the time zone or the preset cannot be.
            TooLarge: the definition is over its bound.
        """
        access.require_creation(caller.grant, definition.agent_id, None)
        size = len(msgspec.json.encode(definition))
        if size > SCHEDULE_BYTES:
            raise TooLarge(
                f"The schedule has {size} bytes; at most {SCHEDULE_BYTES} are allowed.", limit_bytes=SCHEDULE_BYTES
            )
        timetable = definition.timetable()
        check_preset(await self._agents.find(caller.tenant, definition.agent_id), definition.preset)
        for _ in range(TRIES):
            known = await self._store.get(caller.tenant, schedule_id)
            if known is not None:
                access.require_creation(caller.grant, known.definition.agent_id, None)
                stands_still = definition.enabled and known.next_ms is None
                if _same(known.definition, definition) and not stands_still:
                    return known, False
            now_ms = self._clock.now_ms()
            next_ms = timetable.next_after_ms(now_ms) if definition.enabled else None
            put = await self._put(_changed(known, caller.tenant, schedule_id, definition, next_ms, now_ms), known)
            if put is not None:
                return put, known is None
        raise Contended("The schedule changes too fast; try again.", schedule_id=schedule_id)

    async def _put(self, schedule: Schedule, known: Schedule | None) -> Schedule | None:
        member = keys.schedule_timer(schedule.tenant, schedule.id)
        look_ms = schedule.look_ms(self._clock.now_ms())
        if look_ms is not None:
            # Before the change, so that a crash after it leaves somebody to look.
            await self._timers.arm(member, look_ms)
        put = await self._store.put(schedule, known)
        if look_ms is not None:
            # And after it: somebody may have looked between, found nothing due, and put the timer away.
            await self._timers.arm(member, look_ms)
        return put

    async def get(self, grant: Grant, schedule_id: str) -> Schedule:
        """Return a schedule.

        Raises:
            NotFound: there is none, or none for this caller.
        """
        access.require_tenant_wide(grant)
        found = await self._store.get(grant.tenant, schedule_id)
        if found is None or not _reaches(grant, found):
            raise NotFound(f"There is no schedule {schedule_id[:128]}.", schedule_id=schedule_id[:128])
        return found

    async def page(self, grant: Grant, after_id: str | None, limit: int) -> tuple[Sequence[Schedule], str | None]:
        """Return the schedules within reach, by id, and after which id the next page begins; None at the end."""
        access.require_tenant_wide(grant)
        found, next_after = await self._store.page(grant.tenant, after_id, limit)
        return [schedule for schedule in found if _reaches(grant, schedule)], next_after

    @audits("remove_schedule")
    async def remove(self, caller: Caller, schedule_id: str) -> None:
        """Remove a schedule; the runs that it created stay.

        Raises:
            NotFound: there is none, or none for this caller.
        """
        await self.get(caller.grant, schedule_id)
        if not await self._store.remove(caller.tenant, schedule_id):
            raise NotFound(f"There is no schedule {schedule_id}.", schedule_id=schedule_id)

    @audits("trigger_schedule")
    async def trigger(self, caller: Caller, schedule_id: str) -> Run:
        """Create a run of a schedule now, whether it is paused or not, and whatever became of its last run."""
        schedule = await self.get(caller.grant, schedule_id)
        asked = {"schedule_id": schedule_id}
        run = await self._runs.create(caller, new_run(schedule), action="trigger", asked=asked)

        def note(now: Schedule) -> Schedule | None:
            # Ids grow with time; a repeat of an earlier request is no news.
            return None if run.id <= (now.last_run_id or "") else replace(now, last_run_id=run.id)

        await change_schedule(self._store, schedule, note)
        return run


def new_run(schedule: Schedule, tick_ms: int | None = None) -> NewRun:
    """Return the run that a schedule creates; `tick_ms` is None where it is created by hand."""
    definition = schedule.definition
    return NewRun(
        agent_id=definition.agent_id,
        mode=QUEUED,
        input=definition.input,
        title=definition.title,
        tags=definition.tags,
        metadata=definition.metadata,
        trigger="manual" if tick_ms is None else "cron",
        schedule_id=schedule.id,
        tick_ms=tick_ms,
        priority=definition.priority,
        concurrency_key=definition.concurrency_key,
        overrides=Overrides(queue=definition.queue),
        preset=definition.preset,
    )


async def change_schedule(
    store: ScheduleStore, schedule: Schedule, change: Callable[[Schedule], Schedule | None]
) -> Schedule | None:
    """Change a schedule, again where somebody else changes it; None when there is nothing (left) to change."""
    for _ in range(TRIES):
        wanted = change(schedule)
        if wanted is None:
            return None
        changed = await store.put(wanted, schedule)
        if changed is not None:
            return changed
        found = await store.get(schedule.tenant, schedule.id)
        if found is None:
            return None
        schedule = found
    raise Contended("The schedule changes too fast; try again.", schedule_id=schedule.id)


def _same(one: ScheduleDefinition, other: ScheduleDefinition) -> bool:
    # As JSON: in Python 1 equals True.
    return msgspec.json.encode(one, order="deterministic") == msgspec.json.encode(other, order="deterministic")


def _changed(
    known: Schedule | None,
    tenant: str,
    schedule_id: str,
    definition: ScheduleDefinition,
    next_ms: int | None,
    now_ms: int,
) -> Schedule:
    if known is None:
        return Schedule(
            tenant=tenant,
            id=schedule_id,
            definition=definition,
            created_ms=now_ms,
            updated_ms=now_ms,
            next_ms=next_ms,
        )
    before = known.definition
    same_times = (before.cron, before.timezone, before.enabled) == (
        definition.cron,
        definition.timezone,
        definition.enabled,
    )
    # A tick that is due and was not fired yet is not put off by another title.
    kept_ms = known.next_ms if same_times and known.next_ms is not None else next_ms
    return replace(known, definition=definition, updated_ms=now_ms, next_ms=kept_ms, last_error=None)


def _reaches(grant: Grant, schedule: Schedule) -> bool:
    return grant.agents is None or schedule.definition.agent_id in grant.agents
