"""Tokens of an identity provider over HTTP and WebSocket: taken where keys are, and ended by their time."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from gateway.errors import InvalidBody
from tests.support.native import accepted, refused
from tests.support.provider import Provider, run_provider
from tests.support.running import RunningGateway, RunningStore, run_gateway
from tests.support.sockets import open_socket

pytestmark = pytest.mark.anyio

ALL = "runs:read runs:write runs:input work admin"


@asynccontextmanager
async def serving(store: RunningStore, **changes: object) -> AsyncIterator[tuple[RunningGateway, Provider]]:
    """Give a gateway that takes a provider's tokens."""
    async with (
        run_provider() as provider,
        run_gateway(store.url, access_recheck_s=0.2, jwt_leeway_s=1, **provider.settings(**changes)) as api,
    ):
        yield api, provider


def using(api: RunningGateway, token: str) -> httpx.AsyncClient:
    """Return a client with a token."""
    return httpx.AsyncClient(base_url=api.url, headers={"authorization": f"Bearer {token}"}, timeout=20)


async def test_every_api_takes_tokens_where_it_takes_keys(store: RunningStore) -> None:
    """They act in their subject's name, within their tenant, scopes and agents."""
    async with (
        serving(store) as (api, provider),
        using(api, provider.sign(tenant=api.tenant, agents=["tester"], scope=ALL, name="Ada")) as ada,
        using(api, provider.sign(tenant=api.tenant, scope="runs:read")) as reader,
        using(api, provider.sign(tenant="strangers", scope=ALL)) as stranger,
    ):
        run = accepted(await ada.post("/v1/runs", json={"agent_id": "tester", "mode": "direct"}), 201)
        assert run["created_by"] == {"kind": "token", "id": "ada", "name": "Ada"}
        refused(await ada.post("/v1/runs", json={"agent_id": "other", "mode": "direct"}), 403, "forbidden")
        refused(await reader.post(f"/v1/runs/{run['id']}/cancel"), 403, "forbidden")
        refused(await stranger.get(f"/v1/runs/{run['id']}"), 404, "not_found")
        paths = [path for name in ("jobs", "processes") for path in await find_paths(api, name)]
        for path in ("/v1/runs", "/v1/runs/" + run["id"], *paths):
            assert (await reader.get(path)).status_code not in (401, 500), path
            async with httpx.AsyncClient(base_url=api.url) as nobody:
                assert (await nobody.get(path, headers={"x-api-key": "a.b.c"})).status_code == 401, path


async def find_paths(api: RunningGateway, dialect: str) -> list[str]:
    """Return the paths of a dialect that are read and name nothing."""
    paths = accepted(await api.client.get(f"/compat/{dialect}/openapi.json"))["paths"]
    found = [f"/compat/{dialect}{path}" for path in paths if "get" in paths[path] and "{" not in path]
    assert found
    return found


async def test_streams_end_when_their_token_does(store: RunningStore) -> None:
    """SSE and WebSocket are told, and a ticket that a token made lives no longer than it."""
    async with serving(store) as (api, provider):
        run = await api.create_run()
        token = provider.sign(tenant=api.tenant, exp=int(time.time()) + 3, scope=ALL)
        async with using(api, token) as client, open_socket(api, key=token) as socket:
            made = accepted(await client.post("/v1/tickets", json={"runs": [run["id"]], "ttl_s": 300}), 201)
            told = bytearray()
            with pytest.raises(httpx.RemoteProtocolError):
                await read_stream(client, f"/v1/runs/{run['id']}/stream", told)
            assert b'"reason":"token_expired"' in told
            assert await socket.closed() == (4401, "token_expired")
            assert refused(await client.get("/v1/runs"), 401, "unauthenticated")["reason"] == "token_expired"
        async with httpx.AsyncClient(base_url=api.url, params={"ticket": made["ticket"]}) as browser:
            answer = await browser.get(f"/v1/runs/{run['id']}/events")
            assert refused(answer, 401, "unauthenticated")["reason"] == "ticket_expired"


async def read_stream(client: httpx.AsyncClient, path: str, told: bytearray) -> None:
    """Read a stream until it ends."""
    async with client.stream("GET", path) as stream:
        async for piece in stream.aiter_bytes():
            told += piece


async def test_a_token_renews_a_socket(store: RunningStore) -> None:
    """The same tenant's next token goes on where the last one would end."""
    async with serving(store) as (api, provider):
        run = await api.create_run()
        async with open_socket(api, key=provider.sign(tenant=api.tenant, exp=int(time.time()) + 3)) as socket:
            await socket.do("auth", key=provider.sign(tenant=api.tenant, exp=int(time.time()) + 300))
            await socket.refused("forbidden", "auth", key=provider.sign(tenant="strangers"))
            await socket.refused("unauthenticated", "auth", key=provider.sign(tenant=api.tenant, aud="others"))
            await socket.do("subscribe", run_id=run["id"])


async def test_a_provider_that_is_away_is_a_503(store: RunningStore) -> None:
    """Which says so and when to try again; keys work on, and bad tokens of a known shape are not guessed at."""
    async with run_provider() as provider:
        provider.status = 500
        async with (
            run_gateway(store.url, **provider.settings()) as api,
            using(api, provider.sign(tenant=api.tenant)) as client,
        ):
            answer = await client.get("/v1/runs")
            refused(answer, 503, "provider_unavailable")
            assert answer.headers["retry-after"] == "10"
            accepted(await api.client.get("/v1/runs"))
            async with open_socket(api, key=provider.sign(tenant=api.tenant)) as socket:
                assert await socket.closed() == (1013, "provider_unavailable")
            assert provider.asked == 1


async def test_keys_are_not_fetched_from_where_they_must_not_be(store: RunningStore) -> None:
    """A private address is refused before anything is sent there, and by name when it connects."""
    async with run_provider() as provider:
        with pytest.raises(InvalidBody, match="GATEWAY_JWT_JWKS"):
            async with run_gateway(store.url, **provider.settings(jwt_private="refuse")):
                pass
        with pytest.raises(InvalidBody, match="GATEWAY_JWT_JWKS"):
            async with run_gateway(store.url, **provider.settings(jwt_http="refuse")):
                pass
        assert provider.asked == 0


async def test_without_an_issuer_a_token_is_an_unknown_key(api: RunningGateway) -> None:
    """Nothing is verified that nobody was told to trust."""
    async with using(api, "eyJhbGciOiJub25lIn0.e30.") as client:
        assert refused(await client.get("/v1/runs"), 401, "unauthenticated")["reason"] == "unknown_key"
