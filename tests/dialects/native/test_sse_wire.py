"""The bytes of a stream, and how it ends: what EventSource and SDKs were seen to depend on."""

from __future__ import annotations

import asyncio
import json
import re
import time

import msgspec
import pytest
from httpx_sse import aconnect_sse

from gateway.store import keys as store_keys
from tests.dialects.native.streaming import (
    Stream,
    frames_of,
    names_of,
    new_key,
    new_ticket,
    open_stream,
    read_stream,
    send_request,
    seqs_of,
)
from tests.hub.logs import open_link
from tests.support.native import get_log
from tests.support.running import COMPLETE, LOG, RunningGateway, RunningStore, run_gateway, wait_until

pytestmark = pytest.mark.anyio

HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-store, no-transform",
    "x-accel-buffering": "no",
}


async def test_a_whole_stream_byte_for_byte(api: RunningGateway) -> None:
    """Retry first, then `stream.open`, events without a name under their cursor, `stream.end` under the last one,
    a clean end."""
    run = await api.run_in("completed")
    events = await get_log(api, run["id"])
    stream = await read_stream(api, f"/v1/runs/{run['id']}/stream")
    assert stream.status == 200
    assert stream.headers.items() >= HEADERS.items()
    assert stream.headers["x-request-id"]
    head = len(events)
    opened = f'{{"run_id":"{run["id"]}","status":"completed","first_seq":1,"head_seq":{head},"after_seq":0}}'
    expected = f"retry: 2000\n\nevent: stream.open\ndata: {opened}\n\n"
    cursors = [frame.last_id for frame in stream.parser.frames if frame.name == "message"]
    for cursor, event in zip(cursors, events, strict=True):
        assert re.fullmatch(rf"{event['seq']}-[1-9][0-9]{{0,9}}", cursor)
        line = msgspec.json.encode(event).decode()
        expected += f"id: {cursor}\ndata: {line}\n\n"
    expected += f'id: {cursors[-1]}\nevent: stream.end\ndata: {{"run_id":"{run["id"]}","status":"completed"}}\n\n'
    assert stream.body.decode() == expected
    assert stream.ended == "clean"


async def test_both_paths_give_the_same_stream(api: RunningGateway) -> None:
    """`/stream`, and `/events` for whoever accepts event streams."""
    run = await api.run_in("failed")
    direct = await read_stream(api, f"/v1/runs/{run['id']}/stream")
    for accept in ("text/event-stream", "application/json, text/event-stream;q=0.9"):
        asked = await read_stream(api, f"/v1/runs/{run['id']}/events", headers={"Accept": accept})
        assert asked.body == direct.body
        assert asked.headers["content-type"] == "text/event-stream"
    page = await api.client.get(f"/v1/runs/{run['id']}/events", headers={"Accept": "*/*"})
    assert page.headers["content-type"] == "application/json"


async def test_the_connection_of_a_stream_that_ended_can_be_used_again(api: RunningGateway) -> None:
    """A clean end is one: the next request on the connection is answered."""
    run = await api.run_in("completed")
    async with open_stream(api, f"/v1/runs/{run['id']}/stream") as stream:
        await stream.rest()
        assert stream.ended == "clean"
        again = Stream(stream.reader, stream.writer)
        await send_request(again, api, f"/v1/runs/{run['id']}")
        assert json.loads(again.body)["status"] == "completed"


async def test_a_client_of_http_1_0_gets_the_bare_stream(api: RunningGateway) -> None:
    """No chunks, which it would take for the body: the stream ends with its connection, a page has its length."""
    run = await api.run_in("running")
    path = f"/v1/runs/{run['id']}/stream"
    for method, target in (("GET", path), ("HEAD", path), ("GET", f"/v1/runs/{run['id']}")):
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(f"{method} {target} HTTP/1.0\r\nx-api-key: {api.key}\r\nConnection: keep-alive\r\n\r\n".encode())
        async with asyncio.timeout(10):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert b"transfer-encoding" not in head
            assert head.count(b"connection: ") == head.count(b"connection: close") == 1
            if (method, target) == ("GET", path):
                assert (await reader.readuntil(b"}\n\n")).startswith(b"retry: 2000\n\nevent: stream.open\n")
                await api.append(run["id"], COMPLETE)
            body = await reader.read()
        assert body.endswith(b'"status":"completed"}\n\n') == ((method, target) == ("GET", path))
        if target != path:
            assert json.loads(body)["id"] == run["id"]
        writer.close()


