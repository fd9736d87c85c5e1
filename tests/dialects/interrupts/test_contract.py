"""The interrupts API: agent runs, what they are interrupted by, and their resumption."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4, uuid5

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ulid import ULID

from gateway.dialects.interrupts.project import THREADS, WORDS, requester, run_id_from, thread_uuid, uuid_of
from gateway.domain.lifecycle import ALL, Status
from gateway.domain.run import Actor
from tests.support.dialects import ALICE, as_alice, got
from tests.support.links import connect
from tests.support.native import accepted, ask, get_log, get_run, open_client
from tests.support.running import COMPLETE, LOG, RunningGateway, RunningStore, wait_until
from tests.support.schedules import get_runs, make_due, put_schedule
from tests.support.standing import standing

pytestmark = pytest.mark.anyio

BASE = "/compat/interrupts/v1/runs"
FIELDS = {
    "object",
    "id",
    "created_at",
    "updated_at",
    "status",
    "thread_id",
    "agent",
    "requester",
    "started_at",
    "ended_at",
    "output",
    "interrupts",
}


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Return the error of a refusal in the dialect's words, which must be whole."""
    body = got(answer, status)
    assert body.keys() == {"error"}
    error: dict[str, Any] = body["error"]
    assert error.keys() == {"code", "message", "request_id", "details"}
    assert (error["code"], error["request_id"]) == (code, answer.headers["x-request-id"])
    return error


async def retrieve(api: RunningGateway, run_id: str, **params: str) -> dict[str, Any]:
    """Return a run as the dialect shows it."""
    run: dict[str, Any] = got(await api.client.get(f"{BASE}/{uuid_of(run_id)}", params=params))
    assert run.keys() == FIELDS | ({"steps"} if params else set())
    assert run["object"] == "agent_run"
    return run


async def resume(api: RunningGateway, run_id: str, body: Any = None, **request: Any) -> httpx.Response:
    """Post to a run's resume."""
    sent = {} if body is None else {"json": body}
    return await api.client.post(f"{BASE}/{uuid_of(run_id)}/resume", **sent, **request)


async def test_retrieve_an_agent_run(api: RunningGateway) -> None:
    """`GET /v1/runs/{id}` answers every field of the page, `steps` only where it is asked for."""
    run = await api.create_run(agent_id="cip_orchestrator", thread_id="planning")
    shown = await retrieve(api, run["id"])
    assert shown == {
        "object": "agent_run",
        "id": str(ULID.from_str(run["id"]).to_uuid()),
        "created_at": run["created_at"],
        "updated_at": run["updated_at"],
        "status": "queued",
        "thread_id": str(uuid5(THREADS, "planning")),
        "agent": "cip_orchestrator",
        "requester": {"type": "account", "id": run["created_by"]["id"], "name": "test", "email": None},
        "started_at": None,
        "ended_at": None,
        "output": None,
        "interrupts": [],
    }


async def test_ids_are_taken_as_uuids_and_as_they_are_inside(api: RunningGateway) -> None:
    """In either case of letters; an id of no run, and one that no run can have, are 404."""
    run = await api.create_run()
    uuid = uuid_of(run["id"])
    for spelled in (uuid, uuid.upper(), run["id"], run["id"].lower()):
        assert got(await api.client.get(f"{BASE}/{spelled}"))["id"] == uuid
    for unknown in (str(uuid4()), uuid.replace("-", ""), "run_1", uuid[:-1] + "g"):
        refused(await api.client.get(f"{BASE}/{unknown}"), 404, "not_found")
        refused(await api.client.post(f"{BASE}/{unknown}/resume"), 404, "not_found")


async def test_each_status_shows_as_its_word(api: RunningGateway) -> None:
    """Output is there only of a completed run, interrupts only of an interrupted one, times where they were."""
    words = {
        "delayed": "queued",
        "queued": "queued",
        "running": "running",
        "waiting_for_input": "interrupted",
        "paused": "interrupted",
        "cancelling": "cancelled",
        "cancelled": "cancelled",
        "completed": "completed",
        "failed": "error",
    }
    for status, word in words.items():
        run = await api.run_in(status)
        shown = await retrieve(api, run["id"])
        assert shown["status"] == word
        assert shown["output"] == ({"answer": 42} if word == "completed" else None)
        assert len(shown["interrupts"]) == (1 if status == "waiting_for_input" else 0)
        assert (shown["started_at"], shown["ended_at"]) == (run["started_at"], run["ended_at"])


