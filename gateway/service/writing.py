"""Appending to a run's log on behalf of whoever executes it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from ulid import ULID

from gateway.domain import appends
from gateway.domain.draft import Draft
from gateway.domain.events import NewEvent, check, check_appendable, fingerprint
from gateway.domain.run import Run
from gateway.errors import GatewayError, IllegalTransition, InvalidBody, TooLarge
from gateway.service.actors import Caller, is_bounded, require_run
from gateway.service.journal import Journal
from gateway.store.keys import digest
from gateway.store.runs import Appended, Dedupe, Guard, RunStore


class Batch(msgspec.Struct, frozen=True):
    """One append: events that are stored together or not at all.

    `number` is the writer's count of appends, from 1; for a streamed append each event counts one.
    """

    events: Sequence[NewEvent]
    writer: str | None = None
    number: int | None = None
    last_number: int | None = None
    expected_seq: int | None = None
    attempt: int | None = None
    lease: str | None = None


class Pending(msgspec.Struct, frozen=True):
    """Something the run's holder has not seen yet: `cancel`, `pause` or `input`, and the event that says it."""

    type: str
    seq: int


class Written(msgspec.Struct, frozen=True):
    """The answer to an append; seqs are those of the caller's own events, 0 when it appended none."""

    first_seq: int
    last_seq: int
    status: str
    attempt: int
    pending: list[Pending]
    duplicate: bool
    request_ids: list[str]


class Writing:
    """Appends: straight through the door where no state changes, by decision where it does."""

    def __init__(
        self, journal: Journal, runs: RunStore, *, event_bytes: int, batch_events: int, idempotency_ms: int
    ) -> None:
        self._journal = journal
        self._runs = runs
        self._event_bytes = event_bytes
        self._batch_events = batch_events
        self._idempotency_ms = idempotency_ms

    async def append(self, caller: Caller, run_id: str, batch: Batch) -> Written:
        """Append a batch.

        Raises:
            InvalidBody, TooLarge: an event is not fit for the log; `facts["index"]` says which.
            IllegalTransition, Fenced, SeqConflict, WriterGap, WriterStale: the run or its log says no.
            IdempotencyMismatch: the number or key was used before, with other events.
            StoreUnavailable: with `outcome`; safe to repeat under the same number or key.
        """
        events = self._check(batch.events)
        dedupe = self._dedupe(caller, batch, events)
        guard = Guard(
            tenant=caller.tenant,
            expected_seq=batch.expected_seq,
            attempt=batch.attempt,
            lease=batch.lease or "",
        )
        if is_bounded(caller.grant):
            require_run(caller.grant, await self._runs.load(run_id, caller.tenant))
        if not events:
            return _written(await self._journal.beat(run_id, guard, dedupe), [], 0)
        if not appends.changes_state(events):
            try:
                return _written(await self._journal.append_plain(run_id, events, guard, dedupe), [], len(events))
            except IllegalTransition:
                # Not held: perhaps this append is the one that starts it. Else the decision below says why not.
                pass
        return await self._append_by_decision(caller, run_id, events, guard, dedupe)

    async def _append_by_decision(
        self, caller: Caller, run_id: str, events: Sequence[NewEvent], guard: Guard, dedupe: Dedupe
    ) -> Written:
        request_ids = _request_ids(run_id, dedupe, len(events))
        asked: list[str] = []

        def decide(run: Run, draft: Draft) -> int:
            own_index = appends.append(run, draft, events, caller.actor, request_ids)
            asked[:] = draft.request_ids
            return own_index

        outcome = await self._journal.change(
            run_id, caller.tenant, decide, dedupe=dedupe, guard=guard, own_index=lambda index: index, by_holder=True
        )
        assert outcome.appended is not None, "an append with events writes them, or is a repeat"
        if outcome.appended.duplicate:
            asked = _asked_before(events, request_ids)
        return _written(outcome.appended, asked, len(events))

    async def writer_position(
        self, caller: Caller, run_id: str, writer: str, *, attempt: int | None, any_attempt: bool = False
    ) -> int:
        """Return the number of a writer's last append to an attempt, 0 when it made none.

        Args:
            attempt: None for the run's present one.
            any_attempt: Whichever attempt it was made to.
        """
        run = require_run(caller.grant, await self._runs.load(run_id, caller.tenant))
        written, number = await self._runs.writer_position(run_id, writer)
        return number if any_attempt or written == (attempt or run.state.attempt) else 0

    def _check(self, events: Sequence[NewEvent]) -> list[NewEvent]:
        if len(events) > self._batch_events:
            most = self._batch_events
            raise TooLarge(f"{len(events)} events; a batch has at most {most}.", limit_events=most)
        checked = []
        for index, event in enumerate(events):
            try:
                checked.append(self._check_one(event))
            except GatewayError as error:
                raise appends.place(error, index) from None
        return checked

    def _check_one(self, event: NewEvent) -> NewEvent:
        check_appendable(event)
        checked = check(event)
        size, most = len(checked.data_json), self._event_bytes
        if size > most:
            raise TooLarge(f"data has {size} bytes; an event has at most {most}.", limit_bytes=most)
        return checked

    def _dedupe(self, caller: Caller, batch: Batch, events: Sequence[NewEvent]) -> Dedupe:
        if (batch.writer is None) != (batch.number is None):
            raise InvalidBody("Give writer and writer_seq together.", path="$.writer_seq")
        if batch.writer is None and caller.idempotency_key is None:
            return Dedupe()
        key = caller.idempotency_key
        return Dedupe(
            fingerprint=fingerprint(events),
            writer=batch.writer or "",
            first_number=batch.number or 0,
            last_number=batch.last_number or batch.number or 0,
            idempotency="" if key is None else digest("append", key),
            lifetime_ms=self._idempotency_ms,
        )


def _request_ids(run_id: str, dedupe: Dedupe, count: int) -> list[str]:
    """Return an id for each event in case it asks without one; the same again when the append is repeated."""
    if not dedupe.writer and not dedupe.idempotency:
        return [str(ULID()) for _ in range(count)]
    origin = (run_id, dedupe.writer, str(dedupe.first_number), dedupe.idempotency)
    return [f"q_{digest(*origin, str(index))[:20]}" for index in range(count)]


def _asked_before(events: Sequence[NewEvent], request_ids: Sequence[str]) -> list[str]:
    return [
        event.data.get("request_id") or request_id
        for event, request_id in zip(events, request_ids, strict=True)
        if event.type == "run.waiting_for_input"
    ]


def pending_of(appended: Appended) -> list[Pending]:
    """Return what the holder of a run has not seen, as the door told it."""
    seqs = (("cancel", appended.cancel_seq), ("pause", appended.pause_seq), ("input", appended.input_seq))
    return [Pending(kind, seq) for kind, seq in seqs if seq]


def _written(appended: Appended, request_ids: list[str], count: int) -> Written:
    return Written(
        first_seq=appended.first_seq if count else 0,
        last_seq=appended.last_seq,
        status=str(appended.status),
        attempt=appended.attempt,
        pending=pending_of(appended),
        duplicate=appended.duplicate,
        request_ids=request_ids,
    )
