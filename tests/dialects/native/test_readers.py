"""The list of open streams: who reads in which process, what each lacks and why, within reach of the asker."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from gateway.domain.addresses import address_class
from tests.support.native import accepted, open_client, refused
from tests.support.readers import open_socket as open_bare_socket
from tests.support.running import RunningGateway, RunningStore, run_gateway, wait_until
from tests.support.sockets import open_socket

pytestmark = pytest.mark.anyio

PATIENCE_S = 60.0


async def listed(client: httpx.AsyncClient, **params: Any) -> list[dict[str, Any]]:
    """Return one page of readers."""
    data: list[dict[str, Any]] = accepted(await client.get("/v1/readers", params=params))["data"]
    return data


@asynccontextmanager
async def reading(gateway: RunningGateway, run_id: str, *, key: str | None = None) -> AsyncIterator[socket.socket]:
    """Open a stream of a run of which nothing is read."""
    sock = await open_bare_socket("127.0.0.1", gateway.port, small_buffer=True)
    try:
        head = f"GET /v1/runs/{run_id}/stream HTTP/1.1\r\nHost: g\r\nX-Request-Id: idle-1\r\n"
        await asyncio.get_running_loop().sock_sendall(
            sock, f"{head}Authorization: Bearer {key or gateway.key}\r\n\r\n".encode()
        )
        yield sock
    finally:
        sock.close()


async def test_a_stream_that_does_not_read_is_told_with_what_it_lacks_why_and_since_when(
    store: RunningStore,
) -> None:
    """The run, the last seq sent, the head, the reason and the time; the key by its id, the address by its kind."""
    async with run_gateway(store.url) as gateway:
        run_id = (await gateway.create_run())["id"]
        async with reading(gateway, run_id), open_socket(gateway) as ws:
            await ws.do("subscribe", run_id=run_id)
            await wait_until(lambda: _counts(gateway.client, 2), timeout_s=PATIENCE_S)
            behind: list[dict[str, Any]] = []
            while not behind or behind[0]["lag_events"] < 3:
                await gateway.append(run_id, *[("custom.bulk", {"text": "x" * 50_000})] * 10)
                behind = await listed(gateway.client, behind_s=0.05, run_id=run_id)
            (told,) = behind
            everybody = await listed(gateway.client)
            await ws.quiet()
        head = told["logs"][0]["head_seq"]
        assert (told["transport"], told["reason"], told["address"]) == ("sse", "connection", "loopback")
        assert (told["tenant"], told["request_id"]) == (gateway.tenant, "idle-1")
        assert told["logs"] == [{"log": run_id, "seq": head - told["lag_events"], "head_seq": head}]
        assert (told["log_count"], told["events"]) == (1, head - told["lag_events"])
        assert told["behind_since"] > told["opened_at"]
        assert told["unsent_bytes"] > 0
        assert sorted(each["transport"] for each in everybody) == ["sse", "ws"]
        assert everybody == sorted(everybody, key=lambda each: each["opened_at"])
        assert gateway.key not in str(everybody)
        assert "127.0.0.1" not in str(everybody)
        await wait_until(lambda: _is_empty(gateway.client), timeout_s=PATIENCE_S)


async def _is_empty(client: httpx.AsyncClient) -> bool:
    return await listed(client) == []


async def test_every_process_on_the_store_is_asked(store: RunningStore) -> None:
    """Whichever gateway answers tells the readers of all, in pages that neither repeat nor leave out any."""
    async with run_gateway(store.url) as one, run_gateway(store.url, tenant=one.tenant) as other:
        run_id = (await one.create_run())["id"]
        async with (
            reading(one, run_id),
            reading(other, run_id, key=one.key),
            reading(one, run_id),
            reading(other, run_id, key=one.key),
            reading(one, run_id),
        ):
            await wait_until(lambda: _counts(one.client, 5), timeout_s=PATIENCE_S)
            whole = [each["id"] for each in await listed(one.client)]
            assert [each["id"] for each in await listed(other.client)] == whole
            paged: list[str] = []
            cursor: dict[str, str] = {}
            while True:
                page = accepted(await one.client.get("/v1/readers", params={"limit": 2, **cursor}))
                assert page["processes"]["answered"] == page["processes"]["asked"] >= 2
                paged += [each["id"] for each in page["data"]]
                assert page["has_more"] == (page["next_cursor"] is not None)
                if not page["has_more"]:
                    break
                cursor = {"cursor": page["next_cursor"]}
            assert paged == whole
            assert len({each.split("-")[1] for each in whole}) == 2


async def _counts(client: httpx.AsyncClient, count: int) -> bool:
    return len(await listed(client)) == count


async def test_a_stream_that_asked_for_pauses_waits_for_its_own(store: RunningStore) -> None:
    """What it lacks meanwhile is not told as a connection's fault."""
    async with run_gateway(store.url) as gateway:
        run_id = (await gateway.create_run())["id"]
        async with gateway.client.stream("GET", f"/v1/runs/{run_id}/stream?linger_ms=1000") as answer:
            chunks = answer.aiter_bytes()
            await anext(chunks)
            await gateway.append(run_id, ("custom.a", {}))
            told: list[dict[str, Any]] = []
            while not told:
                await gateway.append(run_id, ("custom.a", {}))
                told = await listed(gateway.client, behind_s=0)
        assert (told[0]["reason"], told[0]["behind_since"]) == ("pause", None)
        assert told[0]["lag_events"] > 0


