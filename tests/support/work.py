"""Workers as the tests play them: claim, append under a lease, see what the log says."""

from __future__ import annotations

from typing import Any

import httpx

from tests.support.native import accepted
from tests.support.running import RunningGateway


async def put_agent(api: RunningGateway, agent_id: str, **definition: Any) -> dict[str, Any]:
    """Register an agent and return it."""
    answer = await api.client.put(f"/v1/agents/{agent_id}", json=definition)
    assert answer.status_code in (200, 201), answer.text
    agent: dict[str, Any] = answer.json()
    return agent


async def queue_run(api: RunningGateway, queue: str, **body: Any) -> str:
    """Create a queued run and return its id."""
    about = {"agent_id": "tester", "mode": "queued", "queue": queue, **body}
    run_id: str = accepted(await api.client.post("/v1/runs", json=about), 201)["id"]
    return run_id


async def claim(
    api: RunningGateway, *queues: str, most: int = 1, wait_s: float = 0.0, **more: Any
) -> list[dict[str, Any]]:
    """Claim runs and return what the gateway gave."""
    body = {"queues": queues, "max": most, "wait_s": wait_s, **more}
    data: list[dict[str, Any]] = accepted(await api.client.post("/v1/claims", json=body))["data"]
    return data


async def claim_one(api: RunningGateway, queue: str, *, wait_s: float = 10.0) -> dict[str, Any]:
    """Claim the run that is next, waiting for one."""
    (claimed,) = await claim(api, queue, wait_s=wait_s)
    return claimed


async def write(api: RunningGateway, claimed: dict[str, Any], *events: tuple[str, Any], **more: Any) -> httpx.Response:
    """Append events as whoever holds the claim."""
    batch = [{"type": kind, "data": data} for kind, data in events]
    headers = {"lease": claimed["lease"]["token"]}
    path = f"/v1/runs/{claimed['run']['id']}/events"
    return await api.client.post(path, json={"events": batch, **more}, headers=headers)


async def act_as_holder(api: RunningGateway, claimed: dict[str, Any], verb: str, **body: Any) -> httpx.Response:
    """Heartbeat or release as whoever holds the claim."""
    headers = {"lease": claimed["lease"]["token"]}
    return await api.client.post(f"/v1/runs/{claimed['run']['id']}/{verb}", json=body, headers=headers)