@pytest.mark.parametrize(
    ("output", "shown"), [({"a": 1}, {"a": 1}), ("text", {"value": "text"}), ([1], {"value": [1]}), (None, None)]
)
async def test_an_output_is_an_object(api: RunningGateway, output: Any, shown: Any) -> None:
    """One that is none is shown under `value`."""
    run = await api.create_run()
    accepted(await api.append(run["id"], ("run.completed", {"output": output})))
    assert (await retrieve(api, run["id"]))["output"] == shown


async def test_the_requester_is_the_account_of_a_key(api: RunningGateway) -> None:
    """Its principal, as the key's record names it."""
    async with as_alice(api) as alice:
        run_id = accepted(await alice.post("/v1/runs", json={"agent_id": "a", "mode": "direct"}), 201)["id"]
    who = {"id": ALICE.id, "name": ALICE.name, "email": ALICE.email}
    assert (await retrieve(api, run_id))["requester"] == {"type": "account", **who}


async def test_a_run_of_a_schedule_was_requested_by_nobody(api: RunningGateway, store: RunningStore) -> None:
    """Its tick is the system's; whoever triggers a schedule by hand is the requester of that run."""
    await put_schedule(api.client, "nightly")
    async with connect(store.url) as link:
        await make_due(link, api.tenant, "nightly")

    async def has_run() -> bool:
        return bool(await get_runs(api.client, "nightly"))

    await wait_until(has_run, timeout_s=30)
    ticked = (await get_runs(api.client, "nightly"))[-1]
    assert (await retrieve(api, ticked["id"]))["requester"] is None
    triggered = accepted(await api.client.post("/v1/schedules/nightly/trigger"), 201)
    by_hand = (await retrieve(api, triggered["id"]))["requester"]
    assert (by_hand["type"], by_hand["id"]) == ("account", triggered["created_by"]["id"])
    listed = got(await api.client.get("/compat/threads/v1/runs", params={"limit": 100}))
    (shown,) = [run for run in listed if run["run_id"] == ticked["id"]]
    who = ("created_by_user_id", "created_by_user_name", "created_by_email")
    assert [shown[name] for name in who] == [None, None, None]


@pytest.mark.parametrize(
    ("kind", "shown"), [("ticket", "user"), ("token", "user"), ("key", "account"), ("system", None)]
)
def test_who_initiated_a_run_is_told_by_how_they_came(kind: str, shown: str | None) -> None:
    """A browser's ticket is a user's session; the system itself is nobody."""
    named = requester(Actor(kind, "id", "name"))
    assert (None if named is None else named.type) == shown


async def test_steps_are_shown_where_they_are_asked_for(api: RunningGateway) -> None:
    """`include=steps` lists the top-level steps with what became of each, on both endpoints."""
    run = await api.create_run()
    steps: list[tuple[str, Any]] = [
        ("step.started", {"step_id": "plan", "name": "Plan", "input": 1}),
        ("step.completed", {"step_id": "plan", "output": {"n": 1}, "duration_ms": 5}),
        ("step.started", {"step_id": "search", "name": "Search"}),
        ("step.failed", {"step_id": "search", "error": {"code": "c", "message": "m"}}),
        ("step.started", {"step_id": "write", "name": "Write"}),
    ]
    accepted(await api.append(run["id"], *steps))
    inner = {"type": "step.started", "data": {"step_id": "inner", "name": "Inner"}, "parent_id": "write"}
    accepted(await api.client.post(f"/v1/runs/{run['id']}/events", json={"events": [inner]}))
    shown = (await retrieve(api, run["id"], include="steps"))["steps"]
    assert [(step["id"], step["name"], step["status"]) for step in shown] == [
        ("plan", "Plan", "completed"),
        ("search", "Search", "error"),
        ("write", "Write", "running"),
    ]
    assert shown[0].keys() == {"id", "name", "status", "started_at", "ended_at", "output", "error"}
    assert (shown[0]["output"], shown[1]["error"]["code"], shown[2]["ended_at"]) == ({"n": 1}, "c", None)
    await ask(api, run["id"], request_id="q1")
    answer = await resume(api, run["id"], {"interrupt_id": "q1", "input": 1}, params={"include": "steps"})
    assert [step["id"] for step in got(answer)["steps"]] == ["plan", "search", "write"]
    refused(await api.client.get(f"{BASE}/{uuid_of(run['id'])}?include=trace"), 400, "bad_request")


