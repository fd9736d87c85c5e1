"""The threads API, endpoint by endpoint, with the examples of its own page."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from gateway.dialects.threads.project import WORDS
from gateway.domain.lifecycle import ALL, TERMINAL, Status
from tests.support.dialects import ALICE, as_alice, got
from tests.support.native import accepted, ask, get_log, get_run, open_client
from tests.support.running import RunningGateway, wait_until
from tests.support.standing import standing
from tests.support.work import claim_one, put_agent, write

pytestmark = pytest.mark.anyio

BASE = "/compat/threads"
LISTED = {
    "run_id",
    "org_id",
    "thread_id",
    "status",
    "model",
    "persona_id",
    "total_input_tokens",
    "total_output_tokens",
    "total_cost_usd",
    "duration_ms",
    "cache_hit_rate",
    "credits_used",
    "created_at",
    "completed_at",
    "failed_at",
    "created_by_user_id",
    "created_by_user_name",
    "created_by_email",
}
USED = {
    "provider": "anthropic",
    "model": "claude-3-5-sonnet",
    "prompt_tokens": 1000,
    "completion_tokens": 500,
    "cached_tokens": 400,
    "cost_microusd": 5000,
    "credits": 5,
}


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Return a refusal in the dialect's words, which must be whole."""
    body: dict[str, Any] = got(answer, status)
    assert body.keys() == {"code", "message", "trace_id", "details"}
    assert (body["code"], body["trace_id"]) == (code, answer.headers["x-request-id"])
    assert body["message"]
    return body


async def start(api: RunningGateway, thread_id: str = "t1", **body: Any) -> str:
    """Create a run in a thread and return its id."""
    run_id: str = got(await api.client.post(f"{BASE}/v1/threads/{thread_id}/runs", json=body), 201)["run_id"]
    return run_id


async def test_create_run(api: RunningGateway) -> None:
    """`POST /v1/threads/{thread_id}/runs` answers 201 {run_id, trace_id}; the run is queued for its persona."""
    body = {"route_id": "route-1", "persona_id": "writer@1.2.0"}
    answer = await api.client.post(f"{BASE}/v1/threads/thread-1/runs", json=body)
    created = got(answer, 201)
    assert created.keys() == {"run_id", "trace_id"}
    assert re.fullmatch(r"[0-9a-f]{32}", created["trace_id"])
    run = await get_run(api, created["run_id"])
    assert (run["agent_id"], run["thread_id"], run["mode"], run["status"]) == (
        "writer",
        "thread-1",
        "queued",
        "queued",
    )
    assert run["extensions"] == {"threads": body}


@pytest.mark.parametrize("body", [None, {}, {"persona_id": "", "route_id": ""}, {"persona_id": None}])
async def test_a_run_without_a_persona_is_for_the_default_agent(
    api: RunningGateway, body: dict[str, Any] | None
) -> None:
    """No body at all, an empty one, and empty members all mean the defaults."""
    sent: dict[str, Any] = {} if body is None else {"json": body}
    created = got(await api.client.post(f"{BASE}/v1/threads/t2/runs", **sent), 201)
    run = await get_run(api, created["run_id"])
    assert (run["agent_id"], run["extensions"]) == ("default", {"threads": {}})


async def test_a_run_keeps_the_trace_of_its_request(api: RunningGateway) -> None:
    """A W3C traceparent header names the trace, in the answer and in the record."""
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
    created = got(await api.client.post(f"{BASE}/v1/threads/t2/runs", headers=headers), 201)
    assert created["trace_id"] == trace_id
    assert got(await api.client.get(f"{BASE}/v1/runs/{created['run_id']}"))["trace_id"] == trace_id


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"persona_id": "no version@"}, "$.persona_id"),
        ({"persona_id": 7}, "$.persona_id"),
        ({"route_id": "r" * 129}, "$.route_id"),
        ({"model": "x"}, "$"),
    ],
)
async def test_a_bad_body_creates_nothing(api: RunningGateway, body: dict[str, Any], path: str) -> None:
    """The refusal says which member is wrong."""
    refusal = refused(await api.client.post(f"{BASE}/v1/threads/bad/runs", json=body), 422, "invalid_body")
    assert refusal["details"]["path"] == path
    assert got(await api.client.get(f"{BASE}/v1/threads/bad/runs")) == []


