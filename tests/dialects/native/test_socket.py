"""The WebSocket's beginning and end: who is let in, what counts as a frame, and what each close code means."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame as WebSocketFrame
from websockets.frames import Opcode
from websockets.typing import Origin

from tests.support.native import PROBLEM, refused
from tests.support.running import LOG, RunningGateway, RunningStore, run_gateway
from tests.support.sockets import Frame, SocketClient, make_ticket, open_socket

pytestmark = pytest.mark.anyio


async def test_the_subprotocol_is_answered_where_it_is_offered(api: RunningGateway) -> None:
    """A client that offers gateway.v1 among others is answered gateway.v1."""
    async with open_socket(api, offer=("other", "gateway.v1")) as socket:
        assert socket.connection.subprotocol == "gateway.v1"
        assert socket.connection.response is not None
        assert socket.connection.response.headers["x-request-id"]


async def test_no_subprotocol_is_fine(api: RunningGateway) -> None:
    """A client that offers no subprotocol is let in without one."""
    async with open_socket(api, offer=()) as socket:
        assert socket.connection.subprotocol is None
        assert (await socket.ask("ping"))["type"] == "pong"


async def test_a_request_that_is_no_websocket_is_told_what_is_here(api: RunningGateway) -> None:
    """Who fetches the path with an ordinary request learns what it is for."""
    answer = await api.client.get("/v1/ws")
    refused(answer, 426, "upgrade_required")
    assert answer.headers["upgrade"] == "websocket"


@pytest.mark.parametrize(
    ("offer", "query"), [(("other",), ""), (("gateway.v1",), "?tikcet=x"), (("gateway.v1",), "?ticket=x")]
)
async def test_a_handshake_that_cannot_be_meant_is_refused(api: RunningGateway, offer: Any, query: str) -> None:
    """Foreign subprotocols, unknown parameters and two credentials get a problem document instead of a WebSocket."""
    with pytest.raises(InvalidStatus) as caught:
        async with open_socket(api, offer=offer, query=query):
            pass
    response = caught.value.response
    problem = json.loads(response.body)
    assert (response.status_code, problem["code"]) == (400, "bad_request")
    assert response.headers["content-type"] == "application/problem+json"
    assert problem.keys() >= PROBLEM
    assert problem["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("credential", "reason"),
    [
        ({"key": ""}, "no_credential"),
        ({"key": "gwk_unknown"}, "unknown_key"),
        ({"ticket": "forged.ticket"}, "bad_ticket"),
        ({"ticket": ""}, "no_credential"),
    ],
)
async def test_a_stranger_is_accepted_and_closed_with_4401(
    api: RunningGateway, credential: dict[str, str], reason: str
) -> None:
    """No or a bad credential is told by a close code, which a browser can see, and not by an HTTP status."""
    async with open_socket(api, **credential) as socket:  # type: ignore[arg-type]
        assert await socket.closed() == (4401, reason)


async def test_a_ticket_lets_in(api: RunningGateway) -> None:
    """A browser that cannot send headers comes with a ticket in the query."""
    async with open_socket(api, ticket=await make_ticket(api)) as socket:
        assert (await socket.ask("ping"))["type"] == "pong"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"\x00\x01", "binary"),
        (b'{"type":"ping"}', "binary"),
        ("", "not JSON"),
        ("nonsense", "not JSON"),
        ('{"type":"ping"', "not JSON"),
        ('"\\ud800"', "not a JSON object"),
        ('{"type":"ping","id":"\\ud800"', "not JSON"),
        ('{"type":"ping","id":NaN}', "not JSON"),
        ("[]", "not a JSON object"),
        ("null", "not a JSON object"),
        ('"ping"', "not a JSON object"),
    ],
)
async def test_what_is_no_frame_closes_with_4400(api: RunningGateway, message: str | bytes, reason: str) -> None:
    """Binary messages, and text that is no JSON object, end the connection; commands before them were answered."""
    async with open_socket(api) as socket:
        assert (await socket.ask("ping"))["type"] == "pong"
        await socket.connection.send(message)
        assert await socket.closed() == (4400, reason)


async def test_text_that_is_not_utf8_closes_with_4400(api: RunningGateway) -> None:
    """A text message that is no text ends the connection."""
    async with open_socket(api) as socket:
        await socket.connection.send(b"\xff\xfe", text=True)
        assert await socket.closed() == (4400, "not UTF-8")


@pytest.mark.parametrize("fragments", [1, 8])
async def test_a_message_that_is_too_large_closes_with_4413(store: RunningStore, fragments: int) -> None:
    """A client sees why even while it is still sending, and whether or not it sends in fragments."""
    async with run_gateway(store.url, batch_bytes=1 << 20) as api, open_socket(api) as socket:
        text = "x" * ((16 << 20) // fragments)
        sending = asyncio.create_task(socket.connection.send([text] * fragments))
        code, _ = await socket.closed()
        assert code == 4413
        await asyncio.wait([sending])
        sending.exception()


async def test_a_client_that_answers_no_ping_is_closed_with_4408(
    store: RunningStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that is silent for longer than the keep-alive is let go."""
    async with run_gateway(store.url, keepalive_s=0.2) as api, open_socket(api) as socket:
        answer_frame = socket.connection.protocol.recv_frame

        def answer_no_ping(frame: WebSocketFrame) -> None:
            if frame.opcode is not Opcode.PING:
                answer_frame(frame)

        monkeypatch.setattr(socket.connection.protocol, "recv_frame", answer_no_ping)
        assert await socket.closed() == (4408, "no pong")


