"""Time's hand: looks at runs that are due, and finishes what a crash left half done. Any process may."""

from __future__ import annotations

import asyncio
import logging

from ulid import ULID

from gateway import telemetry
from gateway.domain import due
from gateway.domain.draft import Draft
from gateway.domain.due import Verdict
from gateway.domain.run import Run
from gateway.errors import GatewayError, StoreUnavailable
from gateway.service.journal import Journal
from gateway.service.runs import Runs
from gateway.store.indexes import IndexStore
from gateway.store.runs import RevisionMoved, RunStore
from gateway.store.timers import Taken, TimerStore

logger = logging.getLogger(__name__)

POLL_S = 0.25
HIDE_MS = 15_000
TAKE_MOST = 100
STUCK_MS = 5_000
ABANDONED_MS = 60_000
LOOK_AGAIN_MS = 500
RECONCILE_S = 2.0


class Timers:
    """Takes due timers and acts on their runs; firing one twice is harmless."""

    def __init__(self, journal: Journal, runs: Runs, store: RunStore, timers: TimerStore, indexes: IndexStore) -> None:
        self._journal = journal
        self._runs = runs
        self._store = store
        self._timers = timers
        self._indexes = indexes
        self._listening_since_ms: int | None = None

    async def run(self) -> None:
        """Fire timers and reconcile; for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._fire())
            tasks.create_task(self._reconcile())

    async def _fire(self) -> None:
        while True:
            pause_s = POLL_S
            try:
                taken = await self._timers.take(most=TAKE_MOST, hide_ms=HIDE_MS)
                oldest = min((t.oldest_due_ms for t in taken if t.oldest_due_ms is not None), default=None)
                now_ms = taken[0].now_ms
                if self._listening_since_ms is None:
                    self._listening_since_ms = now_ms
                telemetry.TIMERS_LAG_SECONDS.set(0 if oldest is None else (now_ms - oldest) / 1000)
                await asyncio.gather(*(self._look(t, run_id) for t in taken for run_id in t.run_ids))
                due = [t.next_due_ms - now_ms for t in taken if t.next_due_ms is not None]
                pause_s = min([POLL_S, *(max(ms, 1) / 1000 for ms in due)])
            except StoreUnavailable:
                self._listening_since_ms = None
            await asyncio.sleep(pause_s)

    def _fall_due(self, run: Run, draft: Draft, dependencies: Verdict) -> None:
        since_ms = draft.at_ms if self._listening_since_ms is None else self._listening_since_ms
        due.fall_due(run, draft, listening_since_ms=since_ms, dependencies=dependencies)

    async def _judge(self, run: Run) -> Verdict:
        """Return what the runs that this one waits for say; one that is gone cannot satisfy it any more."""
        if not due.waits_for_others(run):
            return Verdict.MET
        needed = await self._store.load_many([need.run_id for need in run.spec.depends_on])
        pairs = zip(run.spec.depends_on, needed, strict=True)
        return due.judge_all(Verdict.UNSATISFIABLE if n is None else due.judge(need, n.status) for need, n in pairs)

    async def _look(self, taken: Taken, run_id: str) -> None:
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
        due_ms = None if run is None else self._journal.next_look_ms(run)
        if due_ms is not None and (settled_ms is None or due_ms < settled_ms):
            await self._timers.arm(run_id, due_ms)

    async def _act(self, run: Run) -> int | None:
        """Do what is due and return when to look again."""
        run_id = run.id
        now_ms = self._journal.clock.now_ms()
        due_ms = self._journal.next_look_ms(run)
        if not due.waits_for_others(run) and (due_ms is None or due_ms > now_ms):
            return due_ms
        telemetry.TIMERS_FIRED.labels(str(run.status)).inc()
        if not run.state.terminal:
            dependencies = await self._judge(run)
            outcome = await self._journal.change(
                run_id, run.spec.tenant, lambda run, draft: self._fall_due(run, draft, dependencies)
            )
            due_ms = self._journal.next_look_ms(outcome.run)
            # Due, and yet nothing done: its writer may have been silent because nobody could hear it.
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
                before_ms = self._journal.clock.now_ms() - STUCK_MS
                for tenant in await self._indexes.tenants():
                    await self.finish_changes(tenant, before_ms=before_ms)
            except StoreUnavailable:
                pass
            except Exception:
                logger.exception("reconciling")

    async def finish_changes(self, tenant: str, *, before_ms: int) -> None:
        """Bring queues and indexes to what the records of changes say that were begun before, and never finished."""
        now_ms = self._journal.clock.now_ms()
        for note in await self._indexes.stuck_changes(tenant, before_ms):
            run = await self._store.load_any(note.run_id)
            if run is not None:
                await self._journal.reindex(run, note.change_id)
            elif note.begun_ms < now_ms - ABANDONED_MS:
                # Never created, or removed by somebody who did not get to its files and the indexes.
                await self._runs.forget(tenant, note.run_id, note.change_id)


def _made_ms(run_id: str) -> int:
    return ULID.from_str(run_id).milliseconds
