"""The table of transitions: what it permits, from where, and who asked for it."""

from __future__ import annotations

import asyncio

import pytest
from ulid import ULID

from gateway.dialects.agents.project import ALLOWED, WORDS
from gateway.domain.lifecycle import ALL, Action, Status
from tests.dialects.agents.speaking import AGENT, fetch, path_of, refused, told
from tests.support.native import accepted, act, get_log, get_run
from tests.support.running import COMPLETE, LOG, RunningGateway, RunningStore, run_gateway
from tests.support.standing import standing
from tests.support.work import act_as_holder, claim_one, put_agent, queue_run, write

pytestmark = pytest.mark.anyio

LEADS_TO = {"pause": "paused", "resume": "running", "cancel": "cancelled", "retry": "queued"}


@pytest.mark.parametrize("action", LEADS_TO)
@pytest.mark.parametrize("status", [s for s in ALL if s is not Status.CANCELLING])
async def test_an_action_passes_from_the_words_of_the_table_only(
    api: RunningGateway, action: str, status: Status
) -> None:
    """From every status: either it leads where the table says, or it is 409 and changes nothing."""
    run_id = await standing(api, status, agent_id=AGENT, input={"n": 1})
    before = await get_run(api, run_id)
    answer = await api.client.post(path_of(run_id, action))
    if WORDS.of(status) in ALLOWED[Action(action)]:
        record = told(answer, 201 if action == "retry" else 200)
        assert record["status"] == LEADS_TO[action]
        assert (record["run_id"] == run_id) == (action != "retry")
        assert record["inputs"] == {"n": 1}
        return
    details = refused(answer, 409, "invalid_state")
    assert details["current_status"] == WORDS.of(status)
    assert details["permitted"] == list(ALLOWED[Action(action)])
    assert await get_run(api, run_id) == before


async def test_a_retry_is_a_new_run_with_copied_inputs(api: RunningGateway) -> None:
    """The old one stays as it was; the native record says whose retry it is."""
    run_id = await standing(api, "failed", agent_id=AGENT, input={"a": [1]}, title="t")
    record = told(await api.client.post(path_of(run_id, "retry"), params={"triggered_by": "ops"}), 201)
    native = await get_run(api, record["run_id"])
    assert (native["retry_of"], native["input"], native["agent_id"]) == (run_id, {"a": [1]}, AGENT)
    assert (native["trigger"], native["triggered_by"]) == ("retry", "ops")
    assert (await get_run(api, run_id))["status"] == "failed"


@pytest.mark.parametrize("action", ["cancel", "pause", "resume"])
async def test_whom_an_action_is_attributed_to_is_in_the_audit_trail(api: RunningGateway, action: str) -> None:
    """`triggered_by` stands beside the key's principal in the run's own log; other parameters are ignored."""
    run_id = await standing(api, "paused" if action == "resume" else "running", agent_id=AGENT)
    params = {"triggered_by": "shopify-webhook-handler", "reason": "x"}
    told(await api.client.post(path_of(run_id, action), params=params))
    actor = (await get_log(api, run_id))[-1]["data"]["actor"]
    assert (actor["kind"], actor["name"], actor["triggered_by"]) == ("key", "test", "shopify-webhook-handler")


async def test_an_attribution_has_a_length(api: RunningGateway) -> None:
    """1,000 characters are taken, one more is refused and nothing happens."""
    run_id = await standing(api, "running", agent_id=AGENT)
    told(await api.client.post(path_of(run_id, "pause"), params={"triggered_by": "x" * 1_000}))
    answer = await api.client.post(path_of(run_id, "resume"), params={"triggered_by": "x" * 1_001})
    assert refused(answer, 400, "bad_request")["parameter"] == "triggered_by"
    assert (await fetch(api, run_id))["status"] == "paused"


@pytest.mark.parametrize("body", [b"", b"{}", b'{"force": true, "anything": 1}', b"not json"])
async def test_the_body_of_an_action_says_nothing(api: RunningGateway, body: bytes) -> None:
    """It is to be empty; whatever it is, it changes nothing."""
    run_id = await standing(api, "running", agent_id=AGENT)
    headers = {"content-type": "application/json"}
    told(await api.client.post(path_of(run_id, "cancel"), content=body, headers=headers))
    assert (await get_run(api, run_id))["status"] == "cancelling"


async def test_cancel_shows_at_once_though_the_holder_has_yet_to_confirm(api: RunningGateway) -> None:
    """The run that is held shows as cancelled, and can be neither cancelled again nor paused."""
    run_id = await standing(api, "running", agent_id=AGENT)
    assert told(await api.client.post(path_of(run_id, "cancel")))["status"] == "cancelled"
    assert (await fetch(api, run_id))["completed_at"] is None
    for action in ("cancel", "pause", "resume"):
        assert refused(await api.client.post(path_of(run_id, action)), 409, "invalid_state")["current_status"] == (
            "cancelled"
        )
    await api.append(run_id, ("run.cancelled", {}))
    assert (await fetch(api, run_id))["completed_at"] is not None


