"""Steering one run in the job system's words: what keeps its id, what makes a new run, what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.dialects.jobs import project
from gateway.domain.lifecycle import Status
from tests.dialects.jobs.speaking import BASE, UNKNOWN, get, make_dead, make_running, own_queue, post, refused
from tests.support.native import accepted, ask, get_log, get_types, open_client
from tests.support.running import RunningGateway, wait_until
from tests.support.work import claim_one, put_agent, queue_run

pytestmark = pytest.mark.anyio


async def delete(api: RunningGateway, path: str) -> Any:
    """Return the answer to a DELETE."""
    return await api.client.delete(f"{BASE}/v1/runs{path}")


async def test_a_replay_is_a_new_run_of_the_same_payload(api: RunningGateway) -> None:
    """It continues the old one, which stays as it is."""
    dead = await get(api, f"/{await make_dead(api, input={'a': 1}, tags={'t': 'v'})}")
    made = await post(api, f"/{dead['id']}/replay", expect=201)
    assert made["id"] != dead["id"]
    assert (made["continuation_of"], made["lineage_depth"], made["status"]) == (dead["id"], 1, "queued")
    assert (made["payload"], made["tags"], made["job_id"]) == (dead["payload"], dead["tags"], dead["job_id"])
    assert await get(api, f"/{dead['id']}") == dead


async def test_a_dead_letter_is_replayed_as_itself(api: RunningGateway) -> None:
    """The same id, its first attempt again, among the dead letters no more."""
    run_id = await make_dead(api)
    again = await post(api, f"/{run_id}/dlq-replay")
    assert (again["id"], again["status"], again["attempt"]) == (run_id, "queued", 1)
    assert (again["finished_at"], again["error"]) == (None, None)
    assert run_id not in [run["id"] for run in await get(api, "/dlq")]
    assert "dead_letter" in refused(await api.client.post(f"{BASE}/v1/runs/{run_id}/dlq-replay"), 409)


@pytest.mark.parametrize("name", ["preset", "machine_preset"])
async def test_a_restart_keeps_the_run_and_may_change_its_preset(api: RunningGateway, name: str) -> None:
    """The next attempt of the same run; its worker is told the preset's configuration."""
    queue = own_queue()
    agent_id = f"preset-{queue}"
    await put_agent(api, agent_id, queue=queue, presets={"small": {"cpu": 1}, "large": {"cpu": 8}})
    run_id, _claimed = await make_running(api, agent_id=agent_id, preset="small")
    again = await post(api, f"/{run_id}/restart", {name: "large"})
    assert (again["id"], again["status"], again["attempt"]) == (run_id, "queued", 2)
    run = accepted(await api.client.get(f"/v1/runs/{run_id}"))
    claimed = await claim_one(api, run["queue"])
    assert claimed["preset"] == {"name": "large", "config": {"cpu": 8}}
    assert "huge" in refused(await api.client.post(f"{BASE}/v1/runs/{run_id}/restart", json={name: "huge"}), 400)
    both = {"preset": "small", "machine_preset": "large"}
    assert "differ" in refused(await api.client.post(f"{BASE}/v1/runs/{run_id}/restart", json=both), 400)


@pytest.mark.parametrize("body", [None, {}, {"preset": None}])
async def test_a_restart_needs_no_body(api: RunningGateway, body: Any) -> None:
    """The preset override is optional."""
    run_id, _claimed = await make_running(api)
    assert (await post(api, f"/{run_id}/restart", body))["attempt"] == 2


async def test_pause_and_resume_answer_the_run(api: RunningGateway) -> None:
    """A held run is paused at once and executes again after it."""
    run_id, _claimed = await make_running(api)
    assert (await post(api, f"/{run_id}/pause"))["status"] == "paused"
    state = await get(api, f"/{run_id}/state")
    assert [p["type"] for p in state["pending"]] == ["pause"]
    assert (await post(api, f"/{run_id}/resume"))["status"] == "executing"
    assert "paused" in refused(await api.client.post(f"{BASE}/v1/runs/{run_id}/resume"), 409)


async def test_resume_does_not_answer_a_question(api: RunningGateway) -> None:
    """A run that waits for an answer says so."""
    run_id = (await api.create_run())["id"]
    await api.append(run_id, ("log", {"level": "info", "message": "m"}))
    await ask(api, run_id)
    told = refused(await api.client.post(f"{BASE}/v1/runs/{run_id}/resume"), 409)
    assert told == "A run that is waiting for an answer cannot be resumed; it goes on when it is answered."