async def test_list_runs_under_a_thread(api: RunningGateway) -> None:
    """`GET /v1/threads/{thread_id}/runs` answers [{run_id, status, created_at}], newest first, at most `limit`."""
    made = [await start(api, "listed") for _ in range(3)]
    found = got(await api.client.get(f"{BASE}/v1/threads/listed/runs"))
    assert [run["run_id"] for run in found] == made[::-1]
    assert all(run.keys() == {"run_id", "status", "created_at"} for run in found)
    assert found[0]["status"] == "queued"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", found[0]["created_at"])
    limited = got(await api.client.get(f"{BASE}/v1/threads/listed/runs", params={"limit": 2}))
    assert limited == found[:2]
    assert got(await api.client.get(f"{BASE}/v1/threads/nobody/runs")) == []
    refused(await api.client.get(f"{BASE}/v1/threads/listed/runs?limit=0"), 400, "bad_request")
    refused(await api.client.get(f"{BASE}/v1/threads/a%20b/runs"), 400, "bad_request")


async def test_global_run_list(api: RunningGateway) -> None:
    """`GET /v1/runs` answers the page's example for a run that used what the example's used."""
    async with as_alice(api) as alice:
        body = {"persona_id": "painter@2"}
        run_id = got(await alice.post(f"{BASE}/v1/threads/t4/runs", json=body), 201)["run_id"]
        await put_agent(api, "painter", queue="default")
        claimed = await claim_one(api, "default")
        while claimed["run"]["id"] != run_id:
            claimed = await claim_one(api, "default")
        accepted(await write(api, claimed, ("usage.recorded", USED)))
        (running,) = [r for r in got(await alice.get(f"{BASE}/v1/runs?status=running")) if r["run_id"] == run_id]
        assert (running["total_input_tokens"], running["duration_ms"], running["completed_at"]) == (1000, None, None)
        accepted(await write(api, claimed, ("run.completed", {"output": "done"})))
        listed = got(await alice.get(f"{BASE}/v1/runs?limit=100"))
    assert all(run.keys() == LISTED for run in listed)
    (run,) = [run for run in listed if run["run_id"] == run_id]
    record = await get_run(api, run_id)
    assert run.pop("duration_ms") >= 0
    assert run.pop("created_at")[:23] == record["created_at"][:23]
    assert run.pop("completed_at") == record["ended_at"]
    assert run == {
        "run_id": run_id,
        "org_id": api.tenant,
        "thread_id": "t4",
        "status": "completed",
        "model": "claude-3-5-sonnet",
        "persona_id": "painter@2",
        "total_input_tokens": 1000,
        "total_output_tokens": 500,
        "total_cost_usd": 0.005,
        "cache_hit_rate": 0.4,
        "credits_used": 5,
        "failed_at": None,
        "created_by_user_id": ALICE.id,
        "created_by_user_name": "alice",
        "created_by_email": "alice@example.com",
    }


async def test_a_run_that_used_nothing_has_no_rate_and_no_model(api: RunningGateway) -> None:
    """Counters begin at nothing; what cannot be told is null; a failed run says when it failed."""
    run = await api.run_in("failed")
    found = got(await api.client.get(f"{BASE}/v1/runs?status=failed"))
    (listed,) = [each for each in found if each["run_id"] == run["id"]]
    assert (listed["total_input_tokens"], listed["total_cost_usd"], listed["credits_used"]) == (0, 0, 0)
    assert (listed["model"], listed["cache_hit_rate"], listed["persona_id"]) == (None, None, None)
    assert (listed["failed_at"], listed["completed_at"]) == (run["ended_at"], None)


@pytest.mark.parametrize("cursor", ["run_id", "created_at"])
async def test_before_goes_on_after_the_last_item_seen(api: RunningGateway, cursor: str) -> None:
    """Page by page, by the last run's id or by its time, every run is listed once, newest first."""
    async with open_client(api, tenant=f"{api.tenant}-pages-{cursor[:3]}") as client:
        made = [got(await client.post(f"{BASE}/v1/threads/t/runs"), 201)["run_id"] for _ in range(7)]
        seen: list[str] = []
        params: dict[str, Any] = {"limit": 3}
        while page := got(await client.get(f"{BASE}/v1/runs", params=params)):
            seen += [run["run_id"] for run in page]
            params["before"] = page[-1][cursor]
        assert seen == made[::-1]


async def test_before_goes_on_where_its_run_was_removed(api: RunningGateway) -> None:
    """The id alone tells when it was made: nothing older is missing."""
    async with open_client(api, tenant=f"{api.tenant}-gone") as client:
        made = [got(await client.post(f"{BASE}/v1/threads/t/runs"), 201)["run_id"] for _ in range(3)]
        got(await client.post(f"{BASE}/v1/runs/{made[1]}:cancel"))
        assert (await client.post(f"/v1/runs/{made[1]}/purge")).status_code == 200
        page = got(await client.get(f"{BASE}/v1/runs", params={"before": made[1]}))
        assert made[0] in [run["run_id"] for run in page]
        for shift in ("%2B02:00", "+02:00"):
            assert got(await client.get(f"{BASE}/v1/runs?before=2999-01-01T00:00:00{shift}"))[0]["run_id"] == made[2]
        refused(await client.get(f"{BASE}/v1/runs?before=yesterday"), 400, "bad_request")
        refused(await client.get(f"{BASE}/v1/runs?status=succeeded"), 400, "bad_request")
        refused(await client.get(f"{BASE}/v1/runs?page=2"), 400, "bad_request")