async def test_resume_with_an_interrupt_answers_it(api: RunningGateway) -> None:
    """`POST /v1/runs/{id}/resume` {interrupt_id, input} answers that question, and the run runs on."""
    run = await api.run_in("running")
    await ask(api, run["id"], prompt="Which?", schema={"enum": ["a", "b"]}, request_id="q1")
    await ask(api, run["id"], prompt="Sure?", request_id="q2")
    shown = await retrieve(api, run["id"])
    assert [(each["id"], each["prompt"], each["schema"]) for each in shown["interrupts"]] == [
        ("q1", "Which?", {"enum": ["a", "b"]}),
        ("q2", "Sure?", None),
    ]
    assert all(each["created_at"] for each in shown["interrupts"])
    refused(await resume(api, run["id"], {"interrupt_id": "q1", "input": "c"}), 422, "invalid_body")
    half = got(await resume(api, run["id"], {"interrupt_id": "q1", "input": "b"}))
    assert (half["status"], [each["id"] for each in half["interrupts"]]) == ("interrupted", ["q2"])
    whole = got(await resume(api, run["id"], {"interrupt_id": "q2", "input": None}))
    assert (whole["status"], whole["interrupts"]) == ("running", [])
    contents = [e["data"]["content"] for e in await get_log(api, run["id"]) if e["type"] == "run.input_received"]
    assert contents == ["b", None]
    answered = refused(await resume(api, run["id"], {"interrupt_id": "q1", "input": "a"}), 409, "already_answered")
    assert answered["details"]["seq"] > 0
    refused(await resume(api, run["id"], {"interrupt_id": "q9", "input": "a"}), 409, "invalid_state")


@pytest.mark.parametrize(
    ("sent", "status", "path", "told"),
    [
        ({"n": "one"}, 422, "$.input.n", "input.n: 'one' is not of type 'integer'"),
        (7, 422, "$.input", "input: 7 is not of type 'object'"),
        ("x" * (32 * 1024 + 1), 413, None, "input has 32769 bytes; at most 32768 are allowed."),
    ],
)
async def test_a_bad_input_is_refused_by_its_own_name(
    api: RunningGateway, sent: Any, status: int, path: str | None, told: str
) -> None:
    """It is called what the caller called it, and the question stays open."""
    run = await api.run_in("running")
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    await ask(api, run["id"], request_id="q1", schema=schema)
    answer = await resume(api, run["id"], {"interrupt_id": "q1", "input": sent})
    error = refused(answer, status, "invalid_body" if status == 422 else "too_large")
    assert (error["message"], error["details"].get("path")) == (told, path)
    assert [each["id"] for each in (await retrieve(api, run["id"]))["interrupts"]] == ["q1"]


async def test_an_interrupt_that_is_not_the_run_s_is_not_found(api: RunningGateway) -> None:
    """The refusal says which."""
    run = await api.run_in("waiting_for_input")
    error = refused(await resume(api, run["id"], {"interrupt_id": "q9", "input": 1}), 404, "unknown_request")
    assert error["details"] == {"interrupt_id": "q9"}


@pytest.mark.parametrize("status", sorted(set(ALL) - {Status.WAITING, Status.PAUSED}))
async def test_a_run_that_is_not_interrupted_is_not_resumed(api: RunningGateway, status: Status) -> None:
    """The refusal speaks of statuses as the run itself does."""
    run_id = await standing(api, status)
    shown = await retrieve(api, run_id)
    for body in (None, {"interrupt_id": "q1", "input": 1}):
        error = refused(await resume(api, run_id, body), 409, "invalid_state")
        assert error["details"]["current_status"] == shown["status"] == WORDS.of(status)
        assert error["details"]["permitted"] == ["interrupted"]
        assert error["message"].endswith("it must be one of: interrupted.")


async def test_steps_go_with_the_log(api: RunningGateway) -> None:
    """Once it was removed they cannot be told: 410; the run without them stays."""
    run = await api.run_in("completed")
    accepted(await api.client.post(f"/v1/runs/{run['id']}/purge", json={"keep_record": True}))
    refused(await api.client.get(f"{BASE}/{uuid_of(run['id'])}?include=steps"), 410, "log_expired")
    assert (await retrieve(api, run["id"]))["output"] == {"answer": 42}


@pytest.mark.parametrize("body", [None, {}])
async def test_resume_without_a_body_unpauses(api: RunningGateway, body: Any) -> None:
    """The run goes on where it was; one that is not paused cannot."""
    run = await api.run_in("paused")
    assert got(await resume(api, run["id"], body))["status"] == "running"
    refused(await resume(api, run["id"], body), 409, "invalid_state")


