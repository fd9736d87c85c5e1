"""Webhooks over the API: what is asked for, what is told, and that no secret is ever told twice."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.responses import Response

from tests.support.native import accepted, act, get_log, open_client, refused
from tests.support.receiver import SECRET, Receiver, run_receiver
from tests.support.running import COMPLETE, FAIL, LOG, RunningGateway, RunningStore, run_gateway, wait_until
from tests.support.work import claim_one, put_agent, write

pytestmark = pytest.mark.anyio

OTHER_SECRET = "whsec_" + "b3RoZXItc2VjcmV0LW9mLXRlc3RzLW9mLXdlYmhvb2tz"
TALK = ("custom.talk", {"said": "hello"})


@pytest.fixture(scope="module")
async def api(store: RunningStore, anyio_backend: object) -> AsyncIterator[RunningGateway]:
    """A gateway that may post to this machine."""
    async with run_gateway(store.url, webhook_http="allow", webhook_private="allow") as running:
        yield running


@pytest.fixture(scope="module")
async def strict(store: RunningStore, anyio_backend: object) -> AsyncIterator[RunningGateway]:
    """A gateway as it is by default."""
    async with run_gateway(store.url) as running:
        yield running


@pytest.fixture
async def receiver(anyio_backend: object) -> AsyncIterator[Receiver]:
    """A receiver."""
    async with run_receiver() as receiver:
        yield receiver


async def make_run(api: RunningGateway, receiver: Receiver, *events: str, **more: Any) -> str:
    """Return a run that has the receiver told of some events."""
    hook: dict[str, Any] = {"url": receiver.url, "secret": SECRET, "id": "h"}
    if events:
        hook["events"] = list(events)
    run_id: str = (await api.create_run(webhooks=[hook], **more))["id"]
    return run_id


async def test_what_is_told_is_signed_and_says_which_event_of_which_run(
    api: RunningGateway, receiver: Receiver
) -> None:
    """By the Standard Webhooks rules; the event is the log's own."""
    run_id = await make_run(api, receiver, "custom.*", title="Talk", tags={"a": "b"}, metadata={"m": 1})
    accepted(await api.append(run_id, LOG, TALK))
    await wait_until(lambda: receiver.received)
    (got,) = receiver.received
    content = got.verify()
    event = next(event for event in await get_log(api, run_id) if event["type"] == "custom.talk")
    assert content["type"] == "custom.talk"
    assert content["timestamp"] == event["created_at"]
    assert content["data"]["event"] == event
    about = content["data"]["run"]
    assert (about["id"], about["status"], about["title"]) == (run_id, "running", "Talk")
    assert (about["agent_id"], about["tags"], about["metadata"]) == ("tester", {"a": "b"}, {"m": 1})
    assert got.headers["content-type"] == "application/json"
    assert got.message_id.startswith("msg_")


async def test_by_default_the_end_and_questions_are_told(api: RunningGateway, receiver: Receiver) -> None:
    """And nothing else, in the order of the log."""
    run_id = await make_run(api, receiver)
    accepted(await api.append(run_id, LOG, TALK))
    accepted(await api.append(run_id, ("run.waiting_for_input", {"prompt": "?"})))
    await wait_until(lambda: receiver.types == ["run.waiting_for_input"])
    accepted(await act(api, run_id, "input", content=1))
    accepted(await api.append(run_id, COMPLETE))
    await wait_until(lambda: len(receiver.received) == 2)
    assert receiver.types == ["run.waiting_for_input", "run.completed"]
    assert [got.content["data"]["run"]["status"] for got in receiver.received] == ["waiting_for_input", "completed"]


async def test_what_time_does_to_a_run_is_told(api: RunningGateway, receiver: Receiver) -> None:
    """Nobody appended it."""
    run_id = await make_run(api, receiver, timeout_s=0.05)
    accepted(await api.append(run_id, LOG))
    await wait_until(lambda: receiver.types == ["run.timed_out"])