async def test_a_status_word_selects_all_that_show_as_it(api: RunningGateway) -> None:
    """A delayed run is queued, one that is being cancelled is cancelled; each word finds what shows as it."""
    shown = {
        "delayed": "queued",
        "queued": "queued",
        "running": "running",
        "waiting_for_input": "waiting_for_input",
        "paused": "paused",
        "cancelling": "cancelled",
        "cancelled": "cancelled",
        "completed": "completed",
        "failed": "failed",
    }
    for status, word in shown.items():
        run = await api.run_in(status)
        found = got(await api.client.get(f"{BASE}/v1/runs", params={"status": word, "limit": 100}))
        assert {each["status"] for each in found} == {word}
        assert run["id"] in [each["run_id"] for each in found], status
        assert got(await api.client.get(f"{BASE}/v1/runs/{run['id']}"))["status"] == word


async def test_get_run_details(api: RunningGateway) -> None:
    """`GET /v1/runs/{run_id}` answers the seven fields of the page."""
    async with as_alice(api) as alice:
        created = got(await alice.post(f"{BASE}/v1/threads/t5/runs"), 201)
        run = got(await alice.get(f"{BASE}/v1/runs/{created['run_id']}"))
    assert run.pop("created_at")
    assert run == {
        "run_id": created["run_id"],
        "org_id": api.tenant,
        "thread_id": "t5",
        "created_by_user_id": ALICE.id,
        "status": "queued",
        "trace_id": created["trace_id"],
    }


