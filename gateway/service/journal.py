"""How a run changes: read it, decide, put the events through the door, bring the indexes after it.

Order is what makes a crash harmless. Before the door: the timer that the new state needs, and a note that the run's
status is changing. After it: the status indexes and the feed. A crash between leaves a timer that looks and finds
nothing, or a note that the reconciler finishes.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import msgspec
from msgspec.structs import replace

from gateway.domain.appends import FAST_STATUSES
from gateway.domain.draft import Draft
from gateway.domain.due import next_look_ms, waits_for_others
from gateway.domain.events import NewEvent, encode_rests
from gateway.domain.hooks import FixedHook
from gateway.domain.lifecycle import LIVE
from gateway.domain.run import Run, RunSpec
from gateway.errors import Contended, GatewayError, IllegalTransition, StoreUnavailable
from gateway.service import effects
from gateway.service.aftermath import Aftermath
from gateway.service.hook_bell import HookBell
from gateway.service.tally import count_change, count_status, measure_append
from gateway.store.clock import StoreClock
from gateway.store.hooks import hook_fields
from gateway.store.indexes import IndexStore
from gateway.store.queue import QueueStore
from gateway.store.runs import (
    Appended,
    Dedupe,
    Guard,
    RevisionMoved,
    RunExists,
    RunStore,
    TooEarly,
    Write,
    record_changes,
)
from gateway.store.timers import TimerStore

logger = logging.getLogger(__name__)

T = TypeVar("T")

TRIES = 50
ARMED_LATE_MS = 5_000
"""A new run's first look when its creator dies before it can have it looked at."""


class Retention(msgspec.Struct, frozen=True):
    """How long an ended run keeps its log, and its record, in ms after its end."""

    log_ms: int
    record_ms: int


class Outcome(msgspec.Struct, Generic[T], frozen=True):
    """What a change led to: the run after it, the door's answer (None when nothing was written), the decision's."""

    run: Run
    appended: Appended | None
    result: T | None = None


