"""Lists of runs and the inbox of open questions: an index proposes, the record decides."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from gateway.domain import access
from gateway.domain.access import Grant, reaches
from gateway.domain.containment import Containment, OutOfSteps
from gateway.domain.lifecycle import LIVE, Status
from gateway.domain.run import Question, Run
from gateway.errors import BadRequest
from gateway.service.actors import require_run
from gateway.store import keys
from gateway.store.indexes import IndexStore, Position
from gateway.store.runs import RunStore

CHUNK = 50
FIRST_CHUNK = 16
PAGE_BYTES = 8 * 1024 * 1024
ABANDONED_US = 60_000_000


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs a list shows; an empty filter shows all. Times are Unix µs, bounds exclusive.

    `payload_member`: where set, an input that is no object is compared as one that has it as this member.
    """

    statuses: frozenset[Status] = frozenset()
    agent_id: str | None = None
    thread_id: str | None = None
    tags: dict[str, str] = {}
    metadata: dict[str, str] = {}
    payload: dict[str, Any] | None = None
    payload_member: str | None = None
    trigger: str | None = None
    batch_id: str | None = None
    schedule_id: str | None = None
    parent_run_id: str | None = None
    root_run_id: str | None = None
    created_after_us: int | None = None
    created_before_us: int | None = None


class RunPage(msgspec.Struct, frozen=True):
    """A page of runs, newest first; `next_before` is where the next page begins, None at the end."""

    runs: list[Run]
    next_before: Position | None


class Place(msgspec.Struct, frozen=True):
    """A place in the inbox: after a run, or after one of its questions, told by when it was asked and its id."""

    created_us: int
    run_id: str
    asked: tuple[int, str] | None = None


class OpenQuestion(msgspec.Struct, frozen=True):
    """A question somebody should answer, and its run."""

    run: Run
    question: Question

    @property
    def place(self) -> Place:
        """Where the inbox goes on after it."""
        return Place(self.run.spec.created_us, self.run.id, _asked(self.question))


class QuestionPage(msgspec.Struct, frozen=True):
    """A page of the inbox; `next_after` is where the next page begins, None at the end."""

    questions: list[OpenQuestion]
    next_after: Place | None