async def test_a_retry_right_after_a_cancel_waits_for_its_end(api: RunningGateway) -> None:
    """It shows as cancelled, so it can be retried: the new run comes once the holder let go."""
    run_id = await standing(api, "running", agent_id=AGENT)
    told(await api.client.post(path_of(run_id, "cancel")))
    retrying = asyncio.create_task(api.client.post(path_of(run_id, "retry")))
    await api.client.get(path_of(run_id))
    assert not retrying.done()
    await api.append(run_id, ("run.cancelled", {}))
    assert told(await retrying, 201)["run_id"] != run_id


async def test_a_retry_of_a_cancel_that_came_too_late_is_refused(api: RunningGateway) -> None:
    """The holder may still complete what is being cancelled: then it has succeeded."""
    run_id = await standing(api, "cancelling", agent_id=AGENT)
    retrying = asyncio.create_task(api.client.post(path_of(run_id, "retry")))
    await api.append(run_id, COMPLETE)
    assert refused(await retrying, 409, "invalid_state")["current_status"] == "succeeded"


async def test_a_retry_does_not_wait_for_ever(store: RunningStore) -> None:
    """When the cancel takes longer than a request may, the retry says so."""
    async with run_gateway(store.url, wait_s=1.0, cancel_grace_s=30.0) as api:
        run_id = await standing(api, "cancelling", agent_id=AGENT)
        answer = await api.client.post(path_of(run_id, "retry"))
        assert refused(answer, 409, "invalid_state")["current_status"] == "cancelled"
        assert "about to be cancelled" in answer.json()["message"]


async def test_a_resumed_run_is_running_though_nobody_holds_it(api: RunningGateway) -> None:
    """Resume leads to running: in the answer, when fetched, in lists; and it can be paused again, once."""
    queue, agent = f"q{ULID()}", f"a{ULID()}"
    run_id = await queue_run(api, queue, agent_id=agent)
    claimed = await claim_one(api, queue)
    accepted(await write(api, claimed, LOG))
    told(await api.client.post(path_of(run_id, "pause", agent=agent)))
    accepted(await act_as_holder(api, claimed, "release"))
    assert told(await api.client.post(path_of(run_id, "resume", agent=agent)))["status"] == "running"
    assert (await get_run(api, run_id))["status"] == "queued"
    assert (await fetch(api, run_id, agent=agent))["status"] == "running"
    for word, found in (("running", [run_id]), ("queued", [])):
        runs = accepted(await api.client.get(path_of(agent=agent), params={"status": word}))["runs"]
        assert [run["run_id"] for run in runs] == found
    again = await api.client.post(path_of(run_id, "resume", agent=agent))
    assert refused(again, 409, "invalid_state")["current_status"] == "running"
    assert told(await api.client.post(path_of(run_id, "pause", agent=agent)))["status"] == "paused"


async def test_a_second_attempt_is_queued_though_the_first_was_paused(api: RunningGateway) -> None:
    """Only what was resumed shows as running while it waits."""
    queue, agent = f"q{ULID()}", f"a{ULID()}"
    run_id = await queue_run(api, queue, agent_id=agent)
    accepted(await write(api, await claim_one(api, queue), LOG))
    for action in ("pause", "resume", "restart"):
        accepted(await act(api, run_id, action))
    assert (await fetch(api, run_id, agent=agent))["status"] == "queued"
    answer = await api.client.post(path_of(run_id, "pause", agent=agent))
    assert refused(answer, 409, "invalid_state")["current_status"] == "queued"


async def test_a_repeat_under_an_idempotency_key_is_answered_as_the_first_time(api: RunningGateway) -> None:
    """The action happens once; a retry makes one run."""
    run_id = await standing(api, "running", agent_id=AGENT)
    for _ in range(2):
        answer = await api.client.post(path_of(run_id, "pause"), headers={"idempotency-key": "k1"})
        assert told(answer)["status"] == "paused"
    failed = await standing(api, "failed", agent_id=AGENT)
    headers = {"idempotency-key": f"k{failed}"}
    made = {told(await api.client.post(path_of(failed, "retry"), headers=headers), 201)["run_id"] for _ in range(2)}
    assert len(made) == 1


async def test_of_many_at_once_one_pauses(api: RunningGateway) -> None:
    """The table holds at the very change: the others are refused."""
    run_id = await standing(api, "running", agent_id=AGENT)
    answers = await asyncio.gather(*(api.client.post(path_of(run_id, "pause")) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7


async def test_a_conversational_agent_has_no_runs(api: RunningGateway) -> None:
    """Every route says so, whatever the run; nobody without a key learns it."""
    agent = f"talker-{ULID()}"
    await put_agent(api, agent, runtime="conversational")
    run_id = await standing(api, "running", agent_id=agent)
    answers = [
        await api.client.get(path_of(agent=agent)),
        await api.client.get(path_of(agent=agent), params={"limit": "bad"}),
        *[await api.client.get(path_of(known, agent=agent)) for known in (run_id, "no-run")],
        *[await api.client.post(path_of(run_id, action, agent=agent)) for action in LEADS_TO],
    ]
    for answer in answers:
        refused(answer, 400, "runtime_not_applicable")
    assert (await get_run(api, run_id))["status"] == "running"
    nobody = await api.client.get(path_of(agent=agent), headers={"authorization": "Bearer wrong"})
    refused(nobody, 401, "unauthenticated")
    await put_agent(api, agent, runtime="workflow")
    told(await api.client.get(path_of(run_id, agent=agent)))
