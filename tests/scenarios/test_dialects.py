"""One run in every system's eyes: made by one, then seen, answered, stopped and followed by the others."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.dialects.interrupts.project import uuid_of
from tests.dialects.native.streaming import read_stream
from tests.support.dialects import got
from tests.support.native import accepted, ask, get_run
from tests.support.running import COMPLETE, LOG, RunningGateway, RunningStore, run_gateway
from tests.support.work import claim_one, write

pytestmark = pytest.mark.anyio

JOBS, THREADS, INTERRUPTS = "/compat/jobs/v1/runs", "/compat/threads/v1/runs", "/compat/interrupts/v1/runs"


@pytest.fixture
async def walked(store: RunningStore, anyio_backend: object) -> AsyncIterator[RunningGateway]:
    """A gateway whose runs are all one test's."""
    async with run_gateway(store.url) as running:
        yield running


async def check_views(api: RunningGateway, run_id: str, words: dict[str, str]) -> None:
    """Check the run's status in every system, by itself and in the lists that its word selects."""
    client = api.client
    assert (await get_run(api, run_id))["status"] == words["native"]
    assert got(await client.get(f"{JOBS}/{run_id}"))["status"] == words["jobs"]
    assert got(await client.get(f"{THREADS}/{run_id}"))["status"] == words["threads"]
    assert got(await client.get(f"{INTERRUPTS}/{uuid_of(run_id)}"))["status"] == words["interrupts"]
    jobs = got(await client.get(JOBS, params={"project_id": api.tenant, "status": words["jobs"]}))
    assert [run["id"] for run in jobs] == [run_id]
    threads = got(await client.get(THREADS, params={"status": words["threads"]}))
    assert [run["run_id"] for run in threads] == [run_id]
    listed = accepted(await client.get("/v1/runs", params={"status": words["native"]}))["data"]
    assert [run["id"] for run in listed] == [run_id]


async def test_a_run_walks_through_every_system(walked: RunningGateway) -> None:
    """Made by threads, paused by jobs, resumed and answered by interrupts, answered by threads, ended by its worker."""
    api, client = walked, walked.client
    made = got(await client.post("/compat/threads/v1/threads/t/runs", json={"persona_id": "writer@1"}), 201)
    run_id = made["run_id"]
    await check_views(api, run_id, {"native": "queued", "jobs": "queued", "threads": "queued", "interrupts": "queued"})
    claimed = await claim_one(api, "default")
    accepted(await write(api, claimed, LOG, ("message.delta", {"content": "hi"})))
    await check_views(
        api, run_id, {"native": "running", "jobs": "executing", "threads": "running", "interrupts": "running"}
    )
    assert got(await client.post(f"{JOBS}/{run_id}/pause"))["status"] == "paused"
    await check_views(
        api, run_id, {"native": "paused", "jobs": "paused", "threads": "paused", "interrupts": "interrupted"}
    )
    assert got(await client.post(f"{INTERRUPTS}/{uuid_of(run_id)}/resume"))["status"] == "running"
    accepted(await write(api, claimed, ("run.waiting_for_input", {"prompt": "One?", "request_id": "q1"})))
    waiting = {"native": "waiting_for_input", "jobs": "waiting", "threads": "waiting_for_input"}
    await check_views(api, run_id, {**waiting, "interrupts": "interrupted"})
    (interrupt,) = got(await client.get(f"{INTERRUPTS}/{uuid_of(run_id)}"))["interrupts"]
    body = {"interrupt_id": interrupt["id"], "input": {"one": 1}}
    assert got(await client.post(f"{INTERRUPTS}/{uuid_of(run_id)}/resume", json=body))["status"] == "running"
    accepted(await write(api, claimed, ("run.waiting_for_input", {"prompt": "Two?", "request_id": "q2"})))
    assert got(await client.post(f"{THREADS}/{run_id}/input", json={"content": "two"})) == {"ok": True}
    accepted(await write(api, claimed, COMPLETE))
    await check_views(
        api,
        run_id,
        {"native": "completed", "jobs": "completed", "threads": "completed", "interrupts": "completed"},
    )
    await check_streams(api, run_id)


async def check_streams(api: RunningGateway, run_id: str) -> None:
    """Check that each stream tells the same events, in the same order, under the same cursors."""
    native = (await read_stream(api, f"/v1/runs/{run_id}/stream")).parser.frames
    cursors = {frame.last_id: frame.data["type"] for frame in native if frame.name == "message"}
    jobs = (await read_stream(api, f"{JOBS}/{run_id}/stream")).parser.frames
    assert [frame.last_id for frame in jobs] == list(cursors)
    threads = (await read_stream(api, f"{THREADS}/{run_id}/events")).parser.frames
    assert [cursors[frame.last_id] for frame in threads] == [frame.data["type"] for frame in threads]
    assert [frame.data["type"] for frame in threads][-1] == "run.completed"


async def test_a_cancel_by_one_is_a_cancel_for_all(walked: RunningGateway) -> None:
    """A native run that waits, cancelled by jobs: the others show it, and refuse to go on with it in their words."""
    api, client = walked, walked.client
    run_id = (await api.run_in("running"))["id"]
    asked = await ask(api, run_id)
    assert (await client.delete(f"{JOBS}/{run_id}")).status_code == 204
    words = {"jobs": "canceled", "threads": "cancelled", "interrupts": "cancelled"}
    await check_views(api, run_id, {"native": "cancelling", **words})
    accepted(await api.append(run_id, ("run.cancelled", {})))
    await check_views(api, run_id, {"native": "cancelled", **words})
    refused = await client.post(f"{THREADS}/{run_id}/input", json={"content": "x"})
    assert (refused.status_code, refused.json()["code"]) == (409, "invalid_state")
    body = {"interrupt_id": asked, "input": 1}
    refused = await client.post(f"{INTERRUPTS}/{uuid_of(run_id)}/resume", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "question_closed")
    copy = got(await client.post(f"{JOBS}/{run_id}/replay"), 201)
    assert got(await client.get(f"{THREADS}/{copy['id']}"))["status"] == "queued"
