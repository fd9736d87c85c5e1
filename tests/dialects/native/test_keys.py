"""Keys and tickets over HTTP: shown once, bounded as they were made, and ended when they are revoked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.support.native import accepted, open_client, refused
from tests.support.running import RunningGateway, RunningStore, run_gateway, wait_until
from tests.support.sockets import SocketClient, open_socket

pytestmark = pytest.mark.anyio


async def make_key(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    """Create a key and return what is told of it."""
    return accepted(await client.post("/v1/keys", json={"scopes": ["runs:read"], **body}), 201)


def using(api: RunningGateway, key: str) -> httpx.AsyncClient:
    """Return a client with another key."""
    return httpx.AsyncClient(base_url=api.url, headers={"x-api-key": key}, timeout=20)


async def test_a_key_is_shown_once(api: RunningGateway) -> None:
    """It works at once; lists tell everything of it but the key itself."""
    principal = {"id": "ada", "name": "Ada", "email": "ada@example.org"}
    made = await make_key(api.client, name="ci", principal=principal, agents=["a", "b"], scopes=["runs:read", "work"])
    key = made.pop("key")
    assert key.startswith("gwk_")
    assert made == {
        "id": made["id"],
        "tenant": api.tenant,
        "name": "ci",
        "principal": principal,
        "scopes": ["runs:read", "work"],
        "agents": ["a", "b"],
        "created_at": made["created_at"],
        "expires_at": None,
        "revoked_at": None,
        "rotated_to": None,
    }
    answer = await api.client.get("/v1/keys")
    assert made in accepted(answer)["data"]
    assert key not in answer.text
    async with using(api, key) as client:
        accepted(await client.get("/v1/runs"))


async def test_a_key_acts_in_its_own_name(api: RunningGateway) -> None:
    """Its principal is who the log names."""
    made = await make_key(api.client, scopes=["runs:read", "runs:write"], principal={"id": "bot"})
    async with using(api, made["key"]) as client:
        run = accepted(await client.post("/v1/runs", json={"agent_id": "x", "mode": "direct"}), 201)
    assert run["created_by"] == {"kind": "key", "id": "bot"}


async def test_a_revoked_key_ends(store: RunningStore) -> None:
    """Here at once, on another process within its recheck; revoking twice is harmless; unknown keys are 404."""
    async with (
        run_gateway(store.url, access_recheck_s=0.2) as api,
        run_gateway(store.url, tenant=api.tenant, access_recheck_s=0.2) as other,
    ):
        made = await make_key(api.client)
        async with using(api, made["key"]) as here, using(other, made["key"]) as there:
            accepted(await here.get("/v1/runs"))
            accepted(await there.get("/v1/runs"))
            revoked = accepted(await api.client.delete(f"/v1/keys/{made['id']}"))
            assert revoked["revoked_at"] is not None
            assert refused(await here.get("/v1/runs"), 401, "unauthenticated")["reason"] == "key_revoked"

            async def ended_there() -> bool:
                return (await there.get("/v1/runs")).status_code == 401

            await wait_until(ended_there, timeout_s=2)
        assert accepted(await api.client.delete(f"/v1/keys/{made['id']}")) == revoked
        refused(await api.client.delete("/v1/keys/key_unknown"), 404, "not_found")


async def test_a_stream_ends_with_the_time_of_its_key(store: RunningStore) -> None:
    """It is told why, and then cut; the key opens nothing more."""
    async with run_gateway(store.url, access_recheck_s=0.2) as api:
        run = await api.create_run()
        made = await make_key(api.client, expires_in_s=2)
        assert made["expires_at"] > made["created_at"]
        async with using(api, made["key"]) as client:
            told = bytearray()
            with pytest.raises(httpx.RemoteProtocolError):
                await read_stream(client, f"/v1/runs/{run['id']}/stream", told)
            assert b'"reason":"key_expired"' in told
            problem = refused(await client.get("/v1/runs"), 401, "unauthenticated")
            assert problem["reason"] == "key_expired"


async def read_stream(client: httpx.AsyncClient, path: str, told: bytearray) -> None:
    """Read a stream until it ends."""
    async with client.stream("GET", path) as stream:
        async for piece in stream.aiter_bytes():
            told += piece


async def test_a_rotated_key_hands_over(store: RunningStore) -> None:
    """The new key reaches what the old one did; the old one and its streams end after the overlap."""
    async with run_gateway(store.url, access_recheck_s=0.2) as api, open_socket_of(api) as (old, socket):
        path = f"/v1/keys/{old['id']}/rotate"
        new = accepted(await api.client.post(path, json={"overlap_s": 1, "expires_in_s": 3_600}), 201)
        same = ("tenant", "name", "principal", "scopes", "agents")
        assert [new[name] for name in same] == [old[name] for name in same]
        assert new["expires_at"]
        for key in (old["key"], new["key"]):
            async with using(api, key) as client:
                accepted(await client.get("/v1/runs"))
        assert await socket.closed() == (4401, "key_expired")
        async with using(api, old["key"]) as client:
            assert refused(await client.get("/v1/runs"), 401, "unauthenticated")["reason"] == "key_expired"
        async with using(api, new["key"]) as client:
            accepted(await client.get("/v1/runs"))
        problem = refused(await api.client.post(path, json={}), 409, "key_ended")
        assert problem["rotated_to"] == new["id"]
        listed = {key["id"]: key for key in accepted(await api.client.get("/v1/keys"))["data"]}
        assert listed[old["id"]]["rotated_to"] == new["id"]


@asynccontextmanager
async def open_socket_of(api: RunningGateway) -> AsyncIterator[tuple[dict[str, Any], SocketClient]]:
    """Give a new key and a WebSocket that was opened with it."""
    key = await make_key(api.client, name="shop", agents=["a"])
    async with open_socket(api, key=key["key"]) as socket:
        yield key, socket


async def test_a_repeated_rotation_is_done_once(api: RunningGateway) -> None:
    """Under its idempotency key it tells of the same new key, which is not shown again."""
    old = await make_key(api.client)
    path, headers = f"/v1/keys/{old['id']}/rotate", {"idempotency-key": "again"}
    first = accepted(await api.client.post(path, json={}, headers=headers), 201)
    second = accepted(await api.client.post(path, json={}, headers=headers))
    assert (second["id"], second["key"]) == (first["id"], None)


async def test_a_key_of_others_is_not_rotated(api: RunningGateway) -> None:
    """Neither another tenant's, nor one that reaches more agents, nor by whoever is no administrator."""
    theirs = await make_key(api.client, scopes=["admin"], agents=["a", "b"])
    path = f"/v1/keys/{theirs['id']}/rotate"
    async with (
        open_client(api, tenant="strangers") as stranger,
        open_client(api, agents=["a"]) as lesser,
        open_client(api, scopes=["runs:read", "runs:write"]) as user,
    ):
        refused(await stranger.post(path, json={}), 404, "not_found")
        refused(await stranger.post(path, params={"tenant": api.tenant}, json={}), 403, "forbidden")
        refused(await lesser.post(path, json={}), 404, "not_found")
        refused(await user.post(path, json={}), 403, "forbidden")
    async with using(api, theirs["key"]) as client:
        accepted(await client.get("/v1/keys"))