async def test_every_event_of_a_run_may_be_told(api: RunningGateway, receiver: Receiver) -> None:
    """From the first to the last, once each, in order; plain appends and changes alike."""
    run_id = await make_run(api, receiver, "*")
    for _ in range(20):
        accepted(await api.append(run_id, TALK))
    for action in ("pause", "resume", "cancel"):
        accepted(await act(api, run_id, action))
    accepted(await api.append(run_id, ("run.cancelled", {})))
    log = await get_log(api, run_id)
    await wait_until(lambda: len(receiver.received) >= len(log))
    assert receiver.seqs == [event["seq"] for event in log]
    assert [got.verify()["type"] for got in receiver.received] == [event["type"] for event in log]
    assert len({got.message_id for got in receiver.received}) == len(log)


async def test_an_event_is_told_at_once(api: RunningGateway, receiver: Receiver) -> None:
    """Not with the next round of looks: one after the other, a dozen would take three seconds that way."""
    run_id = await make_run(api, receiver, "custom.talk")
    began_s = time.monotonic()
    for number in range(12):
        accepted(await api.append(run_id, TALK))
        await wait_until(lambda: len(receiver.received) == number + 1, timeout_s=2)  # noqa: B023 - awaited here
    assert time.monotonic() - began_s < 2


async def test_a_secret_that_is_not_given_is_shown_once(api: RunningGateway, receiver: Receiver) -> None:
    """In the answer to the creation, and to its repeat under the same key; it is the one that signs."""
    body = {"agent_id": "tester", "mode": "direct", "webhooks": [{"url": receiver.url, "events": ["custom.talk"]}]}
    headers = {"idempotency-key": "once"}
    made = accepted(await api.client.post("/v1/runs", json=body, headers=headers), 201)
    secret = made["webhooks"][0]["secret"]
    assert secret.startswith("whsec_")
    again = accepted(await api.client.post("/v1/runs", json=body, headers=headers), 201)
    assert (again["id"], again["webhooks"]) == (made["id"], made["webhooks"])
    accepted(await api.append(made["id"], TALK))
    await wait_until(lambda: receiver.received)
    receiver.received[0].verify(secret)
    other = accepted(await api.client.post("/v1/runs", json=body), 201)
    assert other["webhooks"][0]["secret"] != secret
    await check_untold(api, made["id"], secret)


async def test_a_secret_that_is_given_is_never_shown(api: RunningGateway, receiver: Receiver) -> None:
    """Not even to whoever gave it."""
    hook = {"url": receiver.url, "secret": SECRET, "id": "mine"}
    body = {"agent_id": "tester", "mode": "direct", "webhooks": [hook]}
    answer = await api.client.post("/v1/runs", json=body)
    made = accepted(answer, 201)
    assert SECRET.removeprefix("whsec_") not in answer.text
    assert made["webhooks"][0].keys() == {"id", "url", "events"}
    await check_untold(api, made["id"], SECRET)


async def check_untold(api: RunningGateway, run_id: str, secret: str) -> None:
    """Check that no route tells a secret, and no event of the run, nor where its webhooks lead."""
    path = f"/v1/runs/{run_id}"
    routes = ["", "?include=steps", "/events", "/snapshot", "/state", "/debug-bundle", "/history", "/lineage"]
    for target in [*(path + route for route in routes), f"{path}/webhooks", f"{path}/webhook-deliveries", "/v1/runs"]:
        answer = await api.client.get(target)
        assert answer.status_code == 200, target
        assert secret.removeprefix("whsec_") not in answer.text, target
    created = (await get_log(api, run_id))[0]
    assert created["type"] == "run.created"
    assert "webhook" not in json.dumps(created)


