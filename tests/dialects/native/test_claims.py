"""Claims that wait beside each other, come again, or are not answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from ulid import ULID

from gateway.service import bells
from tests.support.native import accepted, open_client
from tests.support.running import RunningGateway, RunningStore, run_gateway, wait_until
from tests.support.work import claim, queue_run

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def api(store: RunningStore, anyio_backend: object) -> AsyncIterator[RunningGateway]:
    """A gateway for all of them."""
    async with run_gateway(store.url) as running:
        yield running


@pytest.fixture
def queue() -> str:
    """A queue that no other test uses."""
    return f"q{ULID()}"


async def test_a_claim_that_may_not_have_a_run_lets_the_next_one_know(
    api: RunningGateway, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those bound to other agents were first in line; the free one behind them gets it, and by no second look."""
    monkeypatch.setattr(bells, "LOOK_AGAIN_S", 600.0)
    async with open_client(api, scopes=["work"], agents=["other"]) as bound, asyncio.TaskGroup() as tasks:
        body = {"queues": [queue], "wait_s": 20}
        fruitless = [tasks.create_task(bound.post("/v1/claims", json=body)) for _ in range(3)]

        def waiting() -> int:
            return sum(len(rope._waiting) for rope in api.gateway._bells._ropes.values())

        await wait_until(lambda: waiting() == 3)  # nothing public says how many wait
        free = tasks.create_task(claim(api, queue, wait_s=20))
        await wait_until(lambda: waiting() == 4)
        run_id = await queue_run(api, queue)
        assert [taken["run"]["id"] for taken in await free] == [run_id]
        theirs = {await queue_run(api, queue, agent_id="other") for _ in range(3)}
        found = [accepted(answer)["data"][0]["run"]["id"] for answer in await asyncio.gather(*fruitless)]
        assert set(found) == theirs