async def test_a_run_is_rescheduled(api: RunningGateway) -> None:
    """It is delayed until then, whether it waits in its queue or for another time."""
    run_id = await queue_run(api, own_queue())
    for days in (1, 2):
        at = (datetime.now(UTC) + timedelta(days=days)).isoformat(timespec="milliseconds")
        run = await post(api, f"/{run_id}/reschedule", {"scheduled_at": at})
        assert (run["id"], run["status"]) == (run_id, "delayed")
        assert run["scheduled_at"] == at.replace("+00:00", "Z")


async def test_a_time_that_has_passed_reschedules_a_run_to_at_once(api: RunningGateway) -> None:
    """As the system's own example has it."""
    run_id = await queue_run(api, own_queue(), delay_s=3_600)
    await post(api, f"/{run_id}/reschedule", {"scheduled_at": "2019-08-24T14:15:22Z"})

    async def is_queued() -> bool:
        return bool((await get(api, f"/{run_id}"))["status"] == "queued")

    await wait_until(is_queued)
    assert (await get(api, f"/{run_id}"))["scheduled_at"] is None


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"scheduled_at": None},
        {"scheduled_at": "tomorrow"},
        {"scheduled_at": "2019-08-24T14:15:22"},
        {"scheduled_at": "2999-08-24T14:15:22Z"},
        {"scheduled_at": "2019-08-24T14:15:22Z", "when": 1},
    ],
)
async def test_a_bad_time_is_refused_and_changes_nothing(api: RunningGateway, body: Any) -> None:
    """Missing, no time, without its offset, further than a year away."""
    run_id = await queue_run(api, own_queue())
    before = await get(api, f"/{run_id}")
    refused(await api.client.post(f"{BASE}/v1/runs/{run_id}/reschedule", json=body), 400)
    assert await get(api, f"/{run_id}") == before


async def test_debug_mode_is_switched_on_and_off(api: RunningGateway) -> None:
    """Nothing is answered; without a word it is off."""
    run_id = await queue_run(api, own_queue())
    for body, mode in (({"debug_mode": True}, True), ({"debug_mode": False}, False), ({"debug_mode": True}, True)):
        assert await post(api, f"/{run_id}/debug", body, expect=204) is None
        assert (await get(api, f"/{run_id}"))["debug_mode"] is mode
    await post(api, f"/{run_id}/debug", {}, expect=204)
    assert (await get(api, f"/{run_id}"))["debug_mode"] is False
    refused(await api.client.post(f"{BASE}/v1/runs/{run_id}/debug", json={"debug_mode": "yes"}), 400)


async def test_a_delete_cancels(api: RunningGateway) -> None:
    """Nothing is answered; a held run shows as canceled while its holder lets go."""
    queued = await queue_run(api, own_queue())
    held, _claimed = await make_running(api)
    for run_id in (queued, held):
        answer = await delete(api, f"/{run_id}")
        assert (answer.status_code, answer.content) == (204, b"")
        assert (await get(api, f"/{run_id}"))["status"] == "canceled"
    assert accepted(await api.client.get(f"/v1/runs/{held}"))["status"] == "cancelling"
    (pending,) = (await get(api, f"/{held}/state"))["pending"]
    asked = [event for event in await get_log(api, held) if event["type"] == "run.cancel_requested"]
    assert (pending["type"], pending["created_at"]) == ("cancel", asked[0]["created_at"])
    assert (await delete(api, f"/{held}")).status_code == 204
    assert len([event for event in await get_log(api, held) if event["type"] == "run.cancel_requested"]) == 1
    assert "A run that is canceled cannot be canceled" in refused(await delete(api, f"/{queued}"), 409)


async def test_a_reset_key_makes_another_run(api: RunningGateway) -> None:
    """Until then it stands for the first one."""
    body = {"agent_id": "tester", "mode": "queued", "queue": own_queue()}
    headers = {"idempotency-key": own_queue()}
    first = accepted(await api.client.post("/v1/runs", json=body, headers=headers), 201)["id"]
    assert accepted(await api.client.post("/v1/runs", json=body, headers=headers), 201)["id"] == first
    assert (await get(api, f"/{first}"))["idempotency_key"] == headers["idempotency-key"]
    answer = accepted(await delete(api, f"/{first}/idempotency-key"))
    assert answer == {"status": "reset", "run_id": first}
    assert (await get(api, f"/{first}"))["idempotency_key"] is None
    assert accepted(await api.client.post("/v1/runs", json=body, headers=headers), 201)["id"] != first
    keyless = await queue_run(api, own_queue())
    refused(await delete(api, f"/{keyless}/idempotency-key"), 404)


