"""Keys over HTTP: what an administrator of some agents sees and ends."""

from __future__ import annotations

import pytest

from tests.support.native import accepted, open_client, refused
from tests.support.running import RunningGateway

pytestmark = pytest.mark.anyio


async def make_key(api: RunningGateway, agents: list[str] | None) -> str:
    """Return the id of a new key for these agents."""
    body = {"scopes": ["runs:read"], "agents": agents}
    key_id: str = accepted(await api.client.post("/v1/keys", json=body), 201)["id"]
    return key_id


async def test_an_administrator_of_some_agents_sees_their_keys_only(api: RunningGateway) -> None:
    """Keys with a longer reach are not there for it, neither to see nor to end."""
    mine, other, unbound = [await make_key(api, agents) for agents in (["a"], ["a", "c"], None)]
    async with open_client(api, scopes={"admin"}, agents={"a", "b"}) as bounded:
        seen = {key["id"] for key in accepted(await bounded.get("/v1/keys"))["data"]}
        assert seen & {mine, other, unbound} == {mine}
        for key_id in (other, unbound):
            refused(await bounded.delete(f"/v1/keys/{key_id}"), 404, "not_found")
        assert accepted(await bounded.delete(f"/v1/keys/{mine}"))["revoked_at"]
    left = {key["id"] for key in accepted(await api.client.get("/v1/keys"))["data"] if key["revoked_at"] is None}
    assert left >= {other, unbound}
    assert mine not in left