async def test_secrets_are_in_no_log_line(
    store: RunningStore, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """However closely the gateway looks at itself, and whatever fails."""
    caplog.set_level("DEBUG")
    receiver.answer = lambda _number, _got: Response(status_code=500)
    async with run_gateway(store.url, webhook_http="allow", webhook_private="allow", webhook_retry_s="0.01") as api:
        made = await put_agent(api, "logged", webhooks=[{"url": receiver.url}])
        run_id = await make_run(api, receiver, agent_id="logged")
        accepted(await api.append(run_id, COMPLETE))
        await wait_until(lambda: len(receiver.received) == 4)
        refused(
            await api.client.post("/v1/runs", json={"webhooks": [{"url": "x", "secret": OTHER_SECRET}]}),
            422,
            "invalid_body",
        )
    assert caplog.records
    for secret in (SECRET, OTHER_SECRET, made["webhooks"][0]["secret"]):
        assert secret.removeprefix("whsec_") not in caplog.text


async def test_an_agents_webhooks_are_those_of_its_runs(api: RunningGateway, receiver: Receiver) -> None:
    """Of each run as the agent was when it was created; secrets are shown once, and a repeat changes nothing."""
    body = {"webhooks": [{"url": receiver.url, "events": ["run.completed"], "id": "a"}], "queue": "hooked"}
    made = await put_agent(api, "hooked", **body)
    secret = made["webhooks"][0]["secret"]
    again = await put_agent(api, "hooked", **body)
    assert again["version"] == made["version"]
    assert again["webhooks"] == [{"id": "a", "url": receiver.url, "events": ["run.completed"]}]
    shown = accepted(await api.client.get("/v1/agents/hooked"))
    assert shown["webhooks"] == again["webhooks"]
    first = accepted(await api.client.post("/v1/runs", json={"agent_id": "hooked", "mode": "queued"}), 201)
    assert "webhooks" not in first
    await put_agent(api, "hooked", queue="hooked")
    second = accepted(await api.client.post("/v1/runs", json={"agent_id": "hooked", "mode": "queued"}), 201)
    for _ in range(2):
        accepted(await write(api, await claim_one(api, "hooked"), COMPLETE))
    await wait_until(lambda: receiver.received)
    (got,) = receiver.received
    assert got.verify(secret)["data"]["run"]["id"] == first["id"]
    assert accepted(await api.client.get(f"/v1/runs/{second['id']}/webhooks"))["data"] == []
    for target in ("/v1/agents", "/v1/agents/hooked", "/v1/agents/hooked?version=1"):
        assert secret.removeprefix("whsec_") not in (await api.client.get(target)).text


async def test_an_agents_webhook_keeps_its_secret_until_another_is_given(
    api: RunningGateway, receiver: Receiver
) -> None:
    """Also when its URL or its events change; taken away and put back it gets a new one."""
    hook = {"url": receiver.url, "id": "a", "events": ["custom.talk"]}
    secret = (await put_agent(api, "rotating", webhooks=[hook]))["webhooks"][0]["secret"]

    async def signed_with() -> str:
        count = len(receiver.received)
        run = await api.create_run(agent_id="rotating")
        accepted(await api.append(run["id"], TALK))
        await wait_until(lambda: len(receiver.received) == count + 1)
        got = receiver.received[-1]
        return next(known for known in (secret, OTHER_SECRET) if _is_signed(got, known))

    assert await signed_with() == secret
    changed = await put_agent(api, "rotating", webhooks=[{**hook, "events": ["custom.*"]}])
    assert "secret" not in changed["webhooks"][0]
    assert await signed_with() == secret
    given = await put_agent(api, "rotating", webhooks=[{**hook, "secret": OTHER_SECRET}])
    assert "secret" not in given["webhooks"][0]
    assert await signed_with() == OTHER_SECRET
    await put_agent(api, "rotating")
    fresh = (await put_agent(api, "rotating", webhooks=[hook]))["webhooks"][0]["secret"]
    assert fresh not in (secret, OTHER_SECRET)


def _is_signed(got: Any, secret: str) -> bool:
    try:
        got.verify(secret)
    except Exception:
        return False
    return True


async def test_a_runs_own_webhook_stands_for_its_agents_of_the_same_id(api: RunningGateway, receiver: Receiver) -> None:
    """Others of the agent are there too."""
    about = {"url": receiver.url, "secret": OTHER_SECRET}
    await put_agent(api, "both", webhooks=[{**about, "id": "h"}, {**about, "id": "other"}])
    run_id = await make_run(api, receiver, agent_id="both")
    hooks = accepted(await api.client.get(f"/v1/runs/{run_id}/webhooks"))["data"]
    assert [(hook["id"], hook["of_agent"]) for hook in hooks] == [("h", False), ("other", True)]
    accepted(await api.append(run_id, FAIL))
    await wait_until(lambda: len(receiver.received) == 2)
    assert sorted(_is_signed(got, SECRET) for got in receiver.received) == [False, True]
    assert len({got.message_id for got in receiver.received}) == 2


async def test_a_copy_of_a_run_is_told_to_the_same_receivers(api: RunningGateway, receiver: Receiver) -> None:
    """Signed with the same secret: retry and replay make a run like the first."""
    run_id = await make_run(api, receiver, "run.completed")
    accepted(await api.append(run_id, COMPLETE))
    copy = accepted(await act(api, run_id, "replay"), 201)
    assert "webhooks" not in copy
    accepted(await api.append(copy["id"], COMPLETE))
    await wait_until(lambda: len(receiver.received) == 2)
    assert [got.verify()["data"]["run"]["id"] for got in receiver.received] == [run_id, copy["id"]]


BAD_HOOKS: list[tuple[dict[str, Any], str]] = [
    ({}, "$.webhooks[0]"),
    ({"url": "ftp://a.example"}, "$.webhooks[0].url"),
    ({"url": "http://a.example"}, "$.webhooks[0].url"),
    ({"url": "https://u:p@a.example"}, "$.webhooks[0].url"),
    ({"url": "https://127.0.0.1"}, "$.webhooks[0].url"),
    ({"url": "https://localhost"}, "$.webhooks[0].url"),
    ({"url": "https://[::1]"}, "$.webhooks[0].url"),
    ({"url": "https://2130706433"}, "$.webhooks[0].url"),
    ({"url": "https://" + "a" * 3000}, "$.webhooks[0].url"),
    ({"url": 5}, "$.webhooks[0].url"),
    ({"url": "https://a.example", "events": []}, "$.webhooks[0].events"),
    ({"url": "https://a.example", "events": ["run.*", "tool.cal"]}, "$.webhooks[0].events[1]"),
    ({"url": "https://a.example", "events": ["Run.*"]}, "$.webhooks[0].events[0]"),
    ({"url": "https://a.example", "events": ["run.*,log"]}, "$.webhooks[0].events[0]"),
    ({"url": "https://a.example", "secret": "short"}, "$.webhooks[0].secret"),
    ({"url": "https://a.example", "secret": "whsec_c2hvcnQ="}, "$.webhooks[0].secret"),
    ({"url": "https://a.example", "secret": SECRET.removeprefix("whsec_")}, "$.webhooks[0].secret"),
    ({"url": "https://a.example", "secret": "whsec_" + "*" * 40}, "$.webhooks[0].secret"),
    ({"url": "https://a.example", "id": "a b"}, "$.webhooks[0].id"),
    ({"url": "https://a.example", "tpyo": 1}, "$.webhooks[0]"),
]


@pytest.mark.parametrize(("hook", "path"), BAD_HOOKS, ids=str)
async def test_a_webhook_that_cannot_be_is_refused(strict: RunningGateway, hook: dict[str, Any], path: str) -> None:
    """With the place that is wrong, of a run and of an agent alike; nothing is made of the request."""
    runs = (await strict.client.get("/v1/runs")).json()["data"]
    answer = await strict.client.post("/v1/runs", json={"agent_id": "a", "mode": "direct", "webhooks": [hook]})
    problem = refused(answer, 422, problem_code(answer))
    assert problem["path"] == path
    if isinstance(hook.get("secret"), str):
        assert hook["secret"] not in answer.text
    answer = await strict.client.put("/v1/agents/refused", json={"webhooks": [hook]})
    assert refused(answer, 422, problem_code(answer))["path"] == path
    assert (await strict.client.get("/v1/runs")).json()["data"] == runs
    refused(await strict.client.get("/v1/agents/refused"), 404, "not_found")


def problem_code(answer: Any) -> str:
    """Return the code of a refused body: of its shape or of its values."""
    code: str = answer.json()["code"]
    assert code in ("invalid_body", "unknown_event_type")
    return code


async def test_a_run_has_at_most_eight_webhooks_of_its_own(strict: RunningGateway) -> None:
    """And no two of the same id; a URL that is there twice needs ids."""
    many = [{"url": f"https://{n}.example"} for n in range(9)]
    answer = await strict.client.post("/v1/runs", json={"agent_id": "a", "mode": "direct", "webhooks": many})
    assert refused(answer, 422, "invalid_body")["path"] == "$.webhooks"
    twice = [{"url": "https://a.example"}] * 2
    answer = await strict.client.post("/v1/runs", json={"agent_id": "a", "mode": "direct", "webhooks": twice})
    assert refused(answer, 422, "invalid_body")["path"] == "$.webhooks[1].id"
    eight = {"agent_id": "a", "mode": "direct", "webhooks": many[:8]}
    assert len(accepted(await strict.client.post("/v1/runs", json=eight), 201)["webhooks"]) == 8


async def test_a_stream_of_a_new_run_has_no_place_for_a_secret(strict: RunningGateway) -> None:
    """So it has to be given."""
    body = {"agent_id": "a", "mode": "direct", "webhooks": [{"url": "https://a.example"}]}
    answer = await strict.client.post("/v1/runs", json=body, params={"stream": "true"})
    assert refused(answer, 422, "invalid_body")["path"] == "$.webhooks[0].secret"


async def test_webhooks_of_another_tenants_run_are_not_there(api: RunningGateway, receiver: Receiver) -> None:
    """Nor of an agent out of reach."""
    run_id = await make_run(api, receiver)
    async with open_client(api, tenant="elsewhere") as other, open_client(api, agents=["x"]) as bound:
        for client in (other, bound):
            for target in ("webhooks", "webhook-deliveries"):
                refused(await client.get(f"/v1/runs/{run_id}/{target}"), 404, "not_found")
            answer = await client.post(f"/v1/runs/{run_id}/webhooks/h/redeliver", json={})
            refused(answer, 404, "not_found")
    answer = await api.client.post(f"/v1/runs/{run_id}/webhooks/unknown/redeliver", json={})
    refused(answer, 404, "not_found")
    answer = await api.client.post(f"/v1/runs/{run_id}/webhooks/h/redeliver", json={"after_seq": 1000})
    assert refused(answer, 422, "invalid_body")["head_seq"] == 2


async def test_what_was_told_can_be_told_again(api: RunningGateway, receiver: Receiver) -> None:
    """From a seq on, under the same ids, so that a receiver knows what it has; once for one idempotency key."""
    run_id = await make_run(api, receiver, "custom.talk", "run.completed")
    accepted(await api.append(run_id, TALK, TALK, COMPLETE))
    await wait_until(lambda: len(receiver.received) == 3)
    first = [got.message_id for got in receiver.received]
    path, key = f"/v1/runs/{run_id}/webhooks/h/redeliver", {"idempotency-key": "again"}
    accepted(await api.client.post(path, json={}, headers=key))
    await wait_until(lambda: len(receiver.received) == 6)
    assert [got.message_id for got in receiver.received[3:]] == first
    accepted(await api.client.post(path, json={}, headers=key))
    after_seq = receiver.seqs[1]
    accepted(await api.client.post(path, json={"after_seq": after_seq}))
    await wait_until(lambda: len(receiver.received) == 7)
    assert receiver.received[6].message_id == first[2]

    async def read_hook() -> dict[str, Any]:
        (hook,) = accepted(await api.client.get(f"/v1/runs/{run_id}/webhooks"))["data"]
        found: dict[str, Any] = hook
        return found

    async def is_noted() -> bool:
        return bool((await read_hook())["delivered_through_seq"] == receiver.seqs[2])

    await wait_until(is_noted)
    assert await read_hook() == {
        "id": "h",
        "url": receiver.url,
        "events": ["custom.talk", "run.completed"],
        "of_agent": False,
        "state": "active",
        "delivered_through_seq": receiver.seqs[2],
        "failed_tries": 0,
        "next_retry_at": None,
    }