async def test_a_stream_says_nothing_of_its_connection(api: RunningGateway) -> None:
    """Only a connection that is about to close says so, and says nothing else."""
    run = await api.run_in("completed")
    path = f"/v1/runs/{run['id']}/stream"
    assert "connection" not in (await read_stream(api, path)).headers
    assert (await read_stream(api, path, headers={"Connection": "close"})).headers["connection"] == "close"


@pytest.mark.parametrize(
    ("accept", "streams"),
    [
        ("text/event-stream", True),
        ("TEXT/Event-Stream", True),
        ("application/json, text/event-stream", True),
        ("application/json;q=0.5, text/event-stream; charset=utf-8; q=0.9", True),
        ("application/json, text/event-stream;q=0.1", True),
        ("text/event-stream;q=0", False),
        ("text/event-streaming", False),
        ("text/*, */*", False),
        ("", False),
    ],
)
async def test_a_log_streams_to_who_asks_for_that(api: RunningGateway, accept: str, streams: bool) -> None:
    """`Accept` is read as HTTP has it; whoever leaves it open gets a page."""
    run = await api.run_in("completed")
    answer = await api.client.get(f"/v1/runs/{run['id']}/events", headers={"Accept": accept})
    assert answer.headers["content-type"] == ("text/event-stream" if streams else "application/json")


async def test_the_first_bytes_come_at_once(api: RunningGateway) -> None:
    """A client knows that it is connected before anything happens."""
    run = await api.create_run()
    async with open_stream(api, f"/v1/runs/{run['id']}/stream?types=log") as stream:
        frame = await stream.next()
        assert frame.name == "stream.open"
        assert stream.parser.retry_ms == 2000
        assert frame.data["status"] == "queued"


async def test_only_line_feeds_end_lines(api: RunningGateway) -> None:
    """Whatever is in an event: one AG-UI client takes a carriage return for the end of a line."""
    run = await api.run_in("running")
    text = "one\ntwo\r\nthree\rfour\u2028five\u0085six\x00end"
    answer = await api.append(run["id"], ("log", {"level": "info", "message": text}), COMPLETE)
    assert answer.status_code == 200
    stream = await read_stream(api, f"/v1/runs/{run['id']}/stream")
    assert b"\r" not in stream.body
    lines = stream.body.split(b"\n")
    assert all(line == b"" or re.match(rb"(id|data|event|retry): ", line) for line in lines)
    (message,) = [f.data["data"]["message"] for f in stream.parser.frames if f.data.get("type") == "log"][1:]
    assert message == text


async def test_silence_is_broken_by_a_comment_without_a_blank_line(store: RunningStore) -> None:
    """With one, two SDKs crash or see an event that never was; without it no client sees anything."""
    async with run_gateway(store.url, keepalive_s=0.05) as api:
        run = await api.run_in("running")
        async with open_stream(api, f"/v1/runs/{run['id']}/stream") as stream:
            await stream.read_until(b": ping\n: ping\n: ping\n")
            body = bytes(stream.body)
            silent = body.index(b": ping")
            assert body[:silent].endswith(b"\n\n")
            assert set(body[silent:].split(b"\n")) == {b": ping", b""}
            assert b"\n\n" not in body[silent:]
            before = len(stream.parser.frames)
            await api.append(run["id"], LOG)
            await stream.read_until(b"id: 5-")
            assert len(stream.parser.frames) == before + 1
            await api.append(run["id"], COMPLETE)
            await stream.rest()
            assert stream.ended == "clean"


async def test_no_sign_of_life_comes_before_its_time(api: RunningGateway) -> None:
    """At the default of fifteen seconds a test sees none."""
    run = await api.run_in("completed")
    assert b"ping" not in (await read_stream(api, f"/v1/runs/{run['id']}/stream")).body


