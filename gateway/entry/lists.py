"""Lists of runs for systems whose pages may not be short: a short page is the last one, or taken for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import msgspec

from gateway.domain.access import Grant
from gateway.domain.run import Run
from gateway.entry.services import Services
from gateway.service.listing import Filters, RunPage
from gateway.store.indexes import Position

LOOK_S = 10.0
LIST_BYTES = 16 * 1024 * 1024
"""About so much input the runs of one filled list have."""


async def find_runs(
    services: Services,
    grant: Grant,
    filters: Filters,
    *,
    before: Position | None,
    limit: int,
    also: Callable[[Run], bool] = lambda _run: True,
) -> AsyncIterator[Run]:
    """Yield up to `limit` runs, newest first, looking on where one look found too few.

    Args:
        also: What else must hold of a run that is found.
    """
    limit = min(limit, services.bounds.list_page)
    async for page in _look(services, grant, filters, before=before, limit=limit, also=also):
        for run in page.runs:
            yield run


async def fill_list(
    services: Services, grant: Grant, filters: Filters, *, before: Position | None, limit: int
) -> tuple[list[Run], Position | None]:
    """Return the newest runs that match, and where the rest begins; None when these are all."""
    runs: list[Run] = []
    size_bytes, rest = 0, before
    async for page in _look(services, grant, filters, before=before, limit=limit):
        runs += page.runs
        rest = page.next_before
        size_bytes += sum(len(msgspec.json.encode(run.spec.input)) for run in page.runs)
        if size_bytes > LIST_BYTES:
            break
    return runs, rest


async def _look(
    services: Services,
    grant: Grant,
    filters: Filters,
    *,
    before: Position | None,
    limit: int,
    also: Callable[[Run], bool] = lambda _run: True,
) -> AsyncIterator[RunPage]:
    """Yield what each look finds; each has its bounds in records and bytes, and after `LOOK_S` no other one begins."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + LOOK_S
    while limit and loop.time() < deadline_s:
        page = await services.listing.runs(grant, filters, before=before, limit=limit, also=also)
        yield page
        limit -= len(page.runs)
        before = page.next_before
        if before is None:
            return