async def test_a_repeat_under_one_key_acts_once(api: RunningGateway) -> None:
    """A client that did not hear the answer asks again; another body under the key is refused."""
    run_id = await make_dead(api)
    headers = {"idempotency-key": own_queue()}
    replays = [await api.client.post(f"{BASE}/v1/runs/{run_id}/replay", headers=headers) for _ in range(2)]
    assert replays[0].json()["id"] == replays[1].json()["id"]
    held, _claimed = await make_running(api)
    for _ in range(2):
        answer = await api.client.delete(f"{BASE}/v1/runs/{held}", headers=headers)
        assert answer.status_code == 204
    assert (await get_types(api, held)).count("run.cancel_requested") == 1
    other = await make_dead(api)
    refused(await api.client.post(f"{BASE}/v1/runs/{other}/replay", headers=headers), 422)


ACTIONS = [
    ("DELETE", ""),
    ("POST", "/replay"),
    ("POST", "/dlq-replay"),
    ("POST", "/pause"),
    ("POST", "/resume"),
    ("POST", "/restart"),
    ("POST", "/debug"),
    ("DELETE", "/idempotency-key"),
]
READS = ["", "/children", "/lineage", "/events", "/checkpoints", "/usage", "/tool-calls", "/outputs", "/debug-bundle"]
READS += ["/dependency-status", "/state", "/stream", "/stream/chunks"]


@pytest.mark.parametrize(("method", "path"), [*ACTIONS, *(("GET", path) for path in READS)])
async def test_a_run_that_is_not_there_is_refused_everywhere(api: RunningGateway, method: str, path: str) -> None:
    """Unknown, another project's, or no id at all: 404; no key: 401; a key without the scope: 403."""
    run_id = (await api.create_run())["id"]
    for one in (UNKNOWN, "string"):
        refused(await api.client.request(method, f"{BASE}/v1/runs/{one}{path}"), 404)
    async with open_client(api, tenant="stranger") as stranger:
        refused(await stranger.request(method, f"{BASE}/v1/runs/{run_id}{path}"), 404)
        keyless = await stranger.request(method, f"{BASE}/v1/runs/{run_id}{path}", headers={"authorization": ""})
        refused(keyless, 401)
    async with open_client(api, scopes=["work"]) as worker:
        refused(await worker.request(method, f"{BASE}/v1/runs/{run_id}{path}"), 403)
    async with open_client(api, agents=["other"]) as bounded:
        refused(await bounded.request(method, f"{BASE}/v1/runs/{run_id}{path}"), 404)
    assert await get_types(api, run_id) == ["run.created", "run.queued"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/replay", "running"),
        ("/dlq-replay", "failed"),
        ("/pause", "completed"),
        ("/resume", "running"),
        ("/restart", "queued"),
        ("/reschedule", "running"),
    ],
)
async def test_an_action_from_a_wrong_status_is_a_conflict(api: RunningGateway, path: str, status: str) -> None:
    """It says where the run stands, and changes nothing."""
    run_id = (await api.run_in(status))["id"]
    before = await get_log(api, run_id)
    body = {"scheduled_at": "2019-08-24T14:15:22Z"} if path == "/reschedule" else None
    told = refused(await api.client.post(f"{BASE}/v1/runs/{run_id}{path}", json=body), 409)
    assert project.WORDS.of(Status(status)) in told
    assert await get_log(api, run_id) == before


async def test_what_the_system_does_not_have_is_refused_in_its_words(api: RunningGateway) -> None:
    """Unknown paths, other methods, creating a run, a body that is no JSON."""
    run_id = (await api.create_run())["id"]
    refused(await api.client.get(f"{BASE}/v1/nothing"), 404)
    refused(await api.client.get(f"{BASE}/v1/runs/{run_id}/nothing"), 404)
    refused(await api.client.get(f"{BASE}/v1/runs/a%0Ab"), 404)
    refused(await api.client.get(f"{BASE}/v1/runs/a%0Ab/events"), 404)
    refused(await api.client.put(f"{BASE}/v1/runs/{run_id}"), 405)
    created = await api.client.post(f"{BASE}/v1/runs", json={})
    assert created.headers["allow"] == "GET, HEAD"
    refused(created, 405)
    refused(await api.client.post(f"{BASE}/v1/runs/{run_id}/restart", content=b"{"), 400)
    refused(await api.client.post(f"{BASE}/v1/runs/{run_id}/pause", params={"force": "1"}), 400)