async def test_resume_without_a_body_does_not_answer(api: RunningGateway) -> None:
    """While a question is open it is 409 `input_required`, which names what must be answered; nothing changes."""
    run = await api.run_in("running")
    asked = await ask(api, run["id"])
    error = refused(await resume(api, run["id"]), 409, "input_required")
    assert error["details"] == {"current_status": "interrupted", "interrupt_ids": [asked]}
    assert error["message"] == "The run is interrupted by a question; resume it with interrupt_id and input."
    assert (await get_run(api, run["id"]))["status"] == "waiting_for_input"
    accepted(await api.client.post(f"/v1/runs/{run['id']}/pause"))
    paused = await retrieve(api, run["id"])
    assert (paused["status"], [each["id"] for each in paused["interrupts"]]) == ("interrupted", [asked])
    error = refused(await resume(api, run["id"], {"interrupt_id": asked, "input": 1}), 409, "invalid_state")
    assert error["message"] == "The run is paused; resume it without a body, then answer."
    assert error["details"] == {"action": "answer", "current_status": "interrupted", "permitted": []}
    assert got(await resume(api, run["id"]))["status"] == "interrupted"
    assert got(await resume(api, run["id"], {"interrupt_id": asked, "input": 1}))["status"] == "running"


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"interrupt_id": "q1"}, "$.input"),
        ({"input": 1}, "$.interrupt_id"),
        ({"input": None}, "$.interrupt_id"),
        ({"interrupt_id": "", "input": 1}, "$.interrupt_id"),
        ({"interrupt_id": "q1", "input": 1, "force": True}, "$"),
        ([], "$"),
    ],
)
async def test_half_an_answer_is_refused(api: RunningGateway, body: Any, path: str) -> None:
    """Both members or none; the refusal says which one is missing."""
    run = await api.run_in("waiting_for_input")
    error = refused(await resume(api, run["id"], body), 422, "invalid_body")
    assert error["details"]["path"] == path


async def test_a_repeated_answer_is_answered_as_before(api: RunningGateway) -> None:
    """Under the same idempotency key, also once the run has ended."""
    run = await api.run_in("running")
    await ask(api, run["id"], request_id="q1")
    headers = {"idempotency-key": "k"}
    body = {"interrupt_id": "q1", "input": 1}
    got(await resume(api, run["id"], body, headers=headers))
    accepted(await api.append(run["id"], LOG, COMPLETE))
    assert got(await resume(api, run["id"], body, headers=headers))["status"] == "completed"


async def test_who_may_not_is_told_in_the_same_words(api: RunningGateway) -> None:
    """No key is 401; a key that may only read cannot resume; one for input can answer, and cannot unpause."""
    run = await api.run_in("waiting_for_input")
    path = f"{BASE}/{uuid_of(run['id'])}"
    async with httpx.AsyncClient(base_url=api.url) as nobody:
        refused(await nobody.get(path), 401, "unauthenticated")
    async with open_client(api, scopes=["runs:read"]) as reader:
        got(await reader.get(path))
        body = {"interrupt_id": "q", "input": 1}
        for sent in ({}, body):
            refused(await reader.post(f"{path}/resume", json=sent), 403, "forbidden")
    async with open_client(api, scopes=["runs:input"]) as answerer:
        refused(await answerer.post(f"{path}/resume"), 403, "forbidden")
        asked = run["open_requests"][0]["request_id"]
        got(await answerer.post(f"{path}/resume", json={"interrupt_id": asked, "input": 1}))
    async with open_client(api, tenant=f"{api.tenant}-other") as stranger:
        refused(await stranger.get(path), 404, "not_found")
    refused(await api.client.get("/compat/interrupts/v1/agents"), 404, "not_found")
    refused(await api.client.delete(path), 405, "method_not_allowed")


@given(st.binary(min_size=16, max_size=16))
def test_a_run_id_and_its_uuid_are_the_same_bits(raw: bytes) -> None:
    """There and back, nothing is lost."""
    run_id = str(ULID.from_bytes(raw))
    assert UUID(uuid_of(run_id)).bytes == raw
    assert run_id_from(uuid_of(run_id)) == run_id


@given(st.text(min_size=1, max_size=40))
def test_every_thread_has_one_uuid_for_good(name: str) -> None:
    """A ULID and a UUID keep their bits; any other name has the UUID that is derived from it."""
    shown = thread_uuid(name)
    assert str(UUID(shown)) == shown
    assert thread_uuid(shown) == shown
    ulid = ULID()
    assert thread_uuid(str(ulid)) == str(ulid.to_uuid())
