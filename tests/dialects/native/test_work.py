"""Workers: what is next is claimed once, held while its holder is heard, and given to another when not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from ulid import ULID

from tests.support.native import accepted, act, get_log, get_run, get_types, open_client, refused
from tests.support.running import COMPLETE, FAIL, LOG, RunningGateway, RunningStore, run_gateway, wait_until
from tests.support.work import act_as_holder, claim, claim_one, put_agent, queue_run, write

pytestmark = pytest.mark.anyio

CHECKPOINT = ("checkpoint.created", {"source": "worker", "state": {"n": 1}})
ASK = ("run.waiting_for_input", {"prompt": "Go on?", "request_id": "q"})
DELTA = ("message.delta", {"content": "Hello"})


@pytest.fixture(scope="module")
async def api(store: RunningStore, anyio_backend: object) -> AsyncIterator[RunningGateway]:
    """A gateway whose leases are short."""
    async with run_gateway(store.url, lease_s=1.0) as running:
        yield running


@pytest.fixture
def queue() -> str:
    """A queue that no other test uses."""
    return f"q{ULID()}"


async def status_of(api: RunningGateway, run_id: str) -> str:
    """Return where a run stands."""
    status: str = (await get_run(api, run_id))["status"]
    return status


async def until_status(api: RunningGateway, run_id: str, status: str) -> dict[str, Any]:
    """Wait until a run stands in `status`, and return it."""

    async def stands() -> bool:
        return await status_of(api, run_id) == status

    await wait_until(stands)
    return await get_run(api, run_id)


async def test_a_run_goes_from_queue_to_worker_to_end(api: RunningGateway, queue: str) -> None:
    """Claimed, started by the first append, ended by its worker; its log says so."""
    run_id = await queue_run(api, queue, input={"n": 1})
    claimed = await claim_one(api, queue)
    assert claimed["run"]["input"] == {"n": 1}
    assert (claimed["run"]["status"], claimed["lease"]["attempt"]) == ("dequeued", 1)
    assert claimed["lease"]["token"] not in str(await get_log(api, run_id))
    first = accepted(await write(api, claimed, DELTA))
    log = await get_log(api, run_id)
    assert log[first["first_seq"] - 1]["type"] == "message.delta"
    accepted(await write(api, claimed, COMPLETE))
    assert await get_types(api, run_id) == [
        "run.created",
        "run.queued",
        "run.dequeued",
        "run.started",
        "message.delta",
        "run.completed",
    ]
    run = await get_run(api, run_id)
    assert (run["status"], run["lease"]) == ("completed", None)
    assert all(
        run["execution_trace"][f"{name}_ms"] is not None for name in ("queue_wait", "dequeue", "connect", "ttfb")
    )


async def test_what_came_first_is_claimed_first_and_priority_before_that(api: RunningGateway, queue: str) -> None:
    """Over several claims; equal priorities keep their order."""
    low = [await queue_run(api, queue, priority=-5) for _ in range(2)]
    mid = [await queue_run(api, queue) for _ in range(3)]
    high = [await queue_run(api, queue, priority=7) for _ in range(2)]
    got = [c["run"]["id"] for _ in range(4) for c in await claim(api, queue, most=2)]
    assert got == [*high, *mid, *low]
    assert await claim(api, queue) == []


async def test_a_waiting_claim_is_woken_at_once(api: RunningGateway, queue: str) -> None:
    """Much sooner than it would look again by itself."""
    waits = []
    for _ in range(20):
        waiting = asyncio.create_task(claim(api, queue, wait_s=10))
        await wait_until(lambda: api.gateway._bells._ropes)  # nothing public says that somebody waits
        await queue_run(api, queue)
        began = time.monotonic()
        assert len(await waiting) == 1
        waits.append(time.monotonic() - began)
    assert sorted(waits)[10] < 0.5


async def test_each_run_goes_to_one_of_many_claimers(api: RunningGateway, queue: str) -> None:
    """However many ask at once, and however the runs come in."""
    claims = [asyncio.create_task(claim(api, queue, most=3, wait_s=10)) for _ in range(15)]
    made = await asyncio.gather(*(queue_run(api, queue) for _ in range(45)))
    got = [c["run"]["id"] for given in await asyncio.gather(*claims) for c in given]
    while left := await claim(api, queue, most=50):
        got += [c["run"]["id"] for c in left]
    assert sorted(got) == sorted(made)


async def test_an_empty_queue_answers_when_the_wait_is_over(api: RunningGateway, queue: str) -> None:
    """With nothing, and not before."""
    began = time.monotonic()
    assert await claim(api, queue, wait_s=0.3) == []
    assert time.monotonic() - began >= 0.3


async def test_the_first_queue_is_emptied_before_the_second(api: RunningGateway, queue: str) -> None:
    """In the order they were named; a claim waits for all of them."""
    second = await queue_run(api, f"{queue}b")
    first = await queue_run(api, f"{queue}a")
    both = await claim(api, f"{queue}a", f"{queue}b", most=5)
    assert [c["run"]["id"] for c in both] == [first, second]
    waiting = asyncio.create_task(claim(api, f"{queue}a", f"{queue}b", wait_s=10))
    third = await queue_run(api, f"{queue}b")
    assert [c["run"]["id"] for c in await waiting] == [third]


async def test_only_the_holder_of_the_lease_writes(api: RunningGateway, queue: str) -> None:
    """Nobody before it is claimed, nobody else afterwards; nothing of the refused is stored."""
    run_id = await queue_run(api, queue)
    refused(await api.append(run_id, LOG), 409, "fenced")
    claimed = await claim_one(api, queue)
    refused(await api.append(run_id, LOG), 409, "fenced")
    stranger = {**claimed, "lease": {"token": "guessed"}}
    for events in ((LOG,), (COMPLETE,), (ASK,), ()):
        refused(await write(api, stranger, *events), 409, "fenced")
    refused(await act_as_holder(api, stranger, "heartbeat"), 409, "fenced")
    refused(await act_as_holder(api, stranger, "release"), 409, "fenced")
    assert await status_of(api, run_id) == "dequeued"
    accepted(await write(api, claimed, COMPLETE))
    refused(await write(api, claimed, LOG), 409, "invalid_state")
    refused(await act_as_holder(api, claimed, "heartbeat"), 409, "invalid_state")


async def test_heartbeats_keep_a_lease_and_tell_what_is_pending(api: RunningGateway, queue: str) -> None:
    """For longer than the lease; appends do the same."""
    run_id = await queue_run(api, queue)
    claimed = await claim_one(api, queue)
    accepted(await write(api, claimed, LOG))
    ends = time.monotonic() + 2.2
    while time.monotonic() < ends:
        beat = accepted(await act_as_holder(api, claimed, "heartbeat"))
        assert beat["lease"]["expires_at"] > (await get_run(api, run_id))["heartbeat_at"]
        await asyncio.sleep(0.2)
    accepted(await act(api, run_id, "cancel"))
    beat = accepted(await act_as_holder(api, claimed, "heartbeat"))
    assert [p["type"] for p in beat["pending"]] == ["cancel"]
    accepted(await write(api, claimed, ("run.cancelled", {"reason": "as asked"})))
    assert await status_of(api, run_id) == "cancelled"


async def test_a_silent_worker_loses_its_run_to_the_next_attempt(api: RunningGateway, queue: str) -> None:
    """The next attempt says what it supersedes and goes on from the checkpoint; the first can write no more."""
    agent = queue
    await put_agent(api, agent, queue=queue, retry={"max_attempts": 2, "initial_delay_s": 0, "backoff": "fixed"})
    run_id = await queue_run(api, queue, agent_id=agent)
    silent = await claim_one(api, queue)
    accepted(await write(api, silent, DELTA, CHECKPOINT, DELTA, writer="w", writer_seq=1))
    after = await claim_one(api, queue)
    assert (after["run"]["id"], after["lease"]["attempt"]) == (run_id, 2)
    assert after["checkpoint"]["state"] == {"n": 1}
    refused(await write(api, silent, DELTA), 409, "fenced")
    repeat = accepted(await write(api, silent, DELTA, CHECKPOINT, DELTA, writer="w", writer_seq=1, attempt=1))
    assert repeat["duplicate"]
    accepted(await write(api, after, DELTA))
    log = await get_log(api, run_id)
    failed = next(e for e in log if e["type"] == "run.attempt_failed")
    assert (failed["attempt"], failed["data"]["cause"], failed["data"]["next_attempt"]) == (1, "lease_lost", 2)
    begun = next(e for e in log if e["type"] == "run.attempt_started")
    checkpoint = next(e for e in log if e["type"] == "checkpoint.created")
    assert begun["data"] == {"attempt": 2, "supersedes": [checkpoint["seq"] + 1, failed["seq"] - 1]}
    # No attempt is left.
    run = await until_status(api, run_id, "crashed")
    assert run["error"]["code"] == "lease_lost"


async def test_a_claim_that_never_starts_costs_no_attempt(api: RunningGateway, queue: str) -> None:
    """The attempt counts when it starts."""
    run_id = await queue_run(api, queue)
    await claim_one(api, queue)
    again = await claim_one(api, queue)
    assert (again["run"]["id"], again["lease"]["attempt"]) == (run_id, 1)
    accepted(await write(api, again, COMPLETE))
    run = await get_run(api, run_id)
    assert (run["status"], run["attempt"], run["failed_attempts"]) == ("completed", 1, 0)


async def test_a_failed_attempt_is_tried_again_until_none_is_left(api: RunningGateway, queue: str) -> None:
    """With one terminal event, and the open questions of each attempt closed."""
    retry = {"max_attempts": 3, "initial_delay_s": 0.05, "backoff": "linear"}
    run_id = await queue_run(api, queue, retry=retry)
    for attempt in (1, 2, 3):
        claimed = await claim_one(api, queue)
        assert claimed["lease"]["attempt"] == attempt
        answer = accepted(await write(api, claimed, ("run.waiting_for_input", {"prompt": "?"}), FAIL))
        assert answer["status"] == ("failed" if attempt == 3 else "delayed")
    types = await get_types(api, run_id)
    assert types.count("run.failed") == 1
    assert types.count("run.attempt_failed") == 2
    assert types.count("run.input_closed") == 3
    assert await claim(api, queue) == []


async def test_a_failure_that_would_come_again_is_not_tried_again(api: RunningGateway, queue: str) -> None:
    """`retry: false` ends the run, in the dead letters where its agent keeps them."""
    await put_agent(api, queue, queue=queue, retry={"max_attempts": 5}, dead_letter=True)
    run_id = await queue_run(api, queue, agent_id=queue)
    claimed = await claim_one(api, queue)
    fatal = ("run.failed", {"error": {"code": "bad_input", "message": "no"}, "retry": False})
    assert accepted(await write(api, claimed, fatal))["status"] == "dead_letter"
    last = (await get_log(api, run_id))[-1]
    assert (last["type"], last["data"]["cause"], last["data"]["error"]["code"]) == (
        "run.dead_lettered",
        "failed",
        "bad_input",
    )


async def test_a_run_that_takes_too_long_is_tried_again(api: RunningGateway, queue: str) -> None:
    """Though its worker is heard; the last attempt ends timed out."""
    run_id = await queue_run(api, queue, timeout_s=0.3, retry={"max_attempts": 2, "initial_delay_s": 0})
    for _ in (1, 2):
        claimed = await claim_one(api, queue)
        accepted(await write(api, claimed, LOG))
    await until_status(api, run_id, "timed_out")
    assert (await get_types(api, run_id)).count("run.attempt_failed") == 1


async def test_a_run_that_nobody_claims_expires(api: RunningGateway, queue: str) -> None:
    """After its time in the queue; it is not claimed afterwards."""
    run_id = await queue_run(api, queue, queue_expiry_s=0.2)
    await until_status(api, run_id, "expired")
    assert await claim(api, queue) == []


async def test_an_agents_limit_holds_and_its_backlog_goes_on(api: RunningGateway, queue: str) -> None:
    """No more at once than it allows, however many are claimed; each end lets one more through."""
    await put_agent(api, queue, queue=queue, max_concurrent=2)
    made = [await queue_run(api, queue, agent_id=queue) for _ in range(5)]
    free = await queue_run(api, queue, agent_id="unlimited")
    got = await claim(api, queue, most=10)
    assert [c["run"]["id"] for c in got] == [*made[:2], free]
    assert await claim(api, queue, most=10) == []
    waiting = asyncio.create_task(claim(api, queue, most=10, wait_s=10))
    accepted(await write(api, got[0], COMPLETE))
    assert [c["run"]["id"] for c in await waiting] == [made[2]]
    await put_agent(api, queue, queue=queue, max_concurrent=4)
    assert [c["run"]["id"] for c in await claim(api, queue, most=10, wait_s=5)] == made[3:]


async def test_a_concurrency_key_lets_one_run_through_at_a_time(api: RunningGateway, queue: str) -> None:
    """Others pass by; cancelling the one that waits first does not stop the next."""
    one, two, three = [await queue_run(api, queue, concurrency_key="customer 42") for _ in range(3)]
    other = await queue_run(api, queue, concurrency_key="customer 43")
    got = await claim(api, queue, most=10)
    assert [c["run"]["id"] for c in got] == [one, other]
    accepted(await act(api, two, "cancel"))
    waiting = asyncio.create_task(claim(api, queue, most=10, wait_s=10))
    accepted(await write(api, got[0], FAIL))
    assert [c["run"]["id"] for c in await waiting] == [three]


async def test_pausing_a_claim_takes_it_from_its_claimer(api: RunningGateway, queue: str) -> None:
    """Before it starts; resumed, it is queued again. A run that was started keeps its holder."""
    run_id = await queue_run(api, queue)
    fenced = await claim_one(api, queue)
    accepted(await act(api, run_id, "pause"))
    refused(await write(api, fenced, LOG), 409, "fenced")
    accepted(await act(api, run_id, "resume"))
    claimed = await claim_one(api, queue)
    accepted(await write(api, claimed, LOG))
    accepted(await act(api, run_id, "pause"))
    accepted(await write(api, claimed, LOG))
    accepted(await act(api, run_id, "resume"))
    assert accepted(await write(api, claimed, LOG))["status"] == "running"


async def test_a_paused_run_whose_worker_dies_waits_for_another(api: RunningGateway, queue: str) -> None:
    """It stays paused, held by nobody; resumed, the attempt is done again."""
    run_id = await queue_run(api, queue)
    dying = await claim_one(api, queue)
    accepted(await write(api, dying, DELTA))
    accepted(await act(api, run_id, "pause"))

    async def is_free() -> bool:
        return (await get_run(api, run_id))["lease"] is None

    await wait_until(is_free)
    assert await status_of(api, run_id) == "paused"
    refused(await write(api, dying, LOG), 409, "fenced")
    accepted(await act(api, run_id, "resume"))
    claimed = await claim_one(api, queue)
    accepted(await write(api, claimed, COMPLETE))
    begun = next(e for e in await get_log(api, run_id) if e["type"] == "run.attempt_started")
    assert begun["data"]["attempt"] == 1
    assert begun["data"]["supersedes"] is not None


async def test_a_worker_may_let_go_while_it_waits_for_an_answer(api: RunningGateway, queue: str) -> None:
    """The run waits without a holder; the answer queues it, and whoever claims it goes on with the answer."""
    run_id = await queue_run(api, queue)
    first = await claim_one(api, queue)
    accepted(await write(api, first, DELTA, ASK))
    run = accepted(await act_as_holder(api, first, "release"))
    assert (run["status"], run["lease"]) == ("waiting_for_input", None)
    assert await claim(api, queue) == []
    waiting = asyncio.create_task(claim_one(api, queue))
    accepted(await act(api, run_id, "input", content="yes"))
    second = await waiting
    assert (second["run"]["id"], second["lease"]["attempt"], second["continues"]) == (run_id, 1, True)
    assert [(a["request_id"], a["content"]) for a in second["answers"]] == [("q", "yes")]
    refused(await write(api, first, LOG), 409, "fenced")
    accepted(await write(api, second, COMPLETE))
    assert "run.attempt_started" not in await get_types(api, run_id)


async def test_a_holder_lets_go_only_of_the_question_it_knows(api: RunningGateway, queue: str) -> None:
    """An answer that came meanwhile stays with the holder, who goes on; it does not begin again."""
    run_id = await queue_run(api, queue)
    claimed = await claim_one(api, queue)
    asked = accepted(await write(api, claimed, ASK))["last_seq"]
    accepted(await act(api, run_id, "input", content="yes"))
    problem = refused(await act_as_holder(api, claimed, "release", expected_seq=asked), 409, "seq_conflict")
    assert problem["head_seq"] == asked + 1
    accepted(await write(api, claimed, COMPLETE))
    assert "run.released" not in await get_types(api, run_id)


async def test_a_heartbeat_may_start_the_attempt(api: RunningGateway, queue: str) -> None:
    """Before the worker has anything to say; once, and for nobody but the holder."""
    run_id = await queue_run(api, queue)
    claimed = await claim_one(api, queue)
    stranger = {**claimed, "lease": {"token": "guessed"}}
    refused(await act_as_holder(api, stranger, "heartbeat", start=True), 409, "fenced")
    for _ in (1, 2):
        assert accepted(await act_as_holder(api, claimed, "heartbeat", start=True))["status"] == "running"
    assert accepted(await act(api, run_id, "pause"))["status"] == "paused"
    assert accepted(await act_as_holder(api, claimed, "heartbeat", start=True))["status"] == "paused"
    accepted(await write(api, claimed, COMPLETE))
    assert (await get_types(api, run_id)).count("run.started") == 1


async def test_a_run_that_is_given_back_is_claimed_again_at_once(api: RunningGateway, queue: str) -> None:
    """The same attempt, done again where it had begun; a repeated release changes nothing."""
    run_id = await queue_run(api, queue)
    first = await claim_one(api, queue)
    accepted(await write(api, first, DELTA))
    headers = {"lease": first["lease"]["token"], "idempotency-key": "k"}
    for _ in (1, 2):
        accepted(await api.client.post(f"/v1/runs/{run_id}/release", json={"reason": "deploy"}, headers=headers))
    second = await claim_one(api, queue)
    assert (second["run"]["id"], second["lease"]["attempt"]) == (run_id, 1)
    accepted(await write(api, second, COMPLETE))
    types = await get_types(api, run_id)
    assert types.count("run.released") == 1
    assert types.count("run.attempt_started") == 1


async def test_cancelling_waits_for_the_holder_or_its_silence(api: RunningGateway, queue: str) -> None:
    """Not yet started: at once. Started: when it confirms, lets go, or is silent."""
    before = await queue_run(api, queue)
    await claim_one(api, queue)
    assert accepted(await act(api, before, "cancel"))["status"] == "cancelled"
    for end in ("release", "silence"):
        run_id = await queue_run(api, queue)
        claimed = await claim_one(api, queue)
        accepted(await write(api, claimed, LOG))
        assert accepted(await act(api, run_id, "cancel"))["status"] == "cancelling"
        if end == "release":
            accepted(await act_as_holder(api, claimed, "release"))
        await until_status(api, run_id, "cancelled")
        assert (await get_types(api, run_id)).count("run.cancelled") == 1


async def test_a_restart_takes_the_run_from_its_worker(api: RunningGateway, queue: str) -> None:
    """It is queued again as its next attempt, from a checkpoint or with a preset where that is asked for."""
    await put_agent(api, queue, queue=queue, presets={"fast": {"model": "small"}})
    run_id = await queue_run(api, queue, agent_id=queue)
    first = await claim_one(api, queue)
    accepted(await write(api, first, DELTA, CHECKPOINT))
    refused(await act(api, run_id, "restart", preset="none"), 422, "invalid_body")
    refused(await act(api, run_id, "restart", from_checkpoint=1), 422, "invalid_body")
    accepted(await act(api, run_id, "restart", from_checkpoint=True, preset="fast"))
    refused(await write(api, first, LOG), 409, "fenced")
    second = await claim_one(api, queue)
    assert (second["lease"]["attempt"], second["run"]["preset"]) == (2, "fast")
    assert second["preset"] == {"name": "fast", "config": {"model": "small"}}
    assert second["checkpoint"]["state"] == {"n": 1}
    accepted(await write(api, second, COMPLETE))
    accepted(await act(api, run_id, "restart"))
    third = await claim_one(api, queue)
    assert (third["lease"]["attempt"], "checkpoint" in third) == (3, False)


async def test_a_run_waits_for_the_runs_it_depends_on(api: RunningGateway, queue: str) -> None:
    """All of them, each as it has to end; what cannot be satisfied any more fails the run at once."""
    first, second = await queue_run(api, queue), await queue_run(api, queue)
    waits = await queue_run(
        api, f"{queue}d", depends_on=[{"run_id": first}, {"run_id": second, "condition": "finished"}]
    )
    never = await queue_run(api, f"{queue}d", depends_on=[{"run_id": first, "condition": "failed"}])
    assert await status_of(api, waits) == "delayed"
    told = accepted(await api.client.get(f"/v1/runs/{waits}/dependency-status"))
    assert (told["verdict"], told["dependencies_satisfied"]) == ("waiting", False)
    accepted(await write(api, await claim_one(api, queue), COMPLETE))
    assert (await until_status(api, never, "system_failed"))["error"]["code"] == "dependency_unsatisfiable"
    assert await status_of(api, waits) == "delayed"
    accepted(await write(api, await claim_one(api, queue), FAIL))
    assert (await claim_one(api, f"{queue}d"))["run"]["id"] == waits
    late = await queue_run(api, f"{queue}d", depends_on=[{"run_id": first}])
    assert (await claim_one(api, f"{queue}d"))["run"]["id"] == late
    refused(
        await api.client.post(
            "/v1/runs",
            json={"agent_id": "a", "mode": "queued", "depends_on": [{"run_id": "01J00000000000000000000000"}]},
        ),
        404,
        "not_found",
    )


async def test_a_delayed_run_is_queued_when_it_is_due(api: RunningGateway, queue: str) -> None:
    """Not before; rescheduled, at its new time."""
    run_id = await queue_run(api, queue, delay_s=0.4)
    later = await queue_run(api, queue, delay_s=3600)
    assert await claim(api, queue) == []
    assert (await claim_one(api, queue))["run"]["id"] == run_id
    soon = time.time() + 0.3
    accepted(
        await act(api, later, "reschedule", scheduled_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(soon + 1)))
    )
    assert (await claim_one(api, queue))["run"]["id"] == later


async def test_a_claim_is_answered_again_under_its_key(api: RunningGateway, queue: str) -> None:
    """A worker whose answer was lost gets the same runs, not others."""
    await queue_run(api, queue)
    await queue_run(api, queue)
    headers = {"idempotency-key": f"claim-{queue}"}
    body = {"queues": [queue], "max": 1}
    first, again = [accepted(await api.client.post("/v1/claims", json=body, headers=headers))["data"] for _ in (1, 2)]
    assert first[0]["lease"]["token"] == again[0]["lease"]["token"]
    assert len(await claim(api, queue, most=10)) == 1


async def test_a_claimer_that_has_left_holds_nothing(api: RunningGateway, queue: str) -> None:
    """Its long poll ends with it, and what comes next goes to whoever is there."""
    async with httpx.AsyncClient(base_url=api.url, headers={"authorization": f"Bearer {api.key}"}) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/v1/claims", json={"queues": [queue], "wait_s": 20}, timeout=0.3)
    run_id = await queue_run(api, queue)
    assert (await claim_one(api, queue))["run"]["id"] == run_id


async def test_a_key_for_some_agents_claims_their_runs_only(api: RunningGateway, queue: str) -> None:
    """Others' runs, though they are first, stay for whoever may have them."""
    theirs = await queue_run(api, queue, agent_id="theirs")
    mine = await queue_run(api, queue, agent_id="mine")
    async with open_client(api, scopes=["work"], agents=["mine"]) as client:
        data = accepted(await client.post("/v1/claims", json={"queues": [queue], "max": 5}))["data"]
        assert [c["run"]["id"] for c in data] == [mine]
        headers = {"lease": data[0]["lease"]["token"]}
        event = {"type": "log", "data": {"level": "info", "message": "m"}}
        accepted(await client.post(f"/v1/runs/{mine}/events", json=event, headers=headers))
    assert (await claim_one(api, queue))["run"]["id"] == theirs


