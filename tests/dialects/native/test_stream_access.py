"""Who may stream a run that this process has streamed before."""

from __future__ import annotations

import pytest
from ulid import ULID

from tests.support.native import accepted, act, refused
from tests.support.running import RunningGateway

pytestmark = pytest.mark.anyio


async def test_a_run_that_was_streamed_is_gone_once_it_is_purged(api: RunningGateway) -> None:
    """Its log first, then all of it: a process that knew whose it was tells what one that did not would."""
    run = await api.run_in("completed")
    path, unknown = f"/v1/runs/{run['id']}/stream", str(ULID())
    assert (await api.client.get(path)).status_code == 200
    accepted(await act(api, run["id"], "purge", keep_record=True))
    refused(await api.client.get(path), 410, "log_expired")
    accepted(await act(api, run["id"], "purge"))
    gone = refused(await api.client.get(path), 404, "not_found")
    never = refused(await api.client.get(f"/v1/runs/{unknown}/stream"), 404, "not_found")
    assert gone["detail"].replace(run["id"], unknown) == never["detail"]
    assert gone.keys() == never.keys()


async def test_a_run_that_was_streamed_stays_its_tenants(api: RunningGateway) -> None:
    """Another tenant, and a key for other agents, are told that there is none, by the very process that knows it."""
    run = await api.run_in("completed")
    path = f"/v1/runs/{run['id']}/stream"
    assert (await api.client.get(path)).status_code == 200
    made = accepted(await api.client.post("/v1/keys", json={"scopes": ["runs:read"], "agents": ["another"]}), 201)
    refused(await api.client.get(path, headers={"Authorization": f"Bearer {made['key']}"}), 404, "not_found")
    stranger, _ = await api.gateway.access.create_key(
        tenant=f"t{ULID()}", name=None, principal=None, scopes=frozenset({"runs:read"}), agents=None, now_ms=1
    )
    refused(await api.client.get(path, headers={"Authorization": f"Bearer {stranger}"}), 404, "not_found")
    assert (await api.client.get(path)).status_code == 200