async def test_a_tenants_keys_are_its_own(api: RunningGateway) -> None:
    """An administrator neither sees nor makes nor ends another tenant's."""
    made = await make_key(api.client)
    async with open_client(api, tenant="neighbour") as neighbour:
        assert made["id"] not in [key["id"] for key in accepted(await neighbour.get("/v1/keys"))["data"]]
        refused(await neighbour.delete(f"/v1/keys/{made['id']}"), 404, "not_found")
        refused(await neighbour.get("/v1/keys", params={"tenant": api.tenant}), 403, "forbidden")
        body = {"scopes": ["runs:read"], "tenant": api.tenant}
        refused(await neighbour.post("/v1/keys", json=body), 403, "forbidden")
    async with using(api, made["key"]) as client:
        accepted(await client.get("/v1/runs"))


async def test_only_an_administrator_manages_keys(api: RunningGateway) -> None:
    """And one for some agents makes none for others."""
    async with open_client(api, scopes=["runs:read", "runs:write", "runs:input", "work"]) as client:
        refused(await client.get("/v1/keys"), 403, "forbidden")
        refused(await client.post("/v1/keys", json={"scopes": ["runs:read"]}), 403, "forbidden")
        refused(await client.delete("/v1/keys/key_1"), 403, "forbidden")
    async with open_client(api, agents=["a"]) as bound:
        await make_key(bound, agents=["a"])
        for agents in ({}, {"agents": ["a", "b"]}):
            refused(await bound.post("/v1/keys", json={"scopes": ["runs:read"], **agents}), 403, "forbidden")


@pytest.mark.parametrize(
    "body",
    [
        {"scopes": []},
        {"scopes": ["everything"]},
        {"scopes": "runs:read"},
        {"scopes": ["runs:read"], "agents": []},
        {"scopes": ["runs:read"], "principal": {}},
        {"scopes": ["runs:read"], "principal": {"id": ""}},
        {"scopes": ["runs:read"], "name": "x" * 201},
        {},
    ],
    ids=str,
)
async def test_a_key_that_cannot_be_is_refused(api: RunningGateway, body: dict[str, Any]) -> None:
    """And none is made."""
    before = accepted(await api.client.get("/v1/keys"))
    refused(await api.client.post("/v1/keys", json=body), 422, "invalid_body")
    assert accepted(await api.client.get("/v1/keys")) == before