async def test_cancel_run(api: RunningGateway) -> None:
    """`POST /v1/runs/{run_id}:cancel` answers {ok: true}; a run that has ended cannot be cancelled."""
    run_id = await start(api)
    assert got(await api.client.post(f"{BASE}/v1/runs/{run_id}:cancel")) == {"ok": True}
    assert (await get_run(api, run_id))["status"] == "cancelled"
    refusal = refused(await api.client.post(f"{BASE}/v1/runs/{run_id}:cancel"), 409, "invalid_state")
    assert refusal["details"]["current_status"] == "cancelled"
    escaped = await start(api)
    assert got(await api.client.post(f"{BASE}/v1/runs/{escaped}%3Acancel")) == {"ok": True}
    answer = await api.client.get(f"{BASE}/v1/runs/{escaped}:cancel")
    refused(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("status", sorted(set(ALL) - {Status.WAITING}))
async def test_a_refused_action_is_told_in_this_api_s_words(api: RunningGateway, status: Status) -> None:
    """A client that knows the seven words knows those of the refusal; a run is as it shows itself."""
    run_id = await standing(api, status)
    shown = got(await api.client.get(f"{BASE}/v1/runs/{run_id}"))["status"]
    answers = [await api.client.post(f"{BASE}/v1/runs/{run_id}/input", json={"content": "x"})]
    if status in TERMINAL:
        answers.append(await api.client.post(f"{BASE}/v1/runs/{run_id}:cancel"))
    for answer in answers:
        refusal = refused(answer, 409, "invalid_state")
        assert refusal["details"]["current_status"] == shown == WORDS.of(status)
        assert set(refusal["details"]["permitted"]) < set(WORDS.known) - {shown}
        assert refusal["message"].startswith(f"A run that is {shown} cannot ")


async def test_submit_interactive_input(api: RunningGateway) -> None:
    """`POST /v1/runs/{run_id}/input` answers {ok: true}, and the run goes on with the content."""
    run = await api.run_in("waiting_for_input")
    body = {"content": "yes, go on"}
    assert got(await api.client.post(f"{BASE}/v1/runs/{run['id']}/input", json=body)) == {"ok": True}
    log = await get_log(api, run["id"])
    assert [e["data"]["content"] for e in log if e["type"] == "run.input_received"] == ["yes, go on"]
    assert (await get_run(api, run["id"]))["status"] == "running"
    refused(await api.client.post(f"{BASE}/v1/runs/{run['id']}/input", json=body), 409, "invalid_state")


async def test_input_is_at_most_32_kib(api: RunningGateway) -> None:
    """The bound is in bytes of UTF-8; content of that size passes, one byte more is refused."""
    run = await api.run_in("waiting_for_input")
    path = f"{BASE}/v1/runs/{run['id']}/input"
    for content in ("é" * (16 * 1024) + "x", "x" * (32 * 1024 + 1)):
        refused(await api.client.post(path, json={"content": content}), 413, "too_large")
    for body in ({}, {"content": 7}, {"content": None}, {"content": "x", "request_id": "q"}):
        refused(await api.client.post(path, json=body), 422, "invalid_body")
    assert got(await api.client.post(path, json={"content": "é" * (16 * 1024)})) == {"ok": True}


async def test_text_answers_a_question_that_takes_no_text(api: RunningGateway) -> None:
    """Where the question's schema refuses text, the content is read as the JSON it spells; else it is refused."""
    run = await api.run_in("running")
    await ask(api, run["id"], schema={"type": "object", "required": ["approve"]})
    path = f"{BASE}/v1/runs/{run['id']}/input"
    for content in ("yes", '{"approve"', "[" * 101, '{"deny":true}'):
        refused(await api.client.post(path, json={"content": content}), 422, "invalid_body")
    assert got(await api.client.post(path, json={"content": '{"approve":true}'})) == {"ok": True}
    await ask(api, run["id"], schema={"type": "string"})
    assert got(await api.client.post(path, json={"content": "42"})) == {"ok": True}
    log = await get_log(api, run["id"])
    contents = [e["data"]["content"] for e in log if e["type"] == "run.input_received"]
    assert contents == [{"approve": True}, "42"]


async def test_two_open_questions_cannot_be_answered_by_text_alone(api: RunningGateway) -> None:
    """There is no word for which one is meant; the refusal names them."""
    run = await api.run_in("waiting_for_input")
    await ask(api, run["id"], request_id="second")
    refusal = refused(
        await api.client.post(f"{BASE}/v1/runs/{run['id']}/input", json={"content": "x"}), 409, "request_id_required"
    )
    assert "second" in refusal["details"]["request_ids"]
    assert "request_id" not in refusal["message"]


async def test_requests_may_be_repeated(api: RunningGateway) -> None:
    """Under an idempotency key a repeat is answered as the first time, and done once."""
    headers = {"idempotency-key": "k1"}
    path = f"{BASE}/v1/threads/again/runs"
    first = got(await api.client.post(path, headers=headers), 201)
    assert got(await api.client.post(path, headers=headers), 201) == first
    traced = {**headers, "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    assert got(await api.client.post(path, headers=traced), 201) == first
    refused(await api.client.post(path, json={"persona_id": "other"}, headers=headers), 422, "idempotency_mismatch")
    refused(await api.client.post(f"{BASE}/v1/threads/2/runs", headers=headers), 422, "idempotency_mismatch")
    run = await api.run_in("waiting_for_input")
    for _ in range(2):
        answer = await api.client.post(
            f"{BASE}/v1/runs/{run['id']}/input", json={"content": "x"}, headers={"idempotency-key": "k2"}
        )
        assert got(answer) == {"ok": True}


async def test_who_may_not_is_told_in_the_same_words(api: RunningGateway) -> None:
    """No key is 401, a missing scope 403, another tenant's run 404, an unknown path 404, another method 405."""
    run_id = await start(api)
    async with httpx.AsyncClient(base_url=api.url) as nobody:
        answer = await nobody.get(f"{BASE}/v1/runs")
        refused(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"].startswith("Bearer")
    async with open_client(api, scopes=["runs:read"]) as reader:
        refused(await reader.post(f"{BASE}/v1/runs/{run_id}:cancel"), 403, "forbidden")
        refused(await reader.post(f"{BASE}/v1/threads/t/runs"), 403, "forbidden")
    async with open_client(api, tenant=f"{api.tenant}-other") as stranger:
        for method, path in (("GET", ""), ("POST", ":cancel"), ("GET", "/events"), ("POST", "/input")):
            answer = await stranger.request(method, f"{BASE}/v1/runs/{run_id}{path}", json={"content": "x"})
            refused(answer, 404, "not_found")
    refused(await api.client.get(f"{BASE}/v1/threads"), 404, "not_found")
    answer = await api.client.delete(f"{BASE}/v1/runs/{run_id}")
    refused(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD"


async def test_a_claimed_run_shows_its_persona_to_its_worker(api: RunningGateway) -> None:
    """The worker learns the route and the version from the run's extensions."""
    await put_agent(api, "scribe", queue="scribes")
    run_id = await start(api, "t6", persona_id="scribe@3", route_id="fast")
    claimed = await claim_one(api, "scribes")
    assert claimed["run"]["id"] == run_id
    assert claimed["run"]["extensions"]["threads"] == {"persona_id": "scribe@3", "route_id": "fast"}

    async def is_running() -> bool:
        return bool(got(await api.client.get(f"{BASE}/v1/runs/{run_id}"))["status"] == "running")

    accepted(await write(api, claimed, ("log", {"level": "info", "message": "m"})))
    await wait_until(is_running)
