"""A gateway that is told to stop while it is busy."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from itertools import pairwise
from pathlib import Path

import httpx
import msgspec
import pytest

from tests.scenarios.claims import check_all
from tests.scenarios.crowd import Crowd, gather
from tests.scenarios.raw import SlowPost
from tests.support.processes import GatewayProcess, serving
from tests.support.readers import SseReader, WebSocketReader
from tests.support.running import wait_until
from tests.support.writers import Writer, create_run, log_event

pytestmark = pytest.mark.anyio

LEAD_S = 2.0
DRAIN_S = 0.6
MARGIN_S = 4.0
READERS = 5
RESTARTING = 1012
EVENTS_BETWEEN = 200


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_drain_under_load_loses_nothing(data_dir: Path, workers: int) -> None:
    """Readiness turns red first, appends under way are answered, streams are told and cut, the process ends in
    time with status 0, and after the next start everybody goes on where they stood."""
    settings = {"readiness_lead_s": LEAD_S, "drain_s": DRAIN_S}
    async with serving(data_dir, workers=workers, **settings) as gateway:
        async with gather(gateway, writers=4, readers=READERS) as crowd:
            for _ in range(2):
                await crowd.grows(EVENTS_BETWEEN)
                await drain(gateway, crowd)
                await gateway.start()
                await crowd.grows(EVENTS_BETWEEN)
        for reader in crowd.bare:
            check_farewells(reader)
        assert "Traceback" not in gateway.log, gateway.log


async def test_an_append_under_way_is_answered(data_dir: Path) -> None:
    """An append whose body is still arriving when the gateway stops accepting is stored and answered."""
    async with serving(data_dir, readiness_lead_s=0, drain_s=3) as gateway, gateway.client() as client:
        run_id = await create_run(client)
        writer = Writer(client, run_id, "w")
        await writer.append(1)
        reader = SseReader(gateway.url, gateway.key, run_id)
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            tasks.create_task(reader.run())
            await reader.transcript.reaches(max(writer.acknowledged))
            body = msgspec.json.encode({"events": [log_event("w-2")]})
            async with SlowPost(gateway, f"/v1/runs/{run_id}/events", body) as post:
                await post.send(10)
                gateway.signal(signal.SIGTERM)
                await wait_until(lambda: reader.transcript.told("stream.closed"))
                await wait_until(lambda: not accepts(gateway))
                await post.send()
                status, reply = await post.answer()
            assert status == 200, reply
            writer.acknowledged[reply["first_seq"]] = "w-2"
            assert await gateway.wait() == 0
            await gateway.start()
            await writer.complete()
        await check_all(client, run_id, [writer], [reader.transcript])


async def test_whoever_waits_is_answered_or_cut_at_once(data_dir: Path) -> None:
    """A wait for a run's end is answered with the run as it is, a streamed append is cut behind its last answer,
    an idle connection is closed with its next answer; nothing of it delays the end, or is logged as a failure."""
    async with serving(data_dir, readiness_lead_s=0, drain_s=4) as gateway, gateway.client() as client:
        run_id = await create_run(client)
        await Writer(client, run_id, "w").append(1)
        # Of two readers the second leaves half a window after the first: so long the process is there.
        readers = [await begin(gateway, f"GET /v1/runs/{run_id}/stream") for _ in range(2)]
        lines, body = await begin(gateway, f"POST /v1/runs/{run_id}/events", "Content-Type: application/x-ndjson")
        line = msgspec.json.encode(log_event("line")) + b"\n"
        body.write(b"%x\r\n%b\r\n" % (len(line), line))
        async with asyncio.timeout(20), gateway.client() as idle:
            assert b'"line":1' in await lines.readuntil(b"}\n\r\n")
            held = asyncio.create_task(client.get(f"/v1/runs/{run_id}/wait?timeout_s=50"))
            # Asked after the wait, on another connection: by then the wait is held, or will be looked at as one.
            assert "connection" not in (await idle.get(f"/v1/runs/{run_id}")).headers
            gateway.signal(signal.SIGTERM)
            answer = await held
            assert (answer.status_code, answer.json()["status"]) == (200, "running")
            assert await lines.read() == b""
            answer = await idle.get(f"/v1/runs/{run_id}")
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")
            with pytest.raises(httpx.ConnectError):
                await idle.get(f"/v1/runs/{run_id}")
            assert await gateway.wait() == 0
        for _, writer in (*readers, (lines, body)):
            writer.close()
        assert "Traceback" not in gateway.log, gateway.log


async def begin(
    gateway: GatewayProcess, request: str, header: str = "Accept: */*"
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a request whose body goes on, and read the head of its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    chunked = "Transfer-Encoding: chunked\r\n" if request.startswith("POST") else ""
    head = f"{request} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {gateway.key}\r\n{header}\r\n{chunked}\r\n"
    writer.write(head.encode())
    async with asyncio.timeout(10):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    return reader, writer


def accepts(gateway: GatewayProcess) -> bool:
    """Tell whether a new connection is taken."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", gateway.port)) == 0


async def drain(gateway: GatewayProcess, crowd: Crowd) -> None:
    """Stop the gateway and check the order and the time in which it does so."""
    family = gateway.family()
    assert len(family) == 1 + 1 + (gateway.workers if gateway.workers > 1 else 0)
    async with gateway.client() as client:
        assert (await client.get("/readyz")).status_code == 200
        began_s = time.monotonic()
        gateway.signal(signal.SIGTERM)
        await wait_until(lambda: is_red(client), timeout_s=LEAD_S)
        # Red, and still at work: this is the time in which balancers learn of it.
        await crowd.grows(1)
        async with gateway.client() as newcomer:
            assert (await newcomer.get("/healthz")).status_code == 200
    assert await gateway.wait() == 0
    took_s = time.monotonic() - began_s
    assert LEAD_S <= took_s < LEAD_S + DRAIN_S + MARGIN_S
    print(f"drained in {took_s:.2f} s")
    await wait_until(lambda: not gateway.family())


async def is_red(client: httpx.AsyncClient) -> bool:
    """Tell whether readiness says that the gateway is draining."""
    answer = await client.get("/readyz")
    return answer.status_code == 503 and "draining" in answer.text


def check_farewells(reader: SseReader | WebSocketReader) -> None:
    """Each drain was announced to the reader with the place where it stood, then its connection was ended."""
    frames = reader.transcript.frames
    closings = [facts for name, facts in frames if name == "stream.closed"]
    assert [facts["reason"] for facts in closings] == ["drain"] * len(closings)
    assert len(closings) >= 2
    if isinstance(reader, WebSocketReader):
        assert reader.closings.count(RESTARTING) >= 2
    else:
        assert reader.cut_short >= 2
    cursors = {seen.cursor for seen in reader.transcript.seen}
    assert {facts["resume_after"] for facts in closings} <= cursors
    for (name, told), (following, opened) in pairwise(frames):
        if name == "stream.closed":
            assert following == "stream.open"
            assert opened["after_seq"] == int(told["resume_after"].partition("-")[0])
