"""Lists of runs for systems whose pages carry no word of where to go on: a short page is the last one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from gateway.domain.access import Grant
from gateway.domain.run import Run
from gateway.entry.services import Services
from gateway.service.listing import Filters
from gateway.store.indexes import Position

LOOK_S = 10.0


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

    Each look has its bounds in records and bytes; after `LOOK_S` no other one begins.

    Args:
        also: What else must hold of a run that is found.
    """
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + LOOK_S
    limit = min(limit, services.bounds.list_page)
    while limit and loop.time() < deadline_s:
        page = await services.listing.runs(grant, filters, before=before, limit=limit, also=also)
        for run in page.runs:
            yield run
        limit -= len(page.runs)
        before = page.next_before
        if before is None:
            return