async def test_a_client_that_answers_pings_stays(store: RunningStore) -> None:
    """A client may say nothing for as long as it likes, if it answers pings."""
    async with run_gateway(store.url, keepalive_s=0.1) as api, open_socket(api) as socket:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(socket.connection.wait_closed(), 0.6)
        assert (await socket.ask("ping"))["type"] == "pong"


async def test_drain_says_where_to_resume_and_closes_with_1012(store: RunningStore) -> None:
    """On a deploy every run that is followed gets its stream.closed, then the socket is closed."""
    async with run_gateway(store.url) as api, open_socket(api) as socket:
        first, second = await api.run_in("running"), await api.run_in("running")
        for run in (first, second):
            await socket.do("subscribe", run_id=run["id"])
        frames: list[Frame] = []
        for run in (first, second):
            frames += await socket.until("event", cursor=await _head(api, run["id"]))
        await api.gateway.close_streams(0)
        assert await socket.closed() == (1012, "drain")
        farewells = [await socket.next(), await socket.next()]
        assert [f["type"] for f in farewells] == ["stream.closed"] * 2
        assert [f["reason"] for f in farewells] == ["drain"] * 2
        cursors = {f["run_id"]: f["cursor"] for f in frames if f["type"] == "event"}
        assert {f["run_id"]: f["resume_after"] for f in farewells} == cursors


async def test_who_comes_while_it_drains_is_sent_on(store: RunningStore) -> None:
    """A connection that was accepted after the drain began is closed with 1012 at once."""
    async with run_gateway(store.url) as api:
        await api.gateway.close_streams(0)
        async with open_socket(api) as socket:
            assert await socket.closed() == (1012, "drain")


async def test_who_subscribes_while_it_drains_is_sent_on(store: RunningStore) -> None:
    """A socket whose turn has not come yet is closed by its next subscription, which is served elsewhere."""
    async with run_gateway(store.url) as api, open_socket(api) as one, open_socket(api) as other:
        run = await api.run_in("running")
        draining = asyncio.create_task(api.gateway.close_streams(60))
        endings = {asyncio.create_task(socket.closed()): socket for socket in (one, other)}
        await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
        [(ending, late)] = [(ending, socket) for ending, socket in endings.items() if not ending.done()]
        await late.send("subscribe", run_id=run["id"])
        assert await ending == (1012, "drain")
        draining.cancel()


