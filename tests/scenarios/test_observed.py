"""A gateway of two processes, seen as its operator sees it: through `/metrics` and its log."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import Response

from tests.support.processes import GatewayProcess, serving
from tests.support.receiver import SECRET, run_receiver
from tests.support.running import wait_until

pytestmark = pytest.mark.anyio

PATIENCE_S = 30.0
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


async def scrape(gateway: GatewayProcess, name: str) -> float:
    """Return the sum of a metric's samples, as whichever process answers a new connection tells it."""
    async with gateway.client() as scraper:
        text = (await scraper.get("/metrics")).text
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


async def open_streams(gateway: GatewayProcess, run_id: str, count: int) -> list[asyncio.StreamWriter]:
    """Open streams of a run, each on a connection of its own, once their heads have come."""
    request = f"GET /v1/runs/{run_id}/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.key}\r\n\r\n"
    writers = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(request.encode())
        await reader.readuntil(b"\r\n\r\n")
        writers.append(writer)
    return writers


async def test_the_processes_of_a_gateway_are_counted_as_one(tmp_path: Path) -> None:
    """Whichever process is asked tells the sums; one that is killed takes its readers along, and no counter falls."""
    async with serving(tmp_path / "data", workers=2) as gateway, gateway.client() as client:
        await wait_until(lambda: _is(gateway, "gateway_processes", 2), timeout_s=PATIENCE_S)
        run_id = (await client.post("/v1/runs", json={"agent_id": "a", "mode": "direct"})).json()["id"]
        streams = await open_streams(gateway, run_id, 24)
        ports = [writer.get_extra_info("sockname")[1] for writer in streams]
        workers = [gateway.worker_of(port) for port in ports]
        for _ in range(20):
            async with gateway.client() as fresh:
                event = {"type": "log", "data": {"level": "info", "message": "x"}}
                answer = await fresh.post(f"/v1/runs/{run_id}/events", json={"events": [event]})
                assert answer.status_code == 200
        # Created, queued and started, too.
        events = 20 + 3
        for _ in range(6):
            assert await scrape(gateway, "gateway_readers") == 24
            assert await scrape(gateway, "gateway_events_appended_total") == events
        assert len(set(workers)) == 2, "one process got all connections"

        victim = next(process for process in gateway.serving_workers() if process.pid == workers[0])
        victim.kill()
        left = sum(pid != workers[0] for pid in workers)
        await wait_until(lambda: _is(gateway, "gateway_readers", left), timeout_s=PATIENCE_S)
        await wait_until(lambda: _is(gateway, "gateway_processes", 2), timeout_s=PATIENCE_S)
        assert await scrape(gateway, "gateway_events_appended_total") == events
        assert await scrape(gateway, "gateway_process_cpu_seconds_total") > 0
        for writer in streams:
            writer.close()


async def _is(gateway: GatewayProcess, name: str, value: float) -> bool:
    try:
        return await scrape(gateway, name) == value
    except httpx.TransportError:
        # It was asked of the process that is being killed.
        return False


async def test_the_log_says_of_each_answer_and_stream_whose_it_is(tmp_path: Path) -> None:
    """One JSON object a line, with request, trace, run, tenant and key; a stream's end with what it delivered."""
    async with serving(tmp_path / "data", log_format="json", access_log="all") as gateway, gateway.client() as client:
        run_id = (await client.post("/v1/runs", json={"agent_id": "a", "mode": "direct"})).json()["id"]
        headers = {"x-request-id": "asked-1", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
        done = {"events": [{"type": "run.completed", "data": {"output": 1}}]}
        appended = await client.post(f"/v1/runs/{run_id}/events", json=done, headers=headers)
        assert appended.status_code == 200, appended.text
        read = await client.get(f"/v1/runs/{run_id}/stream", headers={**headers, "x-request-id": "asked-2"})
        assert "stream.end" in read.text
        await client.get("/v1/runs/forged%0A%1B%5B31m", headers={"x-request-id": "asked-3"})
        await wait_until(lambda: len(lines_of(gateway)) >= 5, timeout_s=PATIENCE_S)

    told = {(line["request_id"], line["message"]): line for line in lines_of(gateway)}
    append = told["asked-1", f"POST /v1/runs/{run_id}/events 200"]
    assert (append["route"], append["status"], append["method"]) == ("/v1/runs/{run_id}/events", 200, "POST")
    assert (append["trace_id"], append["run_id"], append["tenant"]) == (TRACE, run_id, "default")
    assert append["duration_ms"] > 0
    assert append["bytes"] > 0
    assert append["key_id"]
    ended = told["asked-2", "stream ended"]
    assert (ended["cause"], ended["events"], ended["transport"]) == ("end", appended.json()["last_seq"], "sse")
    assert (ended["trace_id"], ended["run_id"], ended["tenant"]) == (TRACE, run_id, "default")
    refused = next(line for (request_id, _), line in told.items() if request_id == "asked-3")
    assert refused["status"] in (400, 404)
    assert all(gateway.key not in json.dumps(line) for line in told.values())


async def test_what_happens_by_itself_names_its_run_and_trace(tmp_path: Path) -> None:
    """A webhook that is not taken and a timer that ends a run have lines, as the request that created it has."""
    settings: dict[str, Any] = {"webhook_http": "allow", "webhook_private": "allow"}
    async with (
        run_receiver() as hook,
        serving(tmp_path / "data", log_format="json", access_log="all", **settings) as gateway,
        gateway.client() as client,
    ):
        hook.answer = lambda _number, _got: Response(status_code=500)
        about = {"url": hook.url, "secret": SECRET, "events": ["run.created"]}
        body = {"agent_id": "a", "mode": "direct", "webhooks": [about], "heartbeat_s": 1}
        headers = {"x-request-id": "asked-1", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
        created = await client.post("/v1/runs", json=body, headers=headers)
        assert created.status_code == 201, created.text
        run_id = created.json()["id"]
        begun = {"events": [{"type": "log", "data": {"level": "info", "message": "x"}}]}
        assert (await client.post(f"/v1/runs/{run_id}/events", json=begun)).status_code == 200
        loggers = ("gateway.webhooks", "gateway.timers")
        await wait_until(lambda: all(lines_of(gateway, each) for each in loggers), timeout_s=PATIENCE_S)

    (asked,) = [line for line in lines_of(gateway) if line["route"] == "/v1/runs"]
    told, timed = (lines_of(gateway, each)[0] for each in loggers)
    for line in (asked, told, timed):
        assert (line["run_id"], line["trace_id"], line["tenant"]) == (run_id, TRACE, "default")
    assert asked["request_id"] == "asked-1"
    assert (told["level"], told["outcome"], told["status"]) == ("INFO", "retrying", 500)
    assert (told["seq"], told["attempt"]) == (1, 1)
    assert told["rest_ms"] > 0
    assert (timed["was"], timed["status"]) == ("running", "crashed")
    assert SECRET not in gateway.log


def lines_of(gateway: GatewayProcess, logger: str = "gateway.access") -> list[dict[str, Any]]:
    """Return the lines of one logger in its log."""
    lines = [json.loads(line) for line in gateway.log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["logger"] == logger]
