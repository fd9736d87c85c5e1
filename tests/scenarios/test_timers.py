"""What falls due while no gateway runs."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.processes import serving
from tests.support.running import wait_until
from tests.support.writers import Writer, create_run, log_event

pytestmark = pytest.mark.anyio

DUE_S = 2.5
SOON_S = 5.0


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
async def test_what_falls_due_while_the_gateway_is_down_happens_after_its_start(data_dir: Path, killed: bool) -> None:
    """Delayed starts, deadlines of questions, the grace of a cancel and the time to start are kept by the store."""
    async with serving(data_dir, cancel_grace_s=DUE_S, start_timeout_s=DUE_S) as gateway, gateway.client() as client:
        delayed = await create_run(client, delay_s=DUE_S)
        answered = await ask(client, on_timeout="default", default={"go": True})
        failed = await ask(client, on_timeout="fail")
        kept = await ask(client, on_timeout="keep")
        cancelled = await begin_run(client)
        assert (await client.post(f"/v1/runs/{cancelled}/cancel")).json()["status"] == "cancelling"
        unstarted = await create_run(client)
        timed_out = await begin_run(client, timeout_s=DUE_S)
        down_at = datetime.now(UTC).timestamp()
        await (gateway.kill() if killed else gateway.stop())
        await asyncio.sleep(down_at + DUE_S - datetime.now(UTC).timestamp())
        await gateway.start()

        expected = {
            delayed: "queued",
            answered: "running",
            failed: "failed",
            kept: "waiting_for_input",
            cancelled: "cancelled",
            unstarted: "expired",
            timed_out: "timed_out",
        }

        async def all_happened() -> bool:
            return {run_id: (await show(client, run_id))["status"] for run_id in expected} == expected

        await wait_until(all_happened, timeout_s=SOON_S)
        received = [e for e in await events_of(client, answered) if e["type"] == "run.input_received"]
        assert [event["data"]["content"] for event in received] == [{"go": True}]
        for run_id in (failed, cancelled, unstarted, timed_out):
            run = await show(client, run_id)
            endings = [e["type"] for e in await events_of(client, run_id)].count(f"run.{run['status']}")
            assert endings == 1
            assert datetime.fromisoformat(run["ended_at"]).timestamp() > down_at


async def begin_run(client: httpx.AsyncClient, **body: Any) -> str:
    """Return a run that is running."""
    run_id = await create_run(client, **body)
    await Writer(client, run_id, "w").append(1)
    return run_id


async def ask(client: httpx.AsyncClient, **about: Any) -> str:
    """Return a run that waits for input until a deadline."""
    run_id = await create_run(client)
    question = {"type": "run.waiting_for_input", "data": {"prompt": "Go on?", "timeout_s": DUE_S, **about}}
    await Writer(client, run_id, "w").send([log_event("w-1"), question])
    return run_id


async def show(client: httpx.AsyncClient, run_id: str) -> dict[str, Any]:
    """Return a run."""
    run: dict[str, Any] = (await client.get(f"/v1/runs/{run_id}")).json()
    return run


async def events_of(client: httpx.AsyncClient, run_id: str) -> list[dict[str, Any]]:
    """Return a run's events."""
    events: list[dict[str, Any]] = (await client.get(f"/v1/runs/{run_id}/events")).json()["data"]
    return events
