"""Tickets that are bound: to one connection, whichever process it reaches, or to the pages of one origin."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin

from tests.support.native import accepted, refused
from tests.support.running import RunningGateway, RunningStore, run_gateway
from tests.support.sockets import SocketClient, make_ticket, open_socket

pytestmark = pytest.mark.anyio

APP = "https://app.example"


async def read(api: RunningGateway, path: str, ticket: str, **headers: str) -> httpx.Response:
    """Ask for something with nothing but a ticket."""
    async with httpx.AsyncClient(base_url=api.url, timeout=20) as client:
        return await client.get(f"{path}{'&' if '?' in path else '?'}ticket={ticket}", headers=headers)


def reason_of(answer: httpx.Response) -> str:
    """Return why a ticket was refused."""
    reason: str = refused(answer, 401, "unauthenticated")["reason"]
    return reason


async def closing(api: RunningGateway, ticket: str, origin: str | None = None) -> tuple[int, str]:
    """Return how a WebSocket that is opened with a ticket is closed at once."""
    url = f"{api.url.replace('http', 'ws')}/v1/ws?ticket={ticket}"
    async with connect(url, origin=None if origin is None else Origin(origin), proxy=None) as socket:
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(socket.recv(), 10)
        assert socket.close_code is not None
        return socket.close_code, socket.close_reason or ""


async def test_a_ticket_says_what_it_is_bound_to(api: RunningGateway) -> None:
    """Nothing, where nothing was asked for; an origin as browsers write it."""
    plain = accepted(await api.client.post("/v1/tickets", json={"tenant": True}), 201)
    assert (plain["single_use"], plain["origin"]) == (False, None)
    body = {"tenant": True, "single_use": True, "origin": "HTTPS://App.Example:443"}
    bound = accepted(await api.client.post("/v1/tickets", json=body), 201)
    assert (bound["single_use"], bound["origin"]) == (True, APP)


@pytest.mark.parametrize("origin", ["", "null", "*", "app.example", "https://app.example/", 7, True])
async def test_an_origin_that_no_page_has_is_refused(api: RunningGateway, origin: Any) -> None:
    """It is told which member is wrong."""
    answer = await api.client.post("/v1/tickets", json={"tenant": True, "origin": origin})
    assert refused(answer, 422, "invalid_body")["path"] == "$.origin"


async def test_a_single_use_ticket_opens_one_connection(api: RunningGateway) -> None:
    """A stream, a page or a file: whatever it was, nothing more is opened; another ticket does."""
    run = await api.run_in("completed")
    for path in (f"/v1/runs/{run['id']}/events", f"/v1/runs/{run['id']}/stream", f"/v1/stream?run={run['id']}"):
        ticket = await make_ticket(api, single_use=True)
        assert (await read(api, path, ticket)).status_code in (200, 204)
        for again in (path, f"/v1/runs/{run['id']}/stream"):
            assert reason_of(await read(api, again, ticket)) == "ticket_used"
        assert await closing(api, ticket) == (4401, "ticket_used")


async def test_every_api_spends_a_single_use_ticket(api: RunningGateway) -> None:
    """The streams of other systems' APIs, too."""
    run = await api.run_in("completed")
    ticket = await make_ticket(api, single_use=True)
    path = f"/compat/threads/v1/runs/{run['id']}/events"
    assert (await read(api, path, ticket)).status_code == 200
    async with httpx.AsyncClient(base_url=api.url, params={"ticket": ticket}) as client:
        assert (await client.get(path)).status_code == 401


async def test_of_many_who_show_it_at_once_one_is_let_in(store: RunningStore) -> None:
    """Over two processes: it is the store that decides."""
    async with run_gateway(store.url) as one, run_gateway(store.url, tenant=one.tenant) as other:
        run = await one.run_in("completed")
        ticket = await make_ticket(one, single_use=True)
        path = f"/v1/runs/{run['id']}/events"
        answers = await asyncio.gather(*(read((one, other)[n % 2], path, ticket) for n in range(20)))
        assert sorted(answer.status_code for answer in answers) == [200] + [401] * 19
        assert {reason_of(answer) for answer in answers if answer.status_code == 401} == {"ticket_used"}


