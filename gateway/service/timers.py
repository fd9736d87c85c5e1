"""Time's hand: looks at what is due, and finishes what a crash left half done. Any process may."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from ulid import ULID

from gateway import telemetry
from gateway.domain import due
from gateway.domain.draft import Draft
from gateway.domain.due import Statuses
from gateway.domain.run import Run
from gateway.errors import GatewayError, StoreUnavailable
from gateway.service.journal import Journal
from gateway.service.runs import Runs
from gateway.store.indexes import IndexStore
from gateway.store.runs import RevisionMoved, RunStore
from gateway.store.timers import ALL_PARTITIONS, Taken, TimerStore

logger = logging.getLogger(__name__)
timers_log = logging.getLogger("gateway.timers")

POLL_S = 0.25
HIDE_MS = 15_000
TAKE_MOST = 100
STUCK_MS = 5_000
ABANDONED_MS = 60_000
LOOK_AGAIN_MS = 500
RECONCILE_S = 2.0
TURN_MS = 5_000

RUN = "run"
"""The kind of a timer whose member is a run's id alone."""


class Looker(Protocol):
    """Looks after timers of one kind; a look that comes twice, or twice at once, must do no harm."""

    async def look(self, name: str) -> int | None:
        """Do what is due of `name` and return when to look again, in Unix ms; None for never."""
        ...

    async def next_look_ms(self, name: str) -> int | None:
        """Return when to look at `name` as it is now, in Unix ms; None for never."""
        ...