class _Room:
    """What a page may still examine: records, and their bytes; a chunk of them is loaded before its size is known."""

    def __init__(self, records: int) -> None:
        self.records = records
        self.left_bytes = PAGE_BYTES
        self._largest_bytes = 0

    @property
    def is_left(self) -> bool:
        return self.records > 0 and self.left_bytes > 0

    @property
    def chunk(self) -> int:
        """How many records to load next: a few, then as many as fit if the largest so far is typical."""
        if not self._largest_bytes:
            return FIRST_CHUNK
        return max(1, min(CHUNK, self.left_bytes // self._largest_bytes))

    def take(self, record_bytes: int) -> None:
        self.records -= 1
        self.left_bytes -= record_bytes
        self._largest_bytes = max(self._largest_bytes, record_bytes)


class Listing:
    """Pages over a tenant's runs.

    A page examines so many records, and 8 MiB of them; it may then be short, and says where to go on.

    Args:
        scan_records: Most records one page examines.
    """

    def __init__(self, runs: RunStore, indexes: IndexStore, *, scan_records: int) -> None:
        self._runs = runs
        self._indexes = indexes
        self._scan_records = scan_records

    async def runs(
        self,
        grant: Grant,
        filters: Filters,
        *,
        before: Position | None,
        limit: int,
        also: Callable[[Run], bool] = lambda _run: True,
    ) -> RunPage:
        """Return runs of the grant's tenant, newest first.

        Args:
            also: What else must hold of a run that is shown.

        Raises:
            BadRequest: the payload filter is out of bounds, or cannot be compared with some run's input.
        """
        access.require_tenant_wide(grant)
        payload = None if filters.payload is None else Containment(filters.payload)
        top = filters.created_before_us
        if top is not None and (before is None or before.created_us > top):
            before = Position(top, "")
        sources = self._choose(grant.tenant, filters)
        by_status = sources == self._of_statuses(grant.tenant, filters)
        return await self._collect(
            grant,
            sources,
            before,
            limit,
            lambda run: (
                _matches(run, filters) and also(run) and (payload is None or payload.holds(_compared(run, filters)))
            ),
            oldest_us=filters.created_after_us,
            by_status=by_status,
        )

    async def questions(self, grant: Grant, *, after: Place | None, limit: int) -> QuestionPage:
        """Return open questions, those of the newest run first, a run's own in the order they were asked."""
        access.require_tenant_wide(grant)
        before = None if after is None else Position(after.created_us + (after.asked is not None), after.run_id)
        # Every run on the page has a question, but for the one whose questions `after` may have shown already.
        page = await self._collect(
            grant, [keys.asking(grant.tenant)], before, limit + 1, lambda run: bool(run.state.open), by_status=True
        )
        found = [OpenQuestion(run, q) for run in page.runs for q in sorted(run.state.open, key=_asked)]
        if after is not None and after.asked is not None:
            found = [q for q in found if q.run.id != after.run_id or _asked(q.question) > after.asked]
        if len(found) > limit:
            return QuestionPage(found[:limit], found[limit - 1].place)
        end = page.next_before
        return QuestionPage(found, None if end is None else Place(end.created_us, end.run_id))

    async def lineage(self, grant: Grant, run_id: str, *, before: Position | None, limit: int) -> RunPage:
        """Return the run's whole family: its first ancestor and everything made from it."""
        run = require_run(grant, await self._runs.load(run_id, grant.tenant))
        root = run.spec.root_run_id or run.id
        page = await self.runs(grant, Filters(root_run_id=root), before=before, limit=limit)
        (first,) = await self._runs.load_many([root])
        if page.next_before is not None or first is None or not _visible(grant, first):
            return page
        if len(page.runs) < limit:
            return RunPage([*page.runs, first], None)
        # The ancestor is a page of its own; nothing is between it and its family.
        return RunPage(page.runs, Position(page.runs[-1].spec.created_us, page.runs[-1].id))

    def _choose(self, tenant: str, filters: Filters) -> list[str]:
        """Return the indexes that propose runs: the narrowest one that some filter has."""
        for name, value in (
            ("root_run_id", filters.root_run_id),
            ("parent_run_id", filters.parent_run_id),
            ("batch_id", filters.batch_id),
            ("schedule_id", filters.schedule_id),
            ("thread", filters.thread_id),
        ):
            if value is not None:
                return [keys.index(tenant, name, value)]
        for key, value in filters.tags.items():
            return [keys.index(tenant, "tag", f"{key}:{value}")]
        # Runs that have ended pile up, those that have not are few: of these no agent has more than there are in all.
        if filters.statuses and (filters.statuses <= LIVE or filters.agent_id is None):
            return self._of_statuses(tenant, filters)
        if filters.agent_id is not None:
            return [keys.index(tenant, "agent", filters.agent_id)]
        if filters.trigger is not None:
            return [keys.index(tenant, "trigger", filters.trigger)]
        return [keys.all_runs(tenant)]

    def _of_statuses(self, tenant: str, filters: Filters) -> list[str]:
        return [keys.status_index(tenant, status) for status in sorted(filters.statuses)]

    async def _collect(
        self,
        grant: Grant,
        sources: list[str],
        before: Position | None,
        limit: int,
        wanted: Callable[[Run], bool],
        *,
        oldest_us: int | None = None,
        by_status: bool = False,
    ) -> RunPage:
        """Return a page of what `sources` propose and `wanted` takes; one run more is looked for, to know the end."""
        found: list[Run] = []
        room, most, first = _Room(self._scan_records), limit + 1, True
        while room.is_left:
            positions = await self._propose(grant.tenant, sources, before, min(most, room.records), by_status=by_status)
            if not positions:
                return RunPage(found, None)
            runs = await self._load(positions, room)
            positions = positions[: len(runs)]
            await self._drop_missing(sources, positions, runs)
            for position, run in zip(positions, runs, strict=True):
                if oldest_us is not None and position.created_us <= oldest_us:
                    return RunPage(found, None)
                try:
                    taken = run is not None and _visible(grant, run) and wanted(run)
                except OutOfSteps:
                    if first:
                        raise _incomparable(position) from None
                    # The next page has all its steps for this run.
                    return RunPage(found, before)
                if run is not None and taken:
                    if len(found) == limit:
                        return RunPage(found, before)
                    found.append(run)
                before, first = position, False
            # Few of them are wanted: the next look takes more at once.
            most = CHUNK
        return RunPage(found, before)

    async def _load(self, positions: list[Position], room: _Room) -> list[Run | None]:
        """Return the runs at `positions`, or at the first ones if there is no room for all."""
        runs: list[Run | None] = []
        while len(runs) < len(positions) and room.is_left:
            chunk = positions[len(runs) : len(runs) + room.chunk]
            for run, record_bytes in await self._runs.load_measured([p.run_id for p in chunk]):
                runs.append(run)
                room.take(record_bytes)
        return runs

    async def _propose(
        self, tenant: str, sources: list[str], before: Position | None, most: int, *, by_status: bool
    ) -> list[Position]:
        read = await self._indexes.read(tenant, sources, before, most, moving=by_status)
        if read is None:
            read = await self._indexes.read(tenant, [keys.all_runs(tenant)], before, most, moving=False)
        return _merge([*read.pages, read.moving], most) if read else []

    async def _drop_missing(self, sources: list[str], positions: list[Position], runs: list[Run | None]) -> None:
        """Remove entries that never got a record; young ones may be about to get theirs."""
        young_us = positions[0].created_us - ABANDONED_US
        pairs = zip(positions, runs, strict=True)
        missing = [p for p, run in pairs if run is None and p.created_us < young_us]
        if not missing:
            return
        for source in sources:
            await self._indexes.drop(source, [p.run_id for p in missing])
        # Whoever repeats a create may have brought its record only now.
        for position, run in zip(missing, await self._runs.load_many([p.run_id for p in missing]), strict=True):
            if run is not None:
                await self._indexes.enter(sources, position)


def _merge(pages: Iterable[list[Position]], most: int) -> list[Position]:
    """Return the newest `most` of pages that are newest first and each complete, or `most` long; each run once."""
    merged = heapq.merge(*pages, key=lambda p: -p.created_us)
    unique = {p.run_id: p for p in merged}
    return list(unique.values())[:most]


def _asked(question: Question) -> tuple[int, str]:
    return question.asked_ms, question.request_id


def _visible(grant: Grant, run: Run) -> bool:
    spec = run.spec
    return spec.tenant == grant.tenant and reaches(grant, run.id, spec.thread_id, spec.agent_id)


def _matches(run: Run, filters: Filters) -> bool:
    spec = run.spec
    return (
        (not filters.statuses or run.status in filters.statuses)
        and filters.agent_id in (None, spec.agent_id)
        and filters.thread_id in (None, spec.thread_id)
        and filters.trigger in (None, spec.trigger)
        and filters.batch_id in (None, spec.batch_id)
        and filters.schedule_id in (None, spec.schedule_id)
        and filters.parent_run_id in (None, spec.parent_run_id)
        and filters.root_run_id in (None, spec.root_run_id)
        and filters.tags.items() <= spec.tags.items()
        and all(_text(spec.metadata.get(key)) == value for key, value in filters.metadata.items())
    )


def _compared(run: Run, filters: Filters) -> Any:
    """Return what of a run the payload filter is held against."""
    value = run.spec.input
    if filters.payload_member is None or value is None or isinstance(value, dict):
        return value
    return {filters.payload_member: value}


def _incomparable(position: Position) -> BadRequest:
    return BadRequest(
        f"payload: to compare it with the input of run {position.run_id} takes too many steps.",
        parameter="payload",
        run_id=position.run_id,
    )


def _text(value: Any) -> str | None:
    """Return a metadata value as a query parameter spells it."""
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()
