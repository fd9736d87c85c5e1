"""What runs that wait for another are told of it before it is gone."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from gateway.domain.draft import Draft
from gateway.domain.due import fall_due, waits_for_others
from gateway.domain.run import Run
from gateway.errors import NotFound
from gateway.service.journal import Journal
from gateway.store.indexes import IndexStore
from gateway.store.runs import RunStore

TOLD_AT_ONCE = 16


async def tell_dependents(run: Run, journal: Journal, runs: RunStore, indexes: IndexStore) -> None:
    """Have the runs that wait for an ended one note how it ended: it is about to be removed."""

    def decide(dependent: Run, draft: Draft) -> None:
        if waits_for_others(dependent):
            fall_due(dependent, draft, needed={run.id: run.status})

    async def tell(run_id: str) -> None:
        # One that is removed itself meanwhile need not know.
        with suppress(NotFound):
            await journal.change(run_id, run.spec.tenant, decide)

    dependents = await indexes.dependents(run.spec.tenant, run.id)
    for start in range(0, len(dependents), TOLD_AT_ONCE):
        loaded = await runs.load_many(dependents[start : start + TOLD_AT_ONCE])
        await asyncio.gather(*(tell(found.id) for found in loaded if found is not None and waits_for_others(found)))
