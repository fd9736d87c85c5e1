"""Leases after an outage: nobody is silent before somebody listened, and nobody is looked at in vain meanwhile."""

from __future__ import annotations

import pytest
from ulid import ULID

from gateway.domain.due import silent_ms
from gateway.store import keys
from tests.support.links import connect
from tests.support.running import RunningStore, run_gateway, wait_until
from tests.support.work import claim_one, queue_run

pytestmark = pytest.mark.anyio

LEASE_S = 3.0


async def test_a_silent_lease_is_looked_at_when_it_could_have_been_heard(store: RunningStore) -> None:
    """Once, a lease after the gateway began to listen, and not every half second until then."""
    async with run_gateway(store.url, lease_s=LEASE_S) as first:
        queue = f"q{ULID()}"
        run_id = await queue_run(first, queue)
        await claim_one(first, queue)
        (run,) = await first.gateway.stores.runs.load_many([run_id])
        clock = first.gateway.clock
    assert run is not None
    over_ms = silent_ms(run)
    assert over_ms is not None
    await wait_until(lambda: clock.now_ms() > over_ms)
    async with run_gateway(store.url, tenant=first.tenant, lease_s=LEASE_S) as second, connect(store.url) as link:

        async def looked_at_late_enough() -> bool:
            score = await link.call("ZSCORE", keys.timers(keys.partition(run_id)), run_id)
            # A timer that is just being looked at is hidden for longer.
            return score is not None and 1_000 < float(score) - second.gateway.clock.now_ms() < 10_000

        await wait_until(looked_at_late_enough)
