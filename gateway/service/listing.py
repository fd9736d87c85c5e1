"""Lists of runs and the inbox of open questions: an index proposes, the record decides."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from gateway.domain import access
from gateway.domain.access import Grant, reaches
from gateway.domain.lifecycle import Status
from gateway.domain.run import Question, Run
from gateway.service.actors import require_run
from gateway.store import keys
from gateway.store.indexes import IndexStore, Position
from gateway.store.runs import RunStore

CHUNK = 200
ABANDONED_US = 60_000_000


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs a list shows; an empty filter shows all. Times are Unix µs, bounds exclusive."""

    statuses: frozenset[Status] = frozenset()
    agent_id: str | None = None
    thread_id: str | None = None
    tags: dict[str, str] = {}
    metadata: dict[str, str] = {}
    payload: dict[str, Any] | None = None
    trigger: str | None = None
    batch_id: str | None = None
    parent_run_id: str | None = None
    root_run_id: str | None = None
    created_after_us: int | None = None
    created_before_us: int | None = None


class RunPage(msgspec.Struct, frozen=True):
    """A page of runs, newest first; `next_before` is where the next page begins, None at the end."""

    runs: list[Run]
    next_before: Position | None


class OpenQuestion(msgspec.Struct, frozen=True):
    """A question somebody should answer, and its run."""

    run: Run
    question: Question


class Listing:
    """Pages over a tenant's runs.

    Args:
        scan_records: Most records one page examines; it may then be short, and says where to go on.
    """

    def __init__(self, runs: RunStore, indexes: IndexStore, *, scan_records: int) -> None:
        self._runs = runs
        self._indexes = indexes
        self._scan_records = scan_records

    async def runs(self, grant: Grant, filters: Filters, *, before: Position | None, limit: int) -> RunPage:
        """Return runs of the grant's tenant, newest first."""
        access.require_tenant_wide(grant)
        top = filters.created_before_us
        if top is not None and (before is None or before.created_us > top):
            before = Position(top, "")
        sources = self._choose(grant.tenant, filters)
        return await self._collect(
            grant, sources, before, limit, lambda run: _matches(run, filters), oldest_us=filters.created_after_us
        )

    async def questions(self, grant: Grant, *, before: Position | None, limit: int) -> RunPage:
        """Return runs with open questions, newest first."""
        access.require_tenant_wide(grant)
        sources = [keys.asking(grant.tenant)]
        return await self._collect(grant, sources, before, limit, lambda run: bool(run.state.open), moving=True)

    async def lineage(self, grant: Grant, run_id: str, *, before: Position | None, limit: int) -> RunPage:
        """Return the run's whole family: its first ancestor and everything made from it."""
        run = require_run(grant, await self._runs.load(run_id, grant.tenant))
        root = run.spec.root_run_id or run.id
        page = await self.runs(grant, Filters(root_run_id=root), before=before, limit=limit)
        if page.next_before is None:
            (first,) = await self._runs.load_many([root])
            if first is not None and first.spec.tenant == grant.tenant:
                page = RunPage([*page.runs, first], None)
        return page

    def _choose(self, tenant: str, filters: Filters) -> list[str]:
        """Return the indexes that propose runs: the narrowest one that some filter has."""
        for name, value in (
            ("root_run_id", filters.root_run_id),
            ("parent_run_id", filters.parent_run_id),
            ("batch_id", filters.batch_id),
            ("thread", filters.thread_id),
        ):
            if value is not None:
                return [keys.index(tenant, name, value)]
        for key, value in filters.tags.items():
            return [keys.index(tenant, "tag", f"{key}:{value}")]
        if filters.statuses:
            return [keys.status_index(tenant, status) for status in sorted(filters.statuses)]
        if filters.agent_id is not None:
            return [keys.index(tenant, "agent", filters.agent_id)]
        if filters.trigger is not None:
            return [keys.index(tenant, "trigger", filters.trigger)]
        return [keys.all_runs(tenant)]

    async def _collect(
        self,
        grant: Grant,
        sources: list[str],
        before: Position | None,
        limit: int,
        wanted: Callable[[Run], bool],
        *,
        oldest_us: int | None = None,
        moving: bool = False,
    ) -> RunPage:
        found: list[Run] = []
        examined = 0
        by_status = moving or any(":by:status:" in source for source in sources)
        extra = await self._in_change(grant.tenant, before) if by_status else []
        while examined < self._scan_records:
            pages = [await self._indexes.page(source, before, CHUNK) for source in sources]
            positions = _merge([*pages, [p for p in extra if before is None or p.created_us < before.created_us]])
            if not positions:
                return RunPage(found, None)
            runs = await self._runs.load_many([p.run_id for p in positions])
            await self._drop_missing(sources, positions, runs)
            for position, run in zip(positions, runs, strict=True):
                if oldest_us is not None and position.created_us <= oldest_us:
                    return RunPage(found, None)
                examined += 1
                before = position
                if run is not None and _visible(grant, run) and wanted(run):
                    found.append(run)
                    if len(found) == limit:
                        return RunPage(found, before)
        return RunPage(found, before)

    async def _in_change(self, tenant: str, before: Position | None) -> list[Position]:
        """Return runs whose status is just changing: no status index can be trusted to show them."""
        positions = await self._indexes.positions(tenant, await self._indexes.in_change(tenant))
        return sorted(positions, key=lambda p: -p.created_us)

    async def _drop_missing(self, sources: list[str], positions: list[Position], runs: list[Run | None]) -> None:
        """Remove entries that never got a record; young ones may be about to get theirs."""
        newest_us = positions[0].created_us if positions else 0
        missing = [
            p.run_id
            for p, run in zip(positions, runs, strict=True)
            if run is None and p.created_us < newest_us - ABANDONED_US
        ]
        if missing:
            for source in sources:
                await self._indexes.drop(source, missing)


def _merge(pages: Iterable[list[Position]]) -> list[Position]:
    """Merge pages that are newest first, up to where every full page reaches, each run once."""
    lists = [page for page in pages if page]
    floor = max((page[-1].created_us for page in lists if len(page) >= CHUNK), default=0)
    merged = heapq.merge(*lists, key=lambda p: -p.created_us)
    unique = {p.run_id: p for p in merged if p.created_us >= floor}
    return list(unique.values())


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
        and filters.parent_run_id in (None, spec.parent_run_id)
        and filters.root_run_id in (None, spec.root_run_id)
        and filters.tags.items() <= spec.tags.items()
        and all(_text(spec.metadata.get(key)) == value for key, value in filters.metadata.items())
        and (filters.payload is None or contains(spec.input, filters.payload))
    )


def contains(value: Any, part: Any) -> bool:
    """Whether JSON `value` contains `part`: objects by key, lists by some element, the rest by equality."""
    if isinstance(part, dict):
        return isinstance(value, dict) and all(k in value and contains(value[k], v) for k, v in part.items())
    if isinstance(part, list):
        return isinstance(value, list) and all(any(contains(v, p) for v in value) for p in part)
    return type(value) is type(part) and bool(value == part)


def _text(value: Any) -> str | None:
    """Return a metadata value as a query parameter spells it."""
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()