async def expect_closed(stream: Stream, reason: str) -> dict[str, object]:
    """Read to the end of a stream that is hung up, and return what it said last."""
    frames = await stream.rest()
    assert names_of(frames)[-1] == "stream.closed"
    assert frames[-1].data["reason"] == reason
    assert stream.ended == "cut"
    facts: dict[str, object] = frames[-1].data
    return facts


async def test_a_drain_is_told_and_the_answer_aborted(store: RunningStore) -> None:
    """Half of the clients take a clean end for the end of the run; the place to go on is told, and when."""
    async with run_gateway(store.url) as api:
        run = await api.run_in("running")
        async with open_stream(api, f"/v1/runs/{run['id']}/stream") as stream:
            frames = await stream.take(5)
            await api.gateway.close_streams(0)
            facts = await expect_closed(stream, "drain")
            assert facts == {"reason": "drain", "resume_after": frames[-1].last_id}
            (retry_ms,) = re.findall(rb"retry: (\d+)\n\n$", stream.body)
            assert 1000 <= int(retry_ms) <= 4000


async def test_a_request_while_draining_is_dropped_unanswered(store: RunningStore) -> None:
    """A browser comes back after that, to another process; after a 503 it would not."""
    async with run_gateway(store.url) as api:
        run = await api.run_in("running")
        await api.gateway.close_streams(0)
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        head = f"GET /v1/runs/{run['id']}/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.key}\r\n\r\n"
        writer.write(head.encode())
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()


async def test_a_ticket_that_expires_ends_its_streams(store: RunningStore) -> None:
    """Soon after the time, and not only when the client comes back; and it does not come back with it."""
    async with run_gateway(store.url, access_recheck_s=0.1) as api:
        run = await api.run_in("running")
        ticket = await new_ticket(api, runs=[run["id"]], ttl_s=1)
        path = f"/v1/runs/{run['id']}/stream?ticket={ticket}"
        async with open_stream(api, path, key=None) as stream:
            began_s = time.monotonic()
            await stream.take(5)
            facts = await expect_closed(stream, "ticket_expired")
            assert str(facts["resume_after"]).startswith("4-")
            assert time.monotonic() - began_s < 5
        refusal = await read_stream(api, path, key=None)
        assert refusal.status == 401


async def test_a_key_that_is_revoked_ends_its_streams_and_its_tickets_streams(store: RunningStore) -> None:
    """Both learn of it within the time that is set for looking."""
    async with run_gateway(store.url, access_recheck_s=0.1) as api:
        run = await api.run_in("running")
        key, record = await new_key(api)
        headers = {"Authorization": f"Bearer {key}"}
        answer = await api.client.post("/v1/tickets", json={"runs": [run["id"]]}, headers=headers)
        assert answer.status_code == 201, answer.text
        ticket = answer.json()["ticket"]
        path = f"/v1/runs/{run['id']}/stream"
        async with (
            open_stream(api, path, key=key) as by_key,
            open_stream(api, f"{path}?ticket={ticket}", key=None) as by_ticket,
            open_stream(api, path) as other,
        ):
            for stream in (by_key, by_ticket, other):
                await stream.take(5)
            assert (await api.client.delete(f"/v1/keys/{record.id}")).status_code in (200, 204)
            await expect_closed(by_key, "key_revoked")
            await expect_closed(by_ticket, "key_revoked")
            await api.append(run["id"], LOG)
            assert len(await other.events(1)) == 1


async def test_a_revocation_that_nobody_told_of_is_found(store: RunningStore) -> None:
    """The key is looked at again and again, whether or not a hint came."""
    async with run_gateway(store.url, access_recheck_s=0.1) as api, open_link(store.url) as link:
        run = await api.run_in("running")
        key, record = await new_key(api)
        async with open_stream(api, f"/v1/runs/{run['id']}/stream", key=key) as stream:
            await stream.take(5)
            raw = json.loads(await link.call("HGET", store_keys.API_KEYS, record.digest))
            await link.call("HSET", store_keys.API_KEYS, record.digest, json.dumps(raw | {"revoked_at_ms": 1}))
            await expect_closed(stream, "key_revoked")