async def test_a_ticket_opens_what_it_names(api: RunningGateway) -> None:
    """Its runs, or its thread, and nothing else of the tenant."""
    named, other = await api.run_in("completed"), await api.run_in("completed")
    bounds: list[dict[str, Any]] = [{"runs": [named["id"]]}, {"thread_id": named["thread_id"]}]
    for bound in bounds:
        made = accepted(await api.client.post("/v1/tickets", json=bound), 201)
        assert made["scopes"] == ["runs:read"]
        async with httpx.AsyncClient(base_url=api.url, params={"ticket": made["ticket"]}) as client:
            accepted(await client.get(f"/v1/runs/{named['id']}/events"))
            for route in ("events", "stream"):
                refused(await client.get(f"/v1/runs/{other['id']}/{route}"), 404, "not_found")
            refused(await client.get(f"/v1/threads/{other['thread_id']}/stream"), 404, "not_found")
            refused(await client.get("/v1/feed"), 403, "forbidden")


async def test_a_ticket_is_no_more_than_its_key(api: RunningGateway) -> None:
    """Neither in scopes, nor in runs, nor in time; and no ticket carries administration."""
    run = await api.create_run()
    async with open_client(api, scopes=["runs:read"]) as reader:
        refused(await reader.post("/v1/tickets", json={"scopes": ["runs:write"], "thread_id": "t"}), 403, "forbidden")
        accepted(await reader.post("/v1/tickets", json={"runs": [run["id"]]}), 201)
    bodies: list[dict[str, Any]] = [{"scopes": ["admin"]}, {"scopes": ["work"]}, {"scopes": []}, {"ttl_s": 3601}]
    for body in [*bodies, {"ttl_s": 0}]:
        refused(await api.client.post("/v1/tickets", json={"thread_id": "t", **body}), 422, "invalid_body")
    refused(await api.client.post("/v1/tickets", json={"runs": ["01J00000000000000000000000"]}), 404, "not_found")


async def test_a_ticket_expires(api: RunningGateway) -> None:
    """When it says; it is then told from a bad one."""
    run = await api.run_in("completed")
    body = {"runs": [run["id"]], "ttl_s": 1}
    ticket = accepted(await api.client.post("/v1/tickets", json=body), 201)["ticket"]
    path = f"/v1/runs/{run['id']}/events"
    async with httpx.AsyncClient(base_url=api.url, params={"ticket": ticket}) as client:
        accepted(await client.get(path))

        async def expired() -> bool:
            return (await client.get(path)).status_code == 401

        await wait_until(expired, timeout_s=3)
        assert refused(await client.get(path), 401, "unauthenticated")["reason"] == "ticket_expired"


async def test_a_ticket_ends_with_its_key(api: RunningGateway) -> None:
    """Whoever revokes the key takes its tickets back too."""
    run = await api.run_in("completed")
    made = await make_key(api.client)
    async with using(api, made["key"]) as client:
        ticket = accepted(await client.post("/v1/tickets", json={"runs": [run["id"]]}), 201)["ticket"]
    async with httpx.AsyncClient(base_url=api.url, params={"ticket": ticket}) as client:
        accepted(await client.get(f"/v1/runs/{run['id']}/events"))
        accepted(await api.client.delete(f"/v1/keys/{made['id']}"))
        refused(await client.get(f"/v1/runs/{run['id']}/events"), 401, "unauthenticated")


async def test_a_repeated_key_is_made_once(api: RunningGateway) -> None:
    """Under its idempotency key; what was shown once is not shown again. A refusal does not spend it."""
    headers = {"idempotency-key": "k"}
    refused(await api.client.post("/v1/keys", json={"scopes": ["none"]}, headers=headers), 422, "invalid_body")
    body = {"scopes": ["runs:read"], "name": "once"}
    first = accepted(await api.client.post("/v1/keys", json=body, headers=headers), 201)
    again = await api.client.post("/v1/keys", json=body, headers=headers)
    assert again.status_code in (200, 201)
    assert again.json() == first | {"key": None}
    refused(await api.client.post("/v1/keys", json=body | {"name": "x"}, headers=headers), 422, "idempotency_mismatch")
    assert [key["name"] for key in accepted(await api.client.get("/v1/keys"))["data"]].count("once") == 1


async def test_an_administrator_of_some_agents_sees_their_keys_only(api: RunningGateway) -> None:
    """Keys with a longer reach are not there for it, neither to see nor to end."""
    mine, other = [(await make_key(api.client, agents=agents))["id"] for agents in (["a"], ["a", "c"])]
    unbound = (await make_key(api.client))["id"]
    async with open_client(api, scopes={"admin"}, agents={"a", "b"}) as bounded:
        seen = {key["id"] for key in accepted(await bounded.get("/v1/keys"))["data"]}
        assert seen & {mine, other, unbound} == {mine}
        for key_id in (other, unbound):
            refused(await bounded.delete(f"/v1/keys/{key_id}"), 404, "not_found")
        assert accepted(await bounded.delete(f"/v1/keys/{mine}"))["revoked_at"]
    left = {key["id"] for key in accepted(await api.client.get("/v1/keys"))["data"] if key["revoked_at"] is None}
    assert left >= {other, unbound}
    assert mine not in left
