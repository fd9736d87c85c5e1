"""Streams begun from the connection: what the application's way says, the short way says too."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import httpx
import pytest

from tests.support.native import accepted
from tests.support.running import RunningGateway, wait_until

pytestmark = pytest.mark.anyio

# A header that only the application's way takes, and that means nothing to the route.
OTHER_WAY = {"te": "trailers"}
READ_S = 5.0


def target(run_id: str, query: str = "") -> str:
    """Return the path of a run's stream."""
    return f"/v1/runs/{run_id}/stream{query}"


def scrub(text: str, run_id: str) -> str:
    """Return a text without what differs from request to request."""
    text = re.sub(r'"request_id":"[0-9a-f]+"', '"request_id":"r"', text)
    return re.sub(r'"(ticket|jti)":"[^"]+"', "", text.replace(run_id, "RUN"))


async def begin(
    api: RunningGateway, run_id: str, query: str, headers: dict[str, str], until: str
) -> tuple[int, list[tuple[str, str]], str]:
    """Return status, headers and what came of the body: all of it, or up to `until`."""
    async with api.client.stream("GET", target(run_id, query), headers=headers) as answer:
        names = [(name, value) for name, value in answer.headers.multi_items() if name not in ("date", "x-request-id")]
        assert answer.headers["x-request-id"]
        body = ""
        async with asyncio.timeout(READ_S):
            async for part in answer.aiter_text():
                body += part
                if until and until in body:
                    break
        return answer.status_code, names, scrub(body, run_id)


@pytest.mark.parametrize(
    ("query", "headers", "until"),
    [
        ("", {}, "message.delta"),
        ("?after_seq=1", {}, "message.delta"),
        ("?after=0-0", {}, ""),
        ("?types=message.*", {}, "message.delta"),
        ("?types=message.delta&after_seq=2", {"Last-Event-ID": ""}, "message.delta"),
        ("?snapshot=true", {}, "event: stream.snapshot"),
        ("?linger_ms=20", {}, "message.delta"),
        ("", {"Last-Event-ID": "1"}, "message.delta"),
        ("", {"Last-Event-ID": "nonsense"}, "message.delta"),
        ("", {"Last-Event-ID": "99999-1"}, "message.delta"),
        ("", {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, "message.delta"),
        ("?after_seq=-1", {}, ""),
        ("?after_seq=1&after_seq=2", {}, ""),
        ("?colour=red", {}, ""),
        ("?types=%ff", {}, ""),
        ("?types=run.", {}, ""),
        ("?linger_ms=many", {}, ""),
        ("?ticket=none", {}, ""),
        ("", {"Authorization": "Bearer gwk_unknown"}, ""),
        ("", {"Authorization": "Basic eDp5"}, ""),
        ("", {"x-api-key": "gwk_other"}, ""),
    ],
)
async def test_both_ways_say_the_same(api: RunningGateway, query: str, headers: dict[str, str], until: str) -> None:
    """The same request by both: status, headers in their order, and every byte of the body."""
    run = await api.run_in("running")
    accepted(await api.append(run["id"], ("message.delta", {"content": "x"})))
    short = await begin(api, run["id"], query, headers, until)
    long = await begin(api, run["id"], query, {**headers, **OTHER_WAY}, until)
    assert short == long
    assert (short[0] == 200) is bool(until)


@pytest.mark.parametrize("name", ["nothing", "00000000000000000000000000", "0" * 300, "%41"])
async def test_a_run_that_is_not_there_is_told_alike(api: RunningGateway, name: str) -> None:
    """An id that no run can have, one that no run has, one that is too long, one that is written in another way."""
    answers = [await api.client.get(target(name), headers=headers) for headers in ({}, OTHER_WAY)]
    assert [answer.status_code for answer in answers] == [404, 404]
    bodies = [{**answer.json(), "request_id": ""} for answer in answers]
    assert bodies[0] == bodies[1]


async def test_an_ended_run_is_told_alike(api: RunningGateway) -> None:
    """All of it, with an end; nothing for who has all of it; a connection is used again after each."""
    run = await api.run_in("completed")
    ways = [await begin(api, run["id"], "", headers, "") for headers in ({}, OTHER_WAY)]
    assert ways[0] == ways[1]
    assert "event: stream.end" in ways[0][2]
    head = accepted(await api.client.get(f"/v1/runs/{run['id']}"))["head_seq"]
    for headers in ({}, OTHER_WAY):
        answer = await api.client.get(target(run["id"], f"?after_seq={head}"), headers=headers)
        assert (answer.status_code, answer.content) == (204, b"")


async def test_a_ticket_opens_as_many_connections_as_it_is_for(api: RunningGateway) -> None:
    """One for one is spent by either way."""
    run = await api.run_in("running")
    body = {"runs": [run["id"]], "single_use": True}
    for first, second in (({}, OTHER_WAY), (OTHER_WAY, {})):
        ticket = accepted(await api.client.post("/v1/tickets", json=body), 201)["ticket"]
        async with httpx.AsyncClient(base_url=api.url) as client:
            async with client.stream("GET", target(run["id"], f"?ticket={ticket}"), headers=first) as opened:
                assert opened.status_code == 200
            again = await client.get(target(run["id"], f"?ticket={ticket}"), headers=second)
        assert (again.status_code, again.json()["reason"]) == (401, "ticket_used")


async def speak(api: RunningGateway) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a bare connection."""
    url = httpx.URL(api.url)
    return await asyncio.open_connection(url.host, url.port)


def request(api: RunningGateway, path: str, **fields: str) -> bytes:
    """Return a request's bytes."""
    head = {"Host": "here", "Authorization": str(api.client.headers["authorization"]), **fields}
    return "\r\n".join([f"GET {path} HTTP/1.1", *(f"{k}: {v}" for k, v in head.items()), "", ""]).encode()


async def test_requests_in_pieces_and_behind_each_other_are_answered_in_order(api: RunningGateway) -> None:
    """A stream that comes in two pieces; one that ends, with another behind it; a plain request after both."""
    run = await api.run_in("completed")
    reader, writer = await speak(api)
    stream, plain = request(api, target(run["id"])), request(api, f"/v1/runs/{run['id']}", Connection="close")
    writer.write(stream[:40])
    await writer.drain()
    writer.write(stream[40:])
    writer.write(stream + stream + plain)
    async with asyncio.timeout(READ_S):
        said = await reader.read()
    writer.close()
    heads = re.findall(rb"HTTP/1\.1 (\d+) \w+\r\n", said)
    assert heads == [b"200"] * 4
    assert said.count(b"event: stream.end") == 3
    assert json.loads(said.rpartition(b"\r\n\r\n")[2])["id"] == run["id"]


@pytest.mark.parametrize("way", [{}, OTHER_WAY])
async def test_a_peer_that_leaves_while_its_stream_is_opened_leaves_nothing_behind(
    api: RunningGateway, way: dict[str, str]
) -> None:
    """However early: no reader is counted for long, and the next one is served."""
    run = await api.run_in("running")

    async def count_readers() -> int:
        readers: list[Any] = accepted(await api.client.get("/v1/readers", params={"run_id": run["id"]}))["data"]
        return len(readers)

    for _ in range(20):
        _, writer = await speak(api)
        writer.write(request(api, target(run["id"]), **way))
        await writer.drain()
        writer.transport.abort()

    async def nobody() -> bool:
        return await count_readers() == 0

    await wait_until(nobody)
    assert (await begin(api, run["id"], "", way, "stream.open"))[0] == 200
