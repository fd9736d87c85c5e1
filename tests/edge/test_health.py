"""What a balancer and a scraper read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from gateway import telemetry
from gateway.edge.health import health_routes


async def get(path: str, reasons: list[str] | None = None, accept: str = "*/*") -> httpx.Response:
    """Ask an application that has these reasons not to be ready."""
    app = Starlette(routes=health_routes(lambda: reasons or []))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        return await client.get(path, headers={"accept": accept})


async def test_a_process_that_answers_is_alive() -> None:
    """Liveness depends on nothing else: a gateway without its store must not be restarted."""
    assert (await get("/healthz", ["the store is away"])).status_code == 200


async def test_a_ready_process_says_so() -> None:
    """Nothing against it means 200."""
    assert (await get("/readyz")).json() == {"status": "ready"}


async def test_a_process_that_is_not_ready_says_why() -> None:
    """503 lists every reason, as a problem."""
    answer = await get("/readyz", ["draining", "the store is away"])
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.json()["code"], answer.json()["reasons"]) == ("not_ready", ["draining", "the store is away"])


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [("*/*", "text/plain"), ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text")],
)
async def test_metrics_are_told_in_the_form_that_is_asked_for(accept: str, content_type: str) -> None:
    """A scraper gets the exposition format that it accepts."""
    telemetry.EVENTS_APPENDED.inc(3)
    answer = await get("/metrics", accept=accept)
    assert answer.headers["content-type"].startswith(content_type)
    assert "gateway_events_appended_total" in answer.text


PROCESS = """
import asyncio, httpx, sys
from starlette.applications import Starlette
from gateway import telemetry
from gateway.edge.health import health_routes

async def main():
    telemetry.EVENTS_APPENDED.inc(2)
    telemetry.READERS.labels("sse").inc(5)
    app = Starlette(routes=health_routes(list))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        print((await client.get("/metrics")).text)

asyncio.run(main())
"""


def test_processes_that_share_a_folder_are_counted_together(tmp_path: Path) -> None:
    """With several workers, any of them tells the sums; a worker that has gone has no readers left."""
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    texts = []
    for _ in range(2):
        ran = subprocess.Popen([sys.executable, "-c", PROCESS], env=environment, stdout=subprocess.PIPE, text=True)
        texts.append(ran.communicate(timeout=30)[0])
        telemetry.forget_process(ran.pid, str(tmp_path))
    assert "gateway_events_appended_total 4.0" in texts[1]
    assert 'gateway_readers{transport="sse"} 5.0' in texts[1]