class Timers:
    """Takes due timers and acts on their runs, or hands them to the looker of their kind; firing twice is harmless."""

    def __init__(
        self,
        journal: Journal,
        runs: Runs,
        store: RunStore,
        timers: TimerStore,
        indexes: IndexStore,
        lookers: Mapping[str, Looker],
    ) -> None:
        self._journal = journal
        self._runs = runs
        self._store = store
        self._timers = timers
        self._indexes = indexes
        self._lookers = lookers
        self._process_id = secrets.token_hex(8)
        self._listening_since_ms: int | None = None

    async def run(self) -> None:
        """Fire timers and reconcile; for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._fire(tasks))
            tasks.create_task(self._reconcile())

    async def _fire(self, looks: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        round_at_s, rung = loop.time(), ALL_PARTITIONS
        while True:
            partitions = rung
            if not rung or loop.time() >= round_at_s:
                partitions, round_at_s = ALL_PARTITIONS, loop.time() + POLL_S
            try:
                taken = await self._timers.take(most=TAKE_MOST, hide_ms=HIDE_MS, partitions=partitions)
                if len(taken) < len(partitions):
                    # Whoever executes runs may not be heard either; that time is not held against anybody.
                    self._listening_since_ms = None
                elif partitions == ALL_PARTITIONS and self._listening_since_ms is None:
                    self._listening_since_ms = taken[0].now_ms
                if partitions == ALL_PARTITIONS:
                    self._measure_lag(taken)
                await self._look_after(taken, looks)
                left_ms = [t.next_due_ms - t.now_ms for t in taken if t.next_due_ms is not None]
                round_at_s = min([round_at_s, *(loop.time() + max(ms, 1) / 1000 for ms in left_ms)])
            except StoreUnavailable:
                self._listening_since_ms = None
            rung = await self._timers.wait_rung(round_at_s - loop.time())

    def _measure_lag(self, taken: Sequence[Taken]) -> None:
        lags_ms = dict.fromkeys((RUN, *self._lookers), 0)
        for part in taken:
            for timer in part.timers:
                kind, _name = _kind_of(timer.member)
                lags_ms[kind] = max(lags_ms.get(kind, 0), part.now_ms - timer.due_ms)
        for kind in (RUN, *self._lookers):
            telemetry.TIMERS_LAG_SECONDS.labels(kind).set(lags_ms[kind] / 1000)

    async def _look_after(self, taken: Sequence[Taken], looks: asyncio.TaskGroup) -> None:
        """Look at the runs that are due; what is no run may take its time, and nothing waits for it."""
        runs = []
        for part in taken:
            for timer in part.timers:
                kind, name = _kind_of(timer.member)
                if kind == RUN:
                    runs.append(self._look(part, name))
                elif kind in self._lookers:
                    looks.create_task(self._hand_over(self._lookers[kind], part, timer.member, name))
        await asyncio.gather(*runs)

    async def _hand_over(self, looker: Looker, taken: Taken, member: str, name: str) -> None:
        try:
            due_ms = await looker.look(name)
            settled = await self._timers.settle(member, taken.hidden_until_ms, due_ms)
            # While a timer is hidden, later times do not enter it; and whoever took it meanwhile settled for its own.
            changed_ms = await looker.next_look_ms(name)
            if changed_ms is not None and (not settled or due_ms is None or changed_ms < due_ms):
                await self._timers.arm(member, changed_ms)
        except StoreUnavailable:
            pass
        except Exception:
            logger.exception("timer %s", member)

    def _fall_due(self, run: Run, draft: Draft, needed: Statuses) -> None:
        due.fall_due(run, draft, listening_since_ms=self._heard_since_ms(), needed=needed)

    def _heard_since_ms(self) -> int:
        return self._journal.clock.now_ms() if self._listening_since_ms is None else self._listening_since_ms

    def _next_look_ms(self, run: Run) -> int | None:
        return self._journal.next_look_ms(run, listening_since_ms=self._heard_since_ms())

    async def _look(self, taken: Taken, run_id: str) -> None:
        telemetry.name_run(run_id)
        try:
            run = await self._store.load_any(run_id)
            if run is None and taken.now_ms - _made_ms(run_id) < ABANDONED_MS:
                # Armed before the run is written: the timer stays hidden and shows again.
                return
            due_ms = None if run is None else await self._act(run)
            await self._timers.settle(run_id, taken.hidden_until_ms, due_ms)
            await self._catch_change(run_id, due_ms)
        except StoreUnavailable:
            pass
        except (GatewayError, RevisionMoved) as error:
            # The run moved on meanwhile; the timer shows again.
            logger.info("timer of run %s: %r", run_id, error)
        except Exception:
            logger.exception("timer of run %s", run_id)

    async def _catch_change(self, run_id: str, settled_ms: int | None) -> None:
        """Arm what a change meanwhile needs: while a timer is hidden, later times do not enter it."""
        run = await self._store.load_any(run_id)
        due_ms = None if run is None else self._next_look_ms(run)
        if due_ms is not None and (settled_ms is None or due_ms < settled_ms):
            await self._timers.arm(run_id, due_ms)

    async def _act(self, run: Run) -> int | None:
        """Do what is due and return when to look again."""
        run_id = run.id
        telemetry.name_run(run_id, run.spec.trace_id)
        now_ms = self._journal.clock.now_ms()
        due_ms = self._next_look_ms(run)
        if not due.waits_for_others(run) and (due_ms is None or due_ms > now_ms):
            return due_ms
        telemetry.TIMERS_FIRED.labels(str(run.status)).inc()
        if not run.state.terminal:
            needed = await self._runs.needed(run) if due.waits_for_others(run) else due.NOT_LOOKED
            outcome = await self._journal.change(
                run_id, run.spec.tenant, lambda run, draft: self._fall_due(run, draft, needed)
            )
            due_ms = self._next_look_ms(outcome.run)
            if outcome.appended is not None:
                facts = {"was": str(run.status), "status": str(outcome.run.status), "seq": outcome.run.head_seq}
                timers_log.info("time changed a run", extra={**facts, "tenant": run.spec.tenant})
            # Due, and yet nothing done: somebody changed it meanwhile.
            return due_ms if outcome.appended or due_ms is None else max(due_ms, now_ms + LOOK_AGAIN_MS)
        if run.log_expired:
            await self._runs.remove(run)
            return None
        await self._store.trim(run, None)
        expired = await self._store.load_any(run_id)
        return None if expired is None else self._journal.next_look_ms(expired)

    async def _reconcile(self) -> None:
        while True:
            await asyncio.sleep(RECONCILE_S)
            try:
                # One process walks the tenants; when it is gone, another one does.
                if not await self._indexes.take_turn(self._process_id, TURN_MS):
                    continue
                before_ms = self._journal.clock.now_ms() - STUCK_MS
                for tenant in await self._indexes.tenants():
                    # What one node of a cluster has does not wait for another that is away.
                    with suppress(StoreUnavailable):
                        await self.finish_changes(tenant, before_ms=before_ms)
            except StoreUnavailable:
                pass
            except Exception:
                logger.exception("reconciling")

    async def finish_changes(self, tenant: str, *, before_ms: int) -> None:
        """Bring queues and indexes to what the records of changes say that were begun before, and never finished."""
        now_ms = self._journal.clock.now_ms()
        for note in await self._indexes.stuck_changes(tenant, before_ms):
            with suppress(StoreUnavailable):
                run = await self._store.load_any(note.run_id)
                if run is not None:
                    await self._journal.aftermath.reindex(run, note.change_id)
                elif note.begun_ms < now_ms - ABANDONED_MS:
                    # Never created, or removed by somebody who did not get to its files and the indexes.
                    await self._runs.forget(tenant, note.run_id, note.change_id)


def _kind_of(member: str) -> tuple[str, str]:
    kind, colon, name = member.partition(":")
    return (kind, name) if colon else (RUN, member)


def _made_ms(run_id: str) -> int:
    return ULID.from_str(run_id).milliseconds