async def test_a_client_that_leaves_leaves_nothing_behind(store: RunningStore) -> None:
    """Neither a reader nor a task; and the run goes on as before: a disconnect is not a cancel."""
    async with run_gateway(store.url) as api:
        run = await api.run_in("running")
        for _ in range(5):
            async with open_stream(api, f"/v1/runs/{run['id']}/stream") as stream:
                await stream.next()
        await wait_until(lambda: not api.gateway.hub.outlets)
        assert (await api.append(run["id"], LOG)).json()["status"] == "running"


async def test_a_head_request_is_answered_and_ends(api: RunningGateway) -> None:
    """The headers of a stream without the stream; the connection is free after it."""
    run = await api.run_in("running")
    async with open_stream(api, f"/v1/runs/{run['id']}/stream", method="HEAD") as stream:
        assert stream.headers.items() >= HEADERS.items()
        again = Stream(stream.reader, stream.writer)
        await send_request(again, api, f"/v1/runs/{run['id']}")
        assert json.loads(again.body)["status"] == "running"


async def test_a_page_of_an_allowed_origin_may_read_a_stream(store: RunningStore) -> None:
    """Its browser is told so on every answer: a stream, the end of one, a refusal."""
    async with run_gateway(store.url, cors_origins=("https://app.example",)) as api:
        run = await api.run_in("completed")
        for query, status in (("", 200), ("?after_seq=5", 204), ("?after=x", 400)):
            headers = {"Origin": "https://app.example"}
            stream = await read_stream(api, f"/v1/runs/{run['id']}/stream{query}", headers=headers)
            assert stream.status == status
            assert stream.headers["access-control-allow-origin"] == "https://app.example"


async def test_httpx_sse_reads_a_stream(store: RunningStore) -> None:
    """The commonest Python client: every event, no phantom, pings or not."""
    async with run_gateway(store.url, keepalive_s=0.05) as api:
        run = await api.run_in("running")
        got: list[tuple[str, str, str]] = []
        async with aconnect_sse(api.client, "GET", f"/v1/runs/{run['id']}/stream") as source:
            async for event in source.aiter_sse():
                # The line `retry` with its blank line is no event to the standard; to this client it is one.
                if event.retry is None:
                    got.append((event.event, event.id, event.data))
                if len(got) == 5 and event.data:
                    await asyncio.sleep(0.2)
                    await api.append(run["id"], LOG, COMPLETE)
        mine = await frames_of(api, f"/v1/runs/{run['id']}/stream")
        assert [(name, json.loads(data)) for name, _, data in got[1:]] == [(f.name, f.data) for f in mine[1:]]
        places = [place for name, place, _ in got if name == "message"]
        assert places == [f.last_id for f in mine if f.name == "message"]


async def test_a_last_event_id_survives_control_frames(api: RunningGateway) -> None:
    """A page that reconnects after any frame sends the id of the last event that it got."""
    run = await api.run_in("completed")
    frames = await frames_of(api, f"/v1/runs/{run['id']}/stream")
    assert frames[0].last_id == ""
    assert frames[-1].name == "stream.end"
    assert frames[-1].last_id == frames[-2].last_id != ""


async def test_a_slow_reader_gets_everything_and_slows_nobody(store: RunningStore) -> None:
    """A client that reads nothing while megabytes are written is caught up from the log when it wakes."""
    async with run_gateway(store.url, ring_bytes=262_144, ring_entries=100) as api:
        run = await api.run_in("running")
        async with (
            open_stream(api, f"/v1/runs/{run['id']}/stream") as slow,
            open_stream(api, f"/v1/runs/{run['id']}/stream") as quick,
        ):
            text = "x" * 20_000
            for _ in range(20):
                batch = [("log", {"level": "info", "message": text})] * 40
                assert (await api.append(run["id"], *batch)).status_code == 200
                await quick.take(40)
            (held,) = {outlet for outlet in api.gateway.hub.outlets if outlet.busy}
            assert len(held._postponed) == 0
            await api.append(run["id"], COMPLETE)
            assert seqs_of(await slow.rest()) == list(range(1, 806))
            assert slow.ended == "clean"
