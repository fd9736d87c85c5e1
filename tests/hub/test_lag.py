"""Readers that lag are counted by what they wait for, and named when it lasts."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest
from prometheus_client import REGISTRY

from gateway.hub import lag
from gateway.hub.lag import Survey, describe
from tests.support.running import RunningGateway, RunningStore, run_gateway, wait_until

pytestmark = pytest.mark.anyio

PATIENCE_S = 30.0


async def test_a_client_that_does_not_read_is_counted_and_named(
    store: RunningStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """How many, by how much and since when are metrics; who it is stands in the log, once, until it has caught up."""
    monkeypatch.setattr(lag, "TOLD_S", 0.5)
    caplog.set_level(logging.WARNING, "gateway.readers")
    async with run_gateway(store.url) as gateway:
        run_id = (await gateway.create_run())["id"]
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.connect(("127.0.0.1", gateway.port))
            ask = f"GET /v1/runs/{run_id}/stream HTTP/1.1\r\nHost: x\r\nX-Request-Id: slow-1\r\n"
            client.sendall(f"{ask}Authorization: Bearer {gateway.key}\r\n\r\n".encode())
            await wait_until(lambda: len(gateway.gateway.hub.outlets) == 1, timeout_s=PATIENCE_S)
            await append_until_stuck(gateway, run_id)
            await wait_until(lambda: (sample("gateway_reader_lag_seconds_max") or 0) > 0.5, timeout_s=PATIENCE_S)
            assert sample("gateway_readers_behind", transport="sse", reason="connection") == 1
            assert (sample("gateway_reader_lag_events_max") or 0) > 0
            await wait_until(lambda: caplog.records, timeout_s=PATIENCE_S)
            await asyncio.to_thread(read_all, client)
            await wait_until(lambda: sample("gateway_reader_lag_seconds_max") == 0, timeout_s=PATIENCE_S)
        assert sample("gateway_readers_behind", transport="sse", reason="connection") == 0
    (told,) = caplog.records
    facts = vars(told)
    assert (facts["request_id"], facts["tenant"], facts["logs"]) == ("slow-1", gateway.tenant, [run_id])
    assert (facts["reason"], facts["transport"]) == ("connection", "sse")
    assert facts["lag_events"] > 0
    assert facts["behind_since"].endswith("Z")
    assert facts["key_id"]


async def append_until_stuck(gateway: RunningGateway, run_id: str) -> None:
    """Append until the only reader takes no more and lacks events."""
    (outlet,) = gateway.gateway.hub.outlets
    for _ in range(400):
        await gateway.append(run_id, *[("custom.bulk", {"text": "x" * 50_000})] * 10)
        if outlet.busy and lag.lag_events(outlet) > 20:
            return
    raise AssertionError("the connection takes everything")


def read_all(client: socket.socket) -> None:
    """Read what there is until nothing comes for a while."""
    client.settimeout(2)
    try:
        while client.recv(1 << 20):
            pass
    except TimeoutError:
        return


def sample(name: str, **labels: str) -> float | None:
    """Return a metric's value in this process."""
    return REGISTRY.get_sample_value(name, labels)


async def test_a_reader_that_has_everything_is_not_behind(api: RunningGateway) -> None:
    """An open stream without news is no lag, whatever its log holds."""
    run_id = (await api.create_run())["id"]
    async with api.client.stream("GET", f"/v1/runs/{run_id}/stream") as answer:
        await anext(answer.aiter_text())
        (outlet,) = api.gateway.hub.outlets
        await wait_until(lambda: not outlet.busy, timeout_s=PATIENCE_S)
        survey = Survey()
        survey.look(outlet)
        survey.end()
        assert sample("gateway_reader_lag_seconds_max") == 0
        told = describe(outlet)
    assert told["lag_events"] == 0
    assert "reason" not in told
    assert "behind_since" not in told