async def test_queues_tell_how_much_they_hold(api: RunningGateway, queue: str) -> None:
    """What waits, what is held, and since when the first waits."""
    for _ in range(3):
        await queue_run(api, queue)
    await claim_one(api, queue)
    listed = accepted(await api.client.get("/v1/queues"))["data"]
    (mine,) = [entry for entry in listed if entry["name"] == queue]
    assert (mine["waiting"], mine["held"]) == (2, 1)
    assert mine["oldest_queued_at"] is not None


async def test_an_idempotency_key_can_be_used_again_once_it_is_reset(api: RunningGateway, queue: str) -> None:
    """The run it made stays; the next create under it makes another."""
    body, headers = {"agent_id": "a", "mode": "queued", "queue": queue}, {"idempotency-key": f"once-{queue}"}
    first, same = [accepted(await api.client.post("/v1/runs", json=body, headers=headers), 201) for _ in (1, 2)]
    assert first["id"] == same["id"]
    assert first["idempotency_key"] == f"once-{queue}"
    reset = accepted(await api.client.delete(f"/v1/runs/{first['id']}/idempotency-key"))
    assert reset["idempotency_key"] is None
    assert accepted(await api.client.post("/v1/runs", json=body, headers=headers), 201)["id"] != first["id"]
    refused(await api.client.delete(f"/v1/runs/{await queue_run(api, queue)}/idempotency-key"), 404, "not_found")


async def test_debug_mode_is_noted_in_the_log(api: RunningGateway, queue: str) -> None:
    """Once for each change of it."""
    run_id = await queue_run(api, queue)
    for enabled in (True, True, False):
        assert accepted(await act(api, run_id, "debug", debug_mode=enabled))["debug_mode"] is enabled
    assert (await get_types(api, run_id)).count("run.debug_mode_set") == 2


async def test_a_drain_answers_who_waits_for_work(store: RunningStore, queue: str) -> None:
    """With nothing, at once: the claim can be made elsewhere."""
    async with run_gateway(store.url) as leaving:
        waiting = asyncio.create_task(claim(leaving, queue, wait_s=20))
        await wait_until(lambda: leaving.gateway._bells._ropes)
        began = time.monotonic()
        await leaving.gateway.close_streams(0)
        assert await waiting == []
        assert time.monotonic() - began < 2
