"""A run's trace, from the request that creates it to the last delivery, as a collector gets it over OTLP."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.processes import GatewayProcess, serving
from tests.support.receiver import SECRET, Receiver, run_receiver
from tests.support.running import wait_until

pytestmark = pytest.mark.anyio

PATIENCE_S = 30.0
TRACE, CLIENT_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
APPENDING = "POST /v1/runs/{run_id}/events"
SENT = {"traceparent": f"00-{TRACE}-{CLIENT_SPAN}-01"}


def spans_of(collector: Receiver) -> list[Span]:
    """Return the spans that a collector was sent."""
    found: list[Span] = []
    for got in collector.received:
        assert got.path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(got.body).resource_spans:
            named = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}
            assert named["service.name"] == "run-gateway"
            found += [span for scope in resource.scope_spans for span in scope.spans]
    return found


def find(collector: Receiver, name: str, trace_id: str = TRACE) -> list[Span]:
    """Return the spans of a trace that have a name."""
    return [span for span in spans_of(collector) if span.name == name and span.trace_id.hex() == trace_id]


def facts(span: Span) -> dict[str, Any]:
    """Return a span's attributes."""
    return {one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in span.attributes}


def point(monkeypatch: pytest.MonkeyPatch, collector: Receiver) -> None:
    """Have gateways that are started from now on send to a collector, soon."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")


async def test_a_trace_leads_from_the_creating_request_to_the_last_delivery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Request, run, claim, the worker's append, stream and webhook are spans of the client's trace, each below the
    right one and in their order."""
    async with run_receiver() as collector, run_receiver() as hook:
        point(monkeypatch, collector)
        settings: dict[str, Any] = {"traces": "otlp", "webhook_http": "allow", "webhook_private": "allow"}
        async with serving(tmp_path / "data", **settings) as gateway, gateway.client() as client:
            about = {"url": hook.url, "secret": SECRET, "events": ["run.completed"]}
            body = {"agent_id": "tracer", "mode": "queued", "webhooks": [about]}
            run = (await client.post("/v1/runs", json=body, headers=SENT)).json()
            assert run["trace_id"] == TRACE
            claims = await client.post("/v1/claims", json={"queues": ["default"], "wait_s": 20, "worker": "w1"})
            (claimed,) = claims.json()["data"]
            await finish(gateway, run["id"], claimed)
            read = await client.get(f"/v1/runs/{run['id']}/stream")
            assert "stream.end" in read.text
            await wait_until(lambda: hook.received, timeout_s=PATIENCE_S)
            names = ("run tracer", "claim", "deliver", "webhook", "append", APPENDING)
            await wait_until(lambda: all(find(collector, name) for name in names), timeout_s=PATIENCE_S)

        (created,) = find(collector, "POST /v1/runs")
        (life,) = find(collector, "run tracer")
        (delivered,) = find(collector, "deliver")
        (told,) = find(collector, "webhook")
        (taken,) = find(collector, "claim")
        (worked,) = find(collector, APPENDING)
        assert created.parent_span_id.hex() == CLIENT_SPAN
        assert life.parent_span_id == created.span_id
        assert delivered.parent_span_id == told.parent_span_id == life.span_id
        assert taken.parent_span_id == worked.parent_span_id == life.span_id
        for request in (created, worked):
            assert any(span.parent_span_id == request.span_id for span in find(collector, "append"))
        assert (facts(taken)["gateway.worker"], facts(taken)["gateway.queue"]) == ("w1", "default")
        ends = [span.end_time_unix_nano for span in (created, taken, worked, delivered)]
        assert ends == sorted(ends)
        # Whoever works, and whoever is told, can join.
        joined = f"00-{TRACE}-{life.span_id.hex()}-01"
        assert claimed["traceparent"] == joined
        assert hook.received[0].headers["traceparent"] == joined
        assert (facts(life)["gateway.status"], facts(life)["gateway.run_id"]) == ("completed", run["id"])
        assert facts(delivered)["gateway.events"] == facts(life)["gateway.events"]
        assert created.start_time_unix_nano <= delivered.end_time_unix_nano
        assert [event.name for event in life.events] == ["started"]
        # The worker's first request told no trace: it has one of its own, and names the run.
        (own,) = [span for span in spans_of(collector) if span.name == APPENDING and span.trace_id.hex() != TRACE]
        assert facts(own)["gateway.run_id"] == facts(worked)["gateway.run_id"] == run["id"]


async def finish(gateway: GatewayProcess, run_id: str, claimed: dict[str, Any]) -> None:
    """Complete a claimed run, with a request that tells no trace and one in the run's."""
    async with gateway.client(headers={"authorization": f"Bearer {gateway.key}"}) as worker:
        lease = {"lease": claimed["lease"]["token"]}
        events = [
            {"type": "log", "data": {"level": "info", "message": "x"}},
            {"type": "run.completed", "data": {"output": 1}},
        ]
        for event, told in zip(events, ({}, {"traceparent": claimed["traceparent"]}), strict=True):
            answer = await worker.post(f"/v1/runs/{run_id}/events", json={"events": [event]}, headers=lease | told)
            assert answer.status_code == 200, answer.text


async def test_a_trace_that_its_sender_does_not_keep_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those that nobody has decided about, the share is kept that the operator says: none here."""
    async with run_receiver() as collector:
        point(monkeypatch, collector)
        async with serving(tmp_path / "data", traces="otlp", trace_share=0) as gateway, gateway.client() as client:
            unkept = {"traceparent": f"00-{'a' * 32}-{CLIENT_SPAN}-00"}
            body = {"agent_id": "tracer", "mode": "direct"}
            assert (await client.post("/v1/runs", json=body, headers=unkept)).status_code == 201
            assert (await client.post("/v1/runs", json=body)).status_code == 201
            assert (await client.post("/v1/runs", json=body, headers=SENT)).status_code == 201
            await wait_until(lambda: find(collector, "POST /v1/runs"), timeout_s=PATIENCE_S)
        assert {span.trace_id.hex() for span in spans_of(collector)} == {TRACE}


def test_without_being_asked_for_nothing_that_traces_is_imported() -> None:
    """The extra costs nobody anything who does not use it, not even where it is installed.

    The client library of the store imports the API and the metrics where it finds them, by itself.
    """
    program = "import sys, gateway.commands.serve; print(*(name for name in sys.modules if 'opentelemetry' in name))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    imported = ran.stdout.split()
    assert [name for name in imported if name.startswith(("opentelemetry.sdk.trace", "opentelemetry.exporter"))] == []


def test_being_asked_for_without_being_installed_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """At start, in a sentence, instead of at the first span."""
    program = (
        "import importlib.util as u, sys; real = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name.startswith('opentelemetry') else real(name, *rest)\n"
        "sys.argv = ['gateway', 'serve', '--port', '0', '--data-dir', sys.argv[1]]\n"
        "from gateway.__main__ import main; main()\n"
    )
    environment = {"GATEWAY_TRACES": "otlp", "PATH": "/usr/bin:/bin"}
    asked = [sys.executable, "-c", program, str(tmp_path / "data")]
    ran = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert ran.returncode == 1
    assert ran.stderr == "gateway: GATEWAY_TRACES=otlp needs OpenTelemetry: pip install 'run-gateway[otel]'.\n"