async def test_a_revoked_key_ends_the_socket(store: RunningStore) -> None:
    """Within the recheck of a key's revocation its sockets end, with a cursor for each run."""
    async with run_gateway(store.url, access_recheck_s=0.1) as api:
        made = (await api.client.post("/v1/keys", json={"scopes": ["runs:read"]})).json()
        run = await api.run_in("running")
        async with open_socket(api, key=made["key"]) as socket:
            await socket.do("subscribe", run_id=run["id"])
            last = (await socket.until("event", cursor=await _head(api, run["id"])))[-1]
            assert (await api.client.delete(f"/v1/keys/{made['id']}")).status_code == 200
            assert (await socket.until("stream.closed"))[-1] == {
                "type": "stream.closed",
                "run_id": run["id"],
                "reason": "key_revoked",
                "resume_after": last["cursor"],
            }
            assert await socket.closed() == (4401, "key_revoked")


async def _head(api: RunningGateway, run_id: str) -> str:
    page = (await api.client.get(f"/v1/runs/{run_id}/events")).json()
    cursor: str = page["next_after"]
    return cursor


async def test_a_ticket_that_expires_ends_the_socket(store: RunningStore) -> None:
    """A socket does not outlive its ticket."""
    async with run_gateway(store.url, access_recheck_s=0.1) as api:
        run = await api.run_in("running")
        async with open_socket(api, ticket=await make_ticket(api, ttl_s=1)) as socket:
            await socket.do("subscribe", run_id=run["id"])
            assert (await socket.until("stream.closed"))[-1]["reason"] == "ticket_expired"
            assert await socket.closed() == (4401, "ticket_expired")


async def test_auth_renews_a_ticket(store: RunningStore) -> None:
    """A socket that shows a new ticket in time goes on past the old one's expiry, its subscriptions with it."""
    async with run_gateway(store.url, access_recheck_s=0.1) as api:
        run = await api.run_in("running")
        async with open_socket(api, ticket=await make_ticket(api, ttl_s=1)) as socket:
            await socket.do("subscribe", run_id=run["id"])
            assert (await socket.do("auth", ticket=await make_ticket(api, ttl_s=60)))["expires_at"]
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(socket.connection.wait_closed(), 1.5)
            await api.append(run["id"], LOG)
            frames = await socket.until("event", cursor=await _head(api, run["id"]))
            assert "stream.closed" not in {frame["type"] for frame in frames}


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "https://app.example.evil"])
async def test_a_page_of_another_origin_opens_no_socket(api: RunningGateway, origin: str) -> None:
    """It is refused before there is one, whatever it shows, as CORS refuses its requests."""
    for query in ("", f"?ticket={await make_ticket(api)}"):
        with pytest.raises(InvalidStatus) as caught:
            async with connect(f"{api.url.replace('http', 'ws')}/v1/ws{query}", origin=Origin(origin), proxy=None):
                pass
        response = caught.value.response
        assert response.body is not None
        assert (response.status_code, json.loads(response.body)["code"]) == (403, "origin_refused")


@pytest.mark.parametrize(
    ("settings", "origin"),
    [
        ({}, None),
        ({}, "at home"),
        ({"cors_origins": ("https://app.example",)}, "https://app.example"),
        ({"cors_origins": ("https://app.example",)}, "HTTPS://APP.EXAMPLE"),
        ({"cors_origins": ("https://app.example",)}, "at home"),
        ({"cors_origins": ("*",)}, "https://evil.example"),
        ({"cors_origins": ("*",)}, "null"),
        ({"public_url": "https://runs.example/behind"}, "https://runs.example"),
    ],
    ids=str,
)
async def test_a_page_of_an_allowed_origin_opens_one(
    store: RunningStore, settings: dict[str, Any], origin: str | None
) -> None:
    """One that came from here, one that is listed; and whoever is no page."""
    async with run_gateway(store.url, **settings) as api:
        named = api.url if origin == "at home" else origin
        headers = {"authorization": f"Bearer {api.key}"}
        url = f"{api.url.replace('http', 'ws')}/v1/ws"
        told = None if named is None else Origin(named)
        async with connect(url, origin=told, additional_headers=headers, proxy=None) as connection:
            assert (await SocketClient(connection).ask("ping"))["type"] == "pong"