async def test_a_refusal_before_the_door_does_not_spend_it(api: RunningGateway) -> None:
    """A mistake in the query, a scope that it lacks, another origin: it is still good where it is right."""
    run = await api.run_in("completed")
    path = f"/v1/runs/{run['id']}/stream"
    ticket = await make_ticket(api, single_use=True, scopes=["runs:input"])
    assert (await read(api, path, ticket)).status_code == 403
    async with open_socket(api, ticket=ticket):
        pass
    ticket = await make_ticket(api, single_use=True, origin=APP)
    assert (await read(api, path + "?typos=x", ticket)).status_code == 400
    assert reason_of(await read(api, path, ticket, origin="https://evil.example")) == "ticket_origin"
    assert (await read(api, path, ticket, origin=APP)).status_code == 200
    assert reason_of(await read(api, path, ticket, origin=APP)) == "ticket_used"


async def test_a_socket_is_one_connection_however_often_it_shows_its_ticket(api: RunningGateway) -> None:
    """It may renew itself with a ticket for one connection, which opens no other then."""
    first, second = [await make_ticket(api, single_use=True) for _ in range(2)]
    async with open_socket(api, ticket=first) as socket:
        for ticket in (first, second, second):
            assert (await socket.do("auth", ticket=ticket))["expires_at"]
        async with open_socket(api) as other:
            for ticket in (first, second):
                assert (await other.refused("unauthenticated", "auth", ticket=ticket))["reason"] == "ticket_used"
            assert await other.do("subscribe", run_id=(await api.create_run())["id"])
    assert await closing(api, second) == (4401, "ticket_used")


async def test_a_repeated_request_for_a_ticket_makes_no_second_use(api: RunningGateway) -> None:
    """Under its idempotency key it is the same ticket; asked for without the bond, it is another body."""
    headers, body = {"idempotency-key": "once"}, {"tenant": True, "single_use": True}
    first, again = [
        accepted(await api.client.post("/v1/tickets", json=body, headers=headers), 201)["ticket"] for _ in range(2)
    ]
    assert first == again
    answer = await api.client.post("/v1/tickets", json={"tenant": True}, headers=headers)
    refused(answer, 422, "idempotency_mismatch")


async def test_a_ticket_of_an_origin_is_for_its_pages(api: RunningGateway) -> None:
    """Over HTTP and WebSocket; who names another origin, or none, is refused and told why."""
    run = await api.run_in("completed")
    path, ticket = f"/v1/runs/{run['id']}/stream", await make_ticket(api, origin=APP)
    for _ in range(2):
        assert (await read(api, path, ticket, origin=APP)).status_code == 200
    for headers in ({}, {"origin": "https://app.example.evil.example"}, {"origin": "null"}, {"referer": APP}):
        assert reason_of(await read(api, path, ticket, **headers)) == "ticket_origin"
    assert await closing(api, ticket) == (4401, "ticket_origin")
    at_home = {"host": "app.example", "sec-fetch-site": "same-origin"}
    assert (await read(api, path, ticket, **at_home)).status_code == 200


async def test_a_socket_keeps_the_origin_of_its_page(store: RunningStore) -> None:
    """A ticket for another's pages does not renew it."""
    async with run_gateway(store.url, cors_origins=(APP,)) as api:
        mine, other = await make_ticket(api, origin=APP), await make_ticket(api, origin="https://other.example")
        url = f"{api.url.replace('http', 'ws')}/v1/ws?ticket={mine}"
        async with connect(url, origin=Origin(APP), proxy=None) as connection:
            socket = SocketClient(connection)
            assert (await socket.refused("unauthenticated", "auth", ticket=other))["reason"] == "ticket_origin"
            assert await socket.do("auth", ticket=mine)