class Journal:
    """The way from a decision to a changed run."""

    def __init__(
        self,
        runs: RunStore,
        indexes: IndexStore,
        timers: TimerStore,
        queues: QueueStore,
        clock: StoreClock,
        retention: Retention,
    ) -> None:
        self._runs = runs
        self._queues = queues
        self._indexes = indexes
        self._timers = timers
        self._retention = retention
        self._bell = HookBell(timers, clock)
        self.aftermath = Aftermath(indexes, timers, queues, self._bell, clock)
        self.clock = clock

    def next_look_ms(self, run: Run, *, listening_since_ms: int = 0) -> int | None:
        """Return when time next asks something of the run."""
        return next_look_ms(
            run,
            log_retention_ms=self._retention.log_ms,
            record_retention_ms=self._retention.record_ms,
            listening_since_ms=listening_since_ms,
        )

    async def create(self, spec: RunSpec, draft: Draft, change_id: str, hooks: Sequence[FixedHook] = ()) -> Run:
        """Write a reserved run's first events; whoever repeats it gets the run that is there.

        Args:
            change_id: Of the reservation, which noted the change.
        """
        fields = hook_fields(hooks)
        new = Run(
            spec=spec,
            state=draft.state,
            rev=0,
            head_seq=0,
            head_tag=0,
            first_seq=1,
            updated_ms=draft.at_ms,
            hooked=str(fields.get("hooked", "")),
            marks={},
        )
        await self._arm(None, new)
        if waits_for_others(new):
            await self._timers.arm(spec.id, draft.at_ms + ARMED_LATE_MS)
        if spec.is_queued:
            await self._queues.register(spec.tenant, spec.queue)
        write = self._write(new, draft, Guard(tenant=spec.tenant), Dedupe())
        write = replace(write, changes=record_changes(spec, draft.state, new=True) | fields)
        try:
            appended = await self._put(spec.id, write)
        except RunExists:
            run = await self._runs.load(spec.id, spec.tenant)
        else:
            run = _after(new, draft, appended)
            count_status(run)
        if waits_for_others(run):
            # They may have ended before anybody could know that this run waits for them.
            await self._look_soon(run.id, draft.at_ms)
        await self.aftermath.finish(run, change_id, {event.type for event in draft.events})
        return run

    async def change(
        self,
        run_id: str,
        tenant: str,
        decide: Callable[[Run, Draft], T],
        *,
        admit: Callable[[Run], None] = lambda _run: None,
        dedupe: Dedupe | None = None,
        guard: Guard | None = None,
        own_index: Callable[[T], int] = lambda _result: 0,
        by_holder: bool = False,
    ) -> Outcome[T]:
        """Change a run: `decide` reads it and fills a draft, again if the run changed meanwhile.

        Args:
            admit: Refuses whoever must not even learn that the change was made before.
            dedupe: How the change is recognised when it comes again; it is then answered as the first time.
            guard: What else must hold: expected seq, attempt, lease.

        Raises:
            GatewayError: the decision's or the door's refusal; nothing was written.
            StoreUnavailable: with `outcome`.
        """
        dedupe = dedupe or Dedupe()
        for attempt in range(TRIES):
            run = await self._runs.load(run_id, tenant)
            admit(run)
            # Never before the last event: another process's clock may be a little ahead of this one's.
            draft = Draft.of(run, max(self.clock.now_ms(), run.updated_ms), jitter=random.random())
            try:
                result = decide(run, draft)
            except GatewayError:
                repeated = await self._find_repeat(run, dedupe, guard, by_holder=by_holder)
                if repeated is not None:
                    return Outcome(run, repeated)
                raise
            if not draft.events:
                return Outcome(run, await self._find_repeat(run, dedupe, guard), result)
            try:
                return await self._commit(run, draft, dedupe, guard, result, own_index(result), by_holder)
            except (RevisionMoved, TooEarly):
                await asyncio.sleep(0.001 * attempt)
        raise Contended("The run changes too fast; try again.", run_id=run_id)

    async def _commit(
        self,
        run: Run,
        draft: Draft,
        dedupe: Dedupe,
        guard: Guard | None,
        result: T,
        own_index: int,
        by_holder: bool,
    ) -> Outcome[T]:
        tenant, moves = run.spec.tenant, _moves(run, draft)
        change_id = ""
        if moves:
            change_id, _ = await asyncio.gather(
                self._indexes.begin_change(tenant, run.id, draft.at_ms), self._arm(run, _after(run, draft, None))
            )
        else:
            await self._arm(run, _after(run, draft, None))
        guard = guard or Guard(tenant=tenant)
        guard = replace(guard, statuses=frozenset({run.status}), rev=run.rev)
        write = self._write(run, draft, guard, dedupe, own_index=own_index, by_holder=by_holder)
        try:
            changes = record_changes(run.spec, draft.state, lease=draft.lease)
            appended = await self._put(run.id, replace(write, changes=changes, forget_writers=draft.forget_writers))
        except StoreUnavailable:
            # Perhaps it was written: the note stays, and the reconciler looks.
            raise
        except Exception:
            if moves:
                await self._indexes.abandon_change(tenant, run.id, change_id)
            raise
        types = {event.type for event in draft.events}
        if appended.duplicate:
            await self._bell.ring_late(run.id, run.hooked, types)
            if moves:
                await self._indexes.abandon_change(tenant, run.id, change_id)
            return Outcome(await self._runs.load(run.id, tenant), appended, result)
        after = _after(run, draft, appended)
        count_change(run, after, draft.events)
        # Once more: before the write somebody may have looked, found nothing due, and put the timer away.
        follow_up = (
            self.aftermath.finish(after, change_id, types) if moves else self._bell.ring_late(run.id, run.hooked, types)
        )
        await asyncio.gather(self._arm_again(run, after), follow_up)
        return Outcome(after, appended, result)

    async def append_plain(
        self,
        run_id: str,
        events: Sequence[NewEvent],
        guard: Guard,
        dedupe: Dedupe,
    ) -> Appended:
        """Append events that change no state, in one round trip; the run must be held.

        Raises:
            IllegalTransition: it is not held; `facts["current_status"]` says where it stands.
        """
        is_output = effects.says_something(events)
        guard = Guard(guard.tenant, FAST_STATUSES, True, None, guard.expected_seq, guard.attempt, guard.lease)
        if not dedupe.idempotency and effects.are_none(events):

            def put(at_ms: int, encoded: Sequence[bytes]) -> Awaitable[Appended]:
                return self._runs.append_plain(run_id, guard, dedupe, encoded, at_ms=at_ms, is_output=is_output)

        else:
            write = Write(
                guard=guard,
                events=(),
                at_ms=0,
                dedupe=dedupe,
                increments=effects.increments(events),
                marks=effects.plain_marks(events),
                notes=effects.notes(events),
                by_holder=True,
                is_output=is_output,
            )

            def put(at_ms: int, encoded: Sequence[bytes]) -> Awaitable[Appended]:
                return self._runs.write(run_id, replace(write, at_ms=at_ms, events=encoded))

        appended = await self._put_in_time(run_id, events, put)
        if appended.hooked:
            # A repeat too: the first time may have been cut here.
            await self._bell.ring_late(run_id, appended.hooked, (event.type for event in events))
        return appended

    async def beat(self, run_id: str, guard: Guard, dedupe: Dedupe) -> Appended:
        """Note that whoever executes a run is alive, in one round trip; the run must not have ended.

        Raises:
            IllegalTransition: it has.
        """
        guard = replace(guard, statuses=LIVE)
        write = Write(guard=guard, events=(), at_ms=self.clock.now_ms(), dedupe=dedupe, by_holder=True)
        return await self._put(run_id, write)

    async def _put_in_time(
        self, run_id: str, events: Sequence[NewEvent], put: Callable[[int, Sequence[bytes]], Awaitable[Appended]]
    ) -> Appended:
        at_ms = self.clock.now_ms()
        for _ in range(TRIES):
            encoded = encode_rests(events, run_id, at_ms)
            try:
                return await measure_append(run_id, put(at_ms, encoded), len(events))
            except TooEarly as error:
                at_ms = max(self.clock.now_ms(), error.updated_ms)
        raise Contended("The run changes too fast; try again.", run_id=run_id)

    async def _put(self, run_id: str, write: Write) -> Appended:
        return await measure_append(run_id, self._runs.write(run_id, write), len(write.events))

    def _write(
        self,
        run: Run,
        draft: Draft,
        guard: Guard,
        dedupe: Dedupe,
        *,
        own_index: int = 0,
        by_holder: bool = False,
    ) -> Write:
        return Write(
            guard=guard,
            events=encode_rests(draft.events, run.id, draft.at_ms),
            at_ms=draft.at_ms,
            dedupe=dedupe,
            increments=effects.increments(draft.events),
            marks=dict(draft.marks),
            notes=effects.notes(draft.events),
            by_holder=by_holder,
            own_index=own_index,
            is_output=effects.says_something(draft.events),
        )

    async def _find_repeat(
        self, run: Run, dedupe: Dedupe, guard: Guard | None, *, by_holder: bool = False
    ) -> Appended | None:
        """Return the first answer to a change that comes again; None when it did not come before.

        Raises:
            Fenced: it comes from a holder who holds the run no more; that says more than what it was refused for.
        """
        if not dedupe.writer and not dedupe.idempotency and not (by_holder and run.spec.is_queued):
            return None
        guard = guard or Guard(tenant=run.spec.tenant)
        probe = replace(guard, statuses=frozenset(), rev=None, expected_seq=None)
        write = Write(guard=probe, events=(), at_ms=self.clock.now_ms(), dedupe=dedupe, by_holder=by_holder)
        try:
            return await self._put(run.id, write)
        except IllegalTransition:
            return None

    async def _arm(self, before: Run | None, after: Run) -> None:
        due_ms = self.next_look_ms(after)
        known_ms = None if before is None else self.next_look_ms(before)
        if due_ms is not None and (known_ms is None or due_ms < known_ms):
            await self._timers.arm(after.id, due_ms)

    async def _arm_again(self, before: Run | None, after: Run) -> None:
        try:
            await self._arm(before, after)
        except StoreUnavailable:
            # It was armed before the write; only a look in between could have put it away.
            logger.warning("timer of run %s was not armed again", after.id)

    async def _look_soon(self, run_id: str, now_ms: int) -> None:
        try:
            await self._timers.arm(run_id, now_ms)
        except StoreUnavailable:
            # The run is there, and must not be told as not written: it is looked at a little later.
            logger.warning("run %s is looked at later", run_id)


def _moves(run: Run, draft: Draft) -> bool:
    before, after = run.state, draft.state
    return (before.status, before.leased, bool(before.open)) != (after.status, after.leased, bool(after.open))


def _after(run: Run, draft: Draft, appended: Appended | None) -> Run:
    head_seq = run.head_seq + len(draft.events) if appended is None else appended.last_seq
    first = head_seq - len(draft.events) + 1
    return replace(
        run,
        state=draft.state,
        rev=run.rev + 1 if appended is None else appended.rev,
        head_seq=head_seq,
        head_tag=run.head_tag if appended is None else appended.head_tag,
        updated_ms=max(run.updated_ms, draft.at_ms),
        log_expired=run.log_expired and draft.state.terminal,
        marks={**run.marks, **{mark: first + index for mark, index in draft.marks}},
    )