async def test_tenants_see_their_own_and_an_operator_those_of_all(store: RunningStore) -> None:
    """A key without `admin` sees none, one of another tenant its own, one for some agents those of its agents, and
    only an administrator of the tenant `default` may name another."""
    async with run_gateway(store.url) as gateway, open_client(gateway, tenant="default") as operator:
        run_id = (await gateway.create_run())["id"]
        async with reading(gateway, run_id):
            await wait_until(lambda: _counts(gateway.client, 1), timeout_s=PATIENCE_S)
            async with (
                open_client(gateway, tenant="stranger") as stranger,
                open_client(gateway, scopes={"runs:read", "runs:write", "work"}) as reader,
                open_client(gateway, agents={"another"}) as bound,
            ):
                assert await listed(stranger) == []
                for tenant in (gateway.tenant, "*"):
                    refused(await stranger.get("/v1/readers", params={"tenant": tenant}), 403, "forbidden")
                refused(await reader.get("/v1/readers"), 403, "forbidden")
                assert await listed(bound) == []
                refused(await gateway.client.get("/v1/readers", params={"tenant": "*"}), 403, "forbidden")
            assert await listed(operator) == []
            for tenant in (gateway.tenant, "*"):
                assert [each["tenant"] for each in await listed(operator, tenant=tenant, run_id=run_id)] == [
                    gateway.tenant
                ]


async def test_without_the_store_a_process_speaks_for_itself(empty_store: RunningStore) -> None:
    """Who lags because the store is away can be seen while it is."""
    async with run_gateway(empty_store.url, store_timeout_s=1) as gateway:
        run_id = (await gateway.create_run())["id"]
        async with reading(gateway, run_id):
            await wait_until(lambda: _counts(gateway.client, 1), timeout_s=PATIENCE_S)
            empty_store.kill()
            page = accepted(await gateway.client.get("/v1/readers"))
            assert page["processes"] == {"asked": None, "answered": 1}
            assert [each["logs"][0]["log"] for each in page["data"]] == [run_id]


@pytest.mark.parametrize(
    "params",
    [
        {"limit": "0"},
        {"limit": "101"},
        {"cursor": "1-2"},
        {"cursor": "../etc"},
        {"tenant": "a b"},
        {"tenant": ""},
        {"behind_s": "-1"},
        {"behind_s": "nan"},
        {"behind_s": "86401"},
        {"behind": "1"},
    ],
)
async def test_bad_parameters_are_refused_by_name(api: RunningGateway, params: dict[str, str]) -> None:
    """A mistyped filter must not widen the list."""
    problem = refused(await api.client.get("/v1/readers", params=params), 400, "bad_request")
    (name,) = params
    assert name in problem["detail"]
    refused(await api.client.get("/v1/readers", params={"run_id": "nonsense"}), 404, "not_found")


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("10.1.2.3", "private"),
        ("fe80::1", "private"),
        ("8.8.8.8", "public"),
        ("2606:4700::1111", "public"),
        ("", "unknown"),
        (None, "unknown"),
        ("testclient", "unknown"),
    ],
)
def test_an_address_is_told_by_its_kind(host: str | None, kind: str) -> None:
    """Enough to tell a proxy from a stranger, and nothing more."""
    assert address_class(host) == kind
