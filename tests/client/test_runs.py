"""Creating, finding and steering runs."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from gateway.client import AlreadyAnswered, Client, ConnectionLost, InvalidBody, InvalidState, NewRun, Run
from tests.client.waits import SOON
from tests.support.proxy import Dooms, lay_proxy
from tests.support.running import RunningGateway

pytestmark = pytest.mark.anyio


async def test_a_run_is_created_once_per_key(client: Client) -> None:
    """Repeating a creation with its key gives the same run."""
    fields = {"title": "tides", "tags": {"sea": "north"}}
    first = await client.runs.create("maker", idempotency_key="k1", **fields)  # type: ignore[arg-type]
    again = await client.runs.create("maker", idempotency_key="k1", **fields)  # type: ignore[arg-type]
    assert first.id == again.id
    assert (first.status, first.mode, first.title, first.tags) == ("queued", "direct", "tides", {"sea": "north"})


async def test_the_secret_of_a_webhook_is_told_once(client: Client) -> None:
    """In the answer to the creation, and never again."""
    run = await client.runs.create("told", webhooks=[{"url": "https://no-such-name.invalid/", "id": "h"}])
    (hook,) = run.webhooks
    assert (hook["id"], hook["secret"][:6]) == ("h", "whsec_")
    assert (await client.runs.get(run.id)).webhooks == []


async def test_a_batch_is_created_once_per_key(client: Client) -> None:
    """What was created is told in order, with why the rest was not; a repeat makes none twice."""
    wanted: list[NewRun] = [
        {"agent_id": "batcher", "mode": "queued", "input": 1},
        {"agent_id": "batcher", "priority": 10_000},
        {"agent_id": "batcher", "title": None},
    ]
    batch = await client.runs.create_batch(wanted, idempotency_key="b1")
    assert [(run.input, run.mode, run.batch_id) for run in batch.runs] == [
        (1, "queued", batch.id),
        (None, "direct", batch.id),
    ]
    refusal = batch.results[1].error
    assert isinstance(refusal, InvalidBody)
    assert refusal.facts["path"] == "$.priority"
    assert [run.id async for run in client.runs.list(batch_id=batch.id)] == [run.id for run in batch.runs][::-1]
    again = await client.runs.create_batch(wanted, idempotency_key="b1")
    assert (again.id, again.runs) == (batch.id, batch.runs)


async def test_a_creation_survives_a_shaky_connection(gateway: RunningGateway, client: Client) -> None:
    """Lost answers make no second run."""
    dooms = Dooms(5, cuts=20, most_bytes=2500, most_s=5, black_holes=0)
    async with (
        asyncio.timeout(30),
        lay_proxy(gateway.port, choose=dooms) as proxy,
        Client(proxy.url, key=gateway.key, backoff=SOON) as shaky,
    ):
        ids = [(await shaky.runs.create("shaky")).id for _ in range(20)]
    assert [run.id async for run in client.runs.list(agent_id="shaky")] == ids[::-1]
    assert proxy.cuts.total() > 5


async def test_lists_are_walked_page_by_page(client: Client) -> None:
    """However small the pages, every run comes once, newest first."""
    ids = [(await client.runs.create("paged", tags={"n": str(n % 2)})).id for n in range(7)]
    assert [run.id async for run in client.runs.list(agent_id="paged", page_runs=2)] == ids[::-1]
    odd = [run.id async for run in client.runs.list(agent_id="paged", tag="n:1", page_runs=3)]
    assert odd == ids[1::2][::-1]


async def test_waiting_ends_with_the_run(client: Client, run: Run) -> None:
    """A wait returns the ended run, or the run as it is when time is up."""
    assert (await client.runs.wait(run.id, timeout_s=0.05)).status == "queued"
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(client.runs.wait(run.id))
        await client.runs.append(run.id, [{"type": "run.completed", "data": {"output": {"n": 1}}}])
    assert (waiting.result().status, waiting.result().output) == ("completed", {"n": 1})


async def test_a_question_is_found_and_answered_once(client: Client, run: Run) -> None:
    """The inbox names the run; the second answer is told that it came second."""
    ask = {"type": "run.waiting_for_input", "data": {"prompt": "Go on?", "request_id": "q1"}}
    reply = await client.runs.append(run.id, [ask])
    assert reply.request_ids == ["q1"]
    assert (await client.runs.wait(run.id, until="waiting")).open_requests[0].prompt == "Go on?"
    questions = [question async for question in client.requests.list() if question.run_id == run.id]
    assert [question.request_id for question in questions] == ["q1"]
    answered = await client.runs.input(run.id, "yes")
    assert answered.request_id == "q1"
    with pytest.raises(AlreadyAnswered) as refused:
        await client.runs.input(run.id, "no", request_id="q1")
    assert refused.value.facts["seq"] == answered.seq


async def test_a_run_is_steered(client: Client, run: Run) -> None:
    """Each action answers with the run after it, or says why not."""
    with pytest.raises(InvalidState) as refused:
        await client.runs.resume(run.id)
    assert refused.value.facts["permitted"] == ["paused"]
    assert (await client.runs.pause(run.id, reason="lunch", triggered_by="me")).status == "paused"
    assert (await client.runs.resume(run.id)).status == "queued"
    await client.runs.append(run.id, [{"type": "run.failed", "data": {"error": {"code": "x", "message": "y"}}}])
    retried = await client.runs.retry(run.id)
    replayed = await client.runs.replay(run.id)
    assert len({run.id, retried.id, replayed.id}) == 3
    assert (await client.runs.restart(run.id)).status == "queued"
    assert (await client.runs.cancel(run.id, force=True, reason="enough")).status == "cancelled"


async def test_a_start_is_moved(client: Client) -> None:
    """A delayed run can be given another time."""
    run = await client.runs.create("later", delay_s=600)
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    moved = await client.runs.reschedule(run.id, tomorrow)
    assert (moved.status, moved.scheduled_at) == ("delayed", tomorrow)


async def test_a_ticket_opens_what_it_names(gateway: RunningGateway, client: Client, run: Run) -> None:
    """Whoever has a ticket reads that run's stream without a key, and no other."""
    other = await client.runs.create("tester")
    for run_id in (run.id, other.id):
        await client.runs.cancel(run_id)
    ticket = await client.tickets.create(runs=[run.id], scopes=["runs:read"], ttl_s=60)
    assert ticket.expires_at
    async with httpx.AsyncClient(base_url=gateway.url, params={"ticket": ticket.ticket}) as browser:
        assert "run.cancelled" in (await browser.get(f"/v1/runs/{run.id}/stream")).text
        assert (await browser.get(f"/v1/runs/{other.id}/stream")).status_code in (403, 404)


async def test_a_call_to_nobody_ends(gateway: RunningGateway) -> None:
    """A gateway that is away is an error after the time that was allowed."""
    async with lay_proxy(gateway.port) as proxy, Client(proxy.url, key=gateway.key, repeat_s=0.2) as client:
        proxy.refuse()
        with pytest.raises(ConnectionLost):
            await client.runs.get("0" * 26)
