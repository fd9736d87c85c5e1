"""One run, two views: what is done through one of them shows in the other at once."""

from __future__ import annotations

from typing import Any

import pytest
from ulid import ULID

from tests.support.native import accepted
from tests.support.running import LOG, RunningGateway
from tests.support.work import claim_one, put_agent, write

pytestmark = pytest.mark.anyio


async def test_a_run_of_a_process_is_managed_by_agent(api: RunningGateway) -> None:
    """Started by process; listed, paused, resumed, cancelled and retried by agent; each status in both words."""
    agent, queue = f"a{ULID()}"[:26], f"q{ULID()}"
    await put_agent(api, agent, queue=queue)
    body = {"agent_id": agent, "process_id": "invoices", "name": "n", "stage": "Draft", "inputs": []}
    run_id = accepted(await api.client.post("/runs", json=body), 201)["id"]
    by_agent = f"/api/agents/{agent}/runs"

    async def words(run_id: str) -> tuple[str, str]:
        managed = accepted(await api.client.get(f"{by_agent}/{run_id}"))
        started = accepted(await api.client.get(f"/runs/{run_id}"))
        return managed["status"], started["status"]

    assert await words(run_id) == ("queued", "Created")
    claimed = await claim_one(api, queue)
    accepted(await write(api, claimed, LOG))
    assert await words(run_id) == ("running", "Running")
    for action, shown in (("pause", ("paused", "Paused")), ("resume", ("running", "Running"))):
        accepted(await api.client.post(f"{by_agent}/{run_id}/{action}"))
        assert await words(run_id) == shown
    accepted(await write(api, claimed, ("run.waiting_for_input", {"prompt": "Go on?"})))
    assert await words(run_id) == ("running", "WaitingForInput")
    accepted(await api.client.post(f"{by_agent}/{run_id}/cancel"))
    assert await words(run_id) == ("cancelled", "Cancelled")
    accepted(await write(api, claimed, ("run.cancelled", {})))
    copy = accepted(await api.client.post(f"{by_agent}/{run_id}/retry"), 201)["run_id"]
    assert await words(copy) == ("queued", "Created")
    params: dict[str, Any] = {"agent_id": agent, "process_id": "invoices", "stage": "Draft"}
    listed = [run["id"] for run in accepted(await api.client.get("/runs", params=params))["items"]]
    assert listed == [run["run_id"] for run in accepted(await api.client.get(by_agent))["runs"]] == [copy, run_id]
