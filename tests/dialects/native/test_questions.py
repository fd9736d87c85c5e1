"""Questions and answers: one answer counts, everybody learns whose, and a deadline does what the asker chose."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from tests.support.native import accepted, act, ask, get_log, get_run, get_types, open_client, refused
from tests.support.running import COMPLETE, LOG, RunningGateway, RunningStore, run_gateway, wait_until

pytestmark = pytest.mark.anyio

COLOUR = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}


async def wait_status(api: RunningGateway, run_id: str, status: str) -> dict[str, Any]:
    """Return the run once it stands in `status`."""
    found: dict[str, Any] = {}

    async def there() -> bool:
        found.update(await get_run(api, run_id))
        return bool(found["status"] == status)

    await wait_until(there)
    return found


async def last_of(api: RunningGateway, run_id: str, kind: str) -> dict[str, Any]:
    """Return the data of the run's last event of a type."""
    data: dict[str, Any] = [event["data"] for event in await get_log(api, run_id) if event["type"] == kind][-1]
    return data


async def test_a_question_is_shown_whole_where_it_is_looked_for(api: RunningGateway) -> None:
    """The record and the event say what was asked, with the id that the gateway filled in and told the writer."""
    run = await api.create_run()
    request_id = await ask(api, run["id"], prompt="Which colour?", schema=COLOUR, timeout_s=600, on_timeout="fail")
    (question,) = (await get_run(api, run["id"]))["open_requests"]
    asked = await last_of(api, run["id"], "run.waiting_for_input")
    assert question == {
        "request_id": request_id,
        "prompt": "Which colour?",
        "schema": COLOUR,
        "deadline_at": asked["deadline_at"],
        "on_timeout": "fail",
        "default": None,
        "created_at": question["created_at"],
    }
    assert asked["request_id"] == request_id
    assert "timeout_s" not in asked


async def test_an_answer_is_an_event_with_its_author(api: RunningGateway) -> None:
    """The reply names the question and the seq; the log says who answered, on whose behalf."""
    run = await api.create_run()
    request_id = await ask(api, run["id"])
    reply = accepted(await act(api, run["id"], "input", content={"go": True}, triggered_by="console"))
    assert reply == {"ok": True, "request_id": request_id, "seq": 5}
    received = (await get_log(api, run["id"]))[-1]
    assert (received["seq"], received["type"]) == (5, "run.input_received")
    assert received["data"]["content"] == {"go": True}
    assert received["data"]["actor"]["triggered_by"] == "console"
    assert (await get_run(api, run["id"]))["status"] == "running"


@pytest.mark.parametrize("content", [None, False, 0, "", [], {}, "yes", 1.5, {"deep": [{"er": None}]}])
async def test_any_json_is_an_answer(api: RunningGateway, content: Any) -> None:
    """Also null and the empty values: they arrive as they were sent."""
    run = await api.create_run()
    await ask(api, run["id"])
    accepted(await act(api, run["id"], "input", content=content))
    assert (await last_of(api, run["id"], "run.input_received"))["content"] == content


async def test_an_answer_without_content_is_refused(api: RunningGateway) -> None:
    """A forgotten member is not an answer of null."""
    run = await api.run_in("waiting_for_input")
    assert "content" in refused(await act(api, run["id"], "input"), 422, "invalid_body")["detail"]


async def test_an_answer_must_fit_the_schema(api: RunningGateway) -> None:
    """The refusal says where it does not; the question stays open for a better one."""
    run = await api.create_run()
    await ask(api, run["id"], schema=COLOUR)
    before = await get_run(api, run["id"])
    for wrong in ({"colour": "green"}, {}, "red", None):
        assert "content" in refused(await act(api, run["id"], "input", content=wrong), 422, "invalid_body")["detail"]
    assert await get_run(api, run["id"]) == before
    accepted(await act(api, run["id"], "input", content={"colour": "red"}))


async def test_a_schema_may_refer_into_itself_but_nowhere_else(api: RunningGateway) -> None:
    """A reference to another document is never fetched: whoever asks is told."""
    run = await api.create_run()
    await ask(api, run["id"], schema={"$defs": {"n": {"type": "integer"}}, "$ref": "#/$defs/n"})
    refused(await act(api, run["id"], "input", content="3"), 422, "invalid_body")
    accepted(await act(api, run["id"], "input", content=3))
    outer = ("run.waiting_for_input", {"prompt": "?", "schema": {"$ref": "http://127.0.0.1:1/schema.json"}})
    problem = refused(await api.append(run["id"], outer), 422, "invalid_body")
    assert (problem["index"], problem["path"]) == (0, "data.schema.$ref")


async def test_an_answer_that_takes_long_to_check_is_refused(api: RunningGateway) -> None:
    """And a pattern that could take for ever is refused when it is asked with."""
    run = await api.create_run()
    doubling = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
    schema = {"$defs": {**doubling, "d40": {"type": "string"}}, "$ref": "#/$defs/d0"}
    request_id = await ask(api, run["id"], schema=schema)
    problem = refused(await act(api, run["id"], "input", content="x", request_id=request_id), 422, "invalid_body")
    assert "too many steps" in problem["detail"]
    pattern = ("run.waiting_for_input", {"prompt": "?", "schema": {"pattern": r"^(a)\1$"}})
    assert "linear" in refused(await api.append(run["id"], pattern), 422, "invalid_body")["detail"]
    request_id = await ask(api, run["id"], schema={"pattern": "^(a+)+$"})
    answer = await act(api, run["id"], "input", content="a" * 30_000 + "!", request_id=request_id)
    refused(answer, 422, "invalid_body")
    request_id = await ask(api, run["id"], schema={"multipleOf": 0.5})
    refused(await act(api, run["id"], "input", content="x" * 5, request_id="no"), 404, "unknown_request")
    huge = b'{"content":' + b"7" * 400 + b',"request_id":"' + request_id.encode() + b'"}'
    accepted(await api.client.post(f"/v1/runs/{run['id']}/input", content=huge))


@pytest.mark.parametrize(
    "data",
    [
        {"schema": {"type": "nonsense"}},
        {"schema": {"required": "colour"}},
        {"schema": [1]},
        {"schema": "string"},
        {"on_timeout": "explode", "timeout_s": 1},
        {"on_timeout": "fail"},
        {"on_timeout": "default", "timeout_s": 1},
        {"on_timeout": "default", "timeout_s": 1, "default": "green", "schema": {"enum": ["red"]}},
        {"timeout_s": 0},
        {"timeout_s": -1},
        {"timeout_s": True},
        {"timeout_s": "5"},
        {"timeout_s": 1e12},
        {"timeout_s": 5, "deadline_at": "2099-01-01T00:00:00Z"},
        {"deadline_at": "tomorrow"},
        {"deadline_at": "2099-01-01T00:00:00"},
        {"deadline_at": 5},
        {"prompt": None},
        {"prompt": 7},
        {"request_id": ""},
        {"request_id": "x" * 129},
        {"request_id": 5},
    ],
    ids=str,
)
async def test_a_malformed_question_is_not_asked(api: RunningGateway, data: dict[str, Any]) -> None:
    """The refusal says which event and which member; the run is not even started by it."""
    run = await api.create_run()
    problem = refused(
        await api.append(run["id"], ("run.waiting_for_input", {"prompt": "Go on?", **data})), 422, "invalid_body"
    )
    assert "events[0]: data" in problem["detail"]
    assert await get_run(api, run["id"]) == run


async def test_several_questions_are_answered_in_any_order(api: RunningGateway) -> None:
    """The run waits until the last one is closed."""
    run = await api.create_run()
    ids = [await ask(api, run["id"], request_id=name) for name in ("a", "b", "c")]
    assert ids == ["a", "b", "c"]
    for name, status in (("b", "waiting_for_input"), ("c", "waiting_for_input"), ("a", "running")):
        accepted(await act(api, run["id"], "input", content=name, request_id=name))
        assert (await get_run(api, run["id"]))["status"] == status


async def test_an_answer_names_its_question_where_several_are_open(api: RunningGateway) -> None:
    """Without a name it is refused with the names; with one question left it needs none."""
    run = await api.create_run()
    await ask(api, run["id"], request_id="a")
    await ask(api, run["id"], request_id="b")
    problem = refused(await act(api, run["id"], "input", content=1), 409, "request_id_required")
    assert problem["request_ids"] == ["a", "b"]
    accepted(await act(api, run["id"], "input", content=1, request_id="a"))
    assert accepted(await act(api, run["id"], "input", content=2))["request_id"] == "b"


async def test_two_questions_of_one_append_are_told_in_order(api: RunningGateway) -> None:
    """`request_ids` are those of the batch's questions, given or filled in."""
    run = await api.create_run()
    question = ("run.waiting_for_input", {"prompt": "?"})
    named = ("run.waiting_for_input", {"prompt": "?", "request_id": "mine"})
    body = accepted(await api.append(run["id"], question, LOG, named))
    assert body["request_ids"][1] == "mine"
    assert [q["request_id"] for q in (await get_run(api, run["id"]))["open_requests"]] == body["request_ids"]


async def test_an_unknown_question_is_not_found(api: RunningGateway) -> None:
    """It is told from one that was answered."""
    run = await api.run_in("waiting_for_input")
    refused(await act(api, run["id"], "input", content=1, request_id="never"), 404, "unknown_request")


async def test_a_second_answer_learns_of_the_first(api: RunningGateway) -> None:
    """With the winner's seq, also after the run has ended."""
    run = await api.create_run()
    request_id = await ask(api, run["id"])
    first = accepted(await act(api, run["id"], "input", content="first"))
    for _ in range(2):
        problem = refused(
            await act(api, run["id"], "input", content="second", request_id=request_id), 409, "already_answered"
        )
        assert (problem["seq"], problem["question_id"]) == (first["seq"], request_id)
        await api.append(run["id"], COMPLETE)


async def test_an_answer_to_a_run_that_asks_nothing_is_refused(api: RunningGateway) -> None:
    """Without a question's name, nothing says what was meant."""
    run = await api.run_in("running")
    assert refused(await act(api, run["id"], "input", content=1), 409, "invalid_state")["current_status"] == "running"


@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
async def test_of_twenty_answers_at_once_one_counts(api: RunningGateway, named: bool) -> None:
    """Exactly one gets 200 with the seq of the only answer in the log; all others are told of it."""
    for _ in range(5):
        run = await api.create_run()
        request_id = await ask(api, run["id"])
        about = {"request_id": request_id} if named else {}
        answers = await asyncio.gather(*(act(api, run["id"], "input", content=n, **about) for n in range(20)))
        assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 19}
        (winner,) = [n for n, answer in enumerate(answers) if answer.status_code == 200]
        (received,) = [e for e in await get_log(api, run["id"]) if e["type"] == "run.input_received"]
        assert (received["data"]["content"], received["seq"]) == (winner, answers[winner].json()["seq"])
        for answer in answers:
            if answer.status_code == 409 and named:
                assert refused(answer, 409, "already_answered")["seq"] == received["seq"]
            elif answer.status_code == 409:
                assert refused(answer, 409, "invalid_state")["current_status"] == "running"


async def test_answers_race_over_two_gateways(store: RunningStore, api: RunningGateway) -> None:
    """Several open questions, answered by many through both: each gets one answer."""
    run = await api.create_run()
    names = [await ask(api, run["id"], request_id=f"q{n}") for n in range(4)]
    async with run_gateway(store.url, tenant=api.tenant) as other:
        both = (api, other)
        answers = await asyncio.gather(
            *(act(both[n % 2], run["id"], "input", content=n, request_id=name) for n in range(6) for name in names)
        )
    assert Counter(answer.status_code for answer in answers) == {200: 4, 409: 20}
    assert all(answer.status_code == 200 or answer.json()["code"] == "already_answered" for answer in answers)
    received = [e["data"]["request_id"] for e in await get_log(api, run["id"]) if e["type"] == "run.input_received"]
    assert sorted(received) == names
    assert (await get_run(api, run["id"]))["status"] == "running"


async def test_a_repeated_answer_gets_the_first_reply(api: RunningGateway) -> None:
    """Under its idempotency key, whatever happened to the run since; another body under that key is 422."""
    run = await api.create_run()
    await ask(api, run["id"])
    first = accepted(await act(api, run["id"], "input", "key-1", content="yes"))
    assert accepted(await act(api, run["id"], "input", "key-1", content="yes")) == first
    refused(await act(api, run["id"], "input", "key-1", content="no"), 422, "idempotency_mismatch")
    refused(
        await act(api, run["id"], "input", "key-2", content="yes", request_id=first["request_id"]),
        409,
        "already_answered",
    )
    await api.append(run["id"], COMPLETE)
    assert accepted(await act(api, run["id"], "input", "key-1", content="yes")) == first
    accepted(await act(api, run["id"], "restart"))
    assert accepted(await act(api, run["id"], "input", "key-1", content="yes")) == first


async def test_the_same_answer_twenty_times_at_once_is_one(api: RunningGateway) -> None:
    """Repeats that overtake one another under one key all get the one reply."""
    run = await api.create_run()
    await ask(api, run["id"])
    answers = await asyncio.gather(*(act(api, run["id"], "input", "same", content="yes") for _ in range(20)))
    replies = [accepted(answer) for answer in answers]
    assert all(reply == replies[0] for reply in replies)
    assert (await get_types(api, run["id"])).count("run.input_received") == 1


async def test_content_is_bounded_at_32_kib(api: RunningGateway) -> None:
    """Text by its bytes, other values by their JSON: the last byte fits, one more does not."""
    run = await api.create_run()
    await ask(api, run["id"])
    await ask(api, run["id"], request_id="other")
    for content in ("x" * 32_769, "é" * 16_385, ["x" * 32_765]):
        problem = refused(await act(api, run["id"], "input", content=content, request_id="other"), 413, "too_large")
        assert problem["limit_bytes"] == 32_768
    accepted(await act(api, run["id"], "input", content="é" * 16_384, request_id="other"))
    accepted(await act(api, run["id"], "input", content="x" * 32_768))


async def test_a_deadline_that_fails_ends_the_run(api: RunningGateway) -> None:
    """`fail`: the question is closed with the reason, the run fails with an error that names it."""
    run = await api.create_run()
    request_id = await ask(api, run["id"], timeout_s=0.05, on_timeout="fail")
    failed = await wait_status(api, run["id"], "failed")
    assert failed["error"]["code"] == "input_timeout"
    assert request_id in failed["error"]["message"]
    assert (await get_types(api, run["id"]))[-2:] == ["run.input_closed", "run.failed"]
    assert await last_of(api, run["id"], "run.input_closed") == {"request_id": request_id, "reason": "deadline"}
    refused(await act(api, run["id"], "input", content=1, request_id=request_id), 409, "question_closed")


async def test_a_deadline_that_cancels_ends_the_run(api: RunningGateway) -> None:
    """`cancel`: the run is cancelled by the system, and nobody else's question stays open."""
    run = await api.create_run()
    await ask(api, run["id"], request_id="other")
    request_id = await ask(api, run["id"], timeout_s=0.05, on_timeout="cancel")
    cancelled = await wait_status(api, run["id"], "cancelled")
    assert cancelled["open_requests"] == []
    events = (await get_log(api, run["id"]))[-3:]
    assert [(e["type"], e["data"].get("request_id")) for e in events] == [
        ("run.input_closed", request_id),
        ("run.input_closed", "other"),
        ("run.cancelled", None),
    ]
    assert events[-1]["data"]["actor"]["kind"] == "system"


async def test_a_deadline_with_a_default_answers_itself(api: RunningGateway) -> None:
    """`default`: that answer is recorded as the system's, and the run goes on."""
    run = await api.create_run()
    request_id = await ask(api, run["id"], timeout_s=0.05, on_timeout="default", default=None)
    await wait_status(api, run["id"], "running")
    received = await last_of(api, run["id"], "run.input_received")
    assert (received["content"], received["actor"]["kind"], received["reason"]) == (None, "system", "deadline")
    refused(await act(api, run["id"], "input", content=1, request_id=request_id), 409, "already_answered")


async def test_a_deadline_that_keeps_changes_nothing(api: RunningGateway) -> None:
    """`keep`, which is also what is meant where nothing is said: the question can still be answered."""
    run = await api.create_run()
    await ask(api, run["id"], timeout_s=0.05, on_timeout="keep", request_id="kept")
    await ask(api, run["id"], timeout_s=0.05, request_id="silent")
    await ask(api, run["id"], timeout_s=0.2, on_timeout="default", default=1, request_id="clock")

    async def passed() -> bool:
        return "run.input_received" in await get_types(api, run["id"])

    await wait_until(passed)
    left = (await get_run(api, run["id"]))["open_requests"]
    assert [q["request_id"] for q in left] == ["kept", "silent"]
    accepted(await act(api, run["id"], "input", content=1, request_id="kept"))


async def test_an_answer_before_the_deadline_disarms_it(api: RunningGateway) -> None:
    """An answered question fails nothing when its time comes."""
    run = await api.create_run()
    await ask(api, run["id"], timeout_s=0.8, on_timeout="fail", request_id="early")
    await ask(api, run["id"], timeout_s=1, on_timeout="default", default=1, request_id="clock")
    accepted(await act(api, run["id"], "input", content=1, request_id="early"))
    await wait_status(api, run["id"], "running")
    assert "run.input_closed" not in await get_types(api, run["id"])


async def test_a_deadline_passes_while_the_run_is_paused(api: RunningGateway) -> None:
    """The default is recorded; the pause stays."""
    run = await api.create_run()
    await ask(api, run["id"], timeout_s=0.1, on_timeout="default", default="d")
    accepted(await act(api, run["id"], "pause"))

    async def answered() -> bool:
        return "run.input_received" in await get_types(api, run["id"])

    await wait_until(answered)
    assert (await get_run(api, run["id"]))["status"] == "paused"
    assert accepted(await act(api, run["id"], "resume"))["status"] == "running"


async def test_an_id_is_asked_once_an_attempt(api: RunningGateway) -> None:
    """An answer must never be taken for a later question's: open, answered or withdrawn, the id is spent."""
    run = await api.create_run()
    await ask(api, run["id"], request_id="once")
    again = ("run.waiting_for_input", {"prompt": "?", "request_id": "once"})
    refused(await api.append(run["id"], again), 422, "invalid_body")
    accepted(await act(api, run["id"], "input", content=1))
    refused(await api.append(run["id"], again), 422, "invalid_body")


async def test_an_id_is_asked_once_also_within_a_batch(api: RunningGateway) -> None:
    """A question withdrawn a line before has spent its id like any other."""
    run = await api.create_run()
    question = ("run.waiting_for_input", {"prompt": "?", "request_id": "once"})
    withdrawal = ("run.input_closed", {"request_id": "once"})
    refused(await api.append(run["id"], question, withdrawal, question), 422, "invalid_body")
    refused(await api.append(run["id"], question, question), 422, "invalid_body")


async def test_a_later_attempt_asks_again_under_the_same_id(api: RunningGateway) -> None:
    """Its question is the one that is open, listed, shown and answered; the first answer stays in the log."""
    run = await api.create_run()
    fixed = {"request_id": "approve"}
    await ask(api, run["id"], prompt="First?", **fixed)
    first = accepted(await act(api, run["id"], "input", key="a", content=1, **fixed))
    accepted(await act(api, run["id"], "restart"))
    late = refused(await act(api, run["id"], "input", content=9, **fixed), 409, "already_answered")
    assert late["seq"] == first["seq"]
    accepted(await api.append(run["id"], ("run.waiting_for_input", {"prompt": "Again?", **fixed}), attempt=2))
    inbox = accepted(await api.client.get("/v1/requests", params={"status": "open"}))["data"]
    assert [item["prompt"] for item in inbox if item["run_id"] == run["id"]] == ["Again?"]
    assert accepted(await act(api, run["id"], "input", key="a", content=1, **fixed)) == first
    assert (await get_run(api, run["id"]))["status"] == "waiting_for_input"
    second = accepted(await act(api, run["id"], "input", key="b", content=2, **fixed))
    late = refused(await act(api, run["id"], "input", content=9, **fixed), 409, "already_answered")
    assert late["seq"] == second["seq"] > first["seq"]
    state = accepted(await api.client.get(f"/v1/runs/{run['id']}/snapshot"))["state"]
    assert (state["questions"]["approve"]["prompt"], state["questions"]["approve"]["content"]) == ("Again?", 2)
    told = [e["data"]["content"] for e in await get_log(api, run["id"]) if e["type"] == "run.input_received"]
    assert told == [1, 2]


async def test_a_repeated_answer_names_its_question_long_after(api: RunningGateway) -> None:
    """However many questions were asked since, and whether or not the answer named it."""
    run = await api.create_run()
    request_id = await ask(api, run["id"])
    first = accepted(await act(api, run["id"], "input", key="a", content=1))
    for number in range(70):
        batch = (
            ("run.waiting_for_input", {"prompt": "?", "request_id": f"n{number}"}),
            ("run.input_closed", {"request_id": f"n{number}"}),
        )
        accepted(await api.append(run["id"], *batch))
    assert accepted(await act(api, run["id"], "input", key="a", content=1)) == first
    assert first["request_id"] == request_id
    record = await api.gateway.stores.runs.load(run["id"], api.tenant)
    assert len(record.marks) < 75
    assert len(record.state.settled) == 64


async def test_an_asker_may_withdraw_its_question(api: RunningGateway) -> None:
    """With the reason it gives; a late answer is told that, and the run goes on."""
    run = await api.create_run()
    request_id = await ask(api, run["id"])
    accepted(await api.append(run["id"], ("run.input_closed", {"request_id": request_id, "reason": "found it"})))
    assert (await get_run(api, run["id"]))["status"] == "running"
    problem = refused(await act(api, run["id"], "input", content=1, request_id=request_id), 409, "question_closed")
    assert problem["seq"] == 5
    refused(await api.append(run["id"], ("run.input_closed", {"request_id": request_id})), 404, "unknown_request")


async def test_questions_of_an_abandoned_attempt_are_closed(api: RunningGateway) -> None:
    """A restart withdraws them; their answers come too late."""
    run = await api.create_run()
    request_id = await ask(api, run["id"])
    accepted(await act(api, run["id"], "pause"))
    restarted = accepted(await act(api, run["id"], "restart"))
    assert restarted["open_requests"] == []
    assert await last_of(api, run["id"], "run.input_closed") == {"request_id": request_id, "reason": "restarted"}
    refused(await act(api, run["id"], "input", content=1, request_id=request_id), 409, "question_closed")


async def test_a_paused_run_takes_no_answer_and_waits_on_when_resumed(api: RunningGateway) -> None:
    """Its question outlives the pause."""
    run = await api.create_run()
    request_id = await ask(api, run["id"])
    accepted(await act(api, run["id"], "pause"))
    refused(await act(api, run["id"], "input", content=1), 409, "invalid_state")
    assert accepted(await act(api, run["id"], "resume"))["status"] == "waiting_for_input"
    assert accepted(await act(api, run["id"], "input", content=1))["request_id"] == request_id


async def test_open_questions_are_bounded(api: RunningGateway) -> None:
    """Thirty-two may be open; one more is refused until one is closed."""
    run = await api.create_run()
    questions = [("run.waiting_for_input", {"prompt": "?", "request_id": f"q{n}"}) for n in range(33)]
    accepted(await api.append(run["id"], *questions[:32]))
    assert refused(await api.append(run["id"], questions[32]), 413, "too_large")["limit"] == 32
    accepted(await act(api, run["id"], "input", content=1, request_id="q0"))
    accepted(await api.append(run["id"], questions[32]))


async def test_an_answer_needs_the_scope_for_it(api: RunningGateway) -> None:
    """A key that only answers may answer; one that only reads or writes may not."""
    run = await api.run_in("waiting_for_input")
    for scope, status in (("runs:read", 403), ("runs:write", 403), ("runs:input", 200)):
        async with open_client(api, scopes=[scope]) as client:
            answer = await client.post(f"/v1/runs/{run['id']}/input", json={"content": 1})
            assert answer.status_code == status, scope


async def test_a_worker_is_told_of_the_answer_with_its_next_append(api: RunningGateway) -> None:
    """`pending` names the event of it, once."""
    run = await api.create_run()
    await ask(api, run["id"])
    seq = accepted(await act(api, run["id"], "input", content=1))["seq"]
    assert accepted(await api.append(run["id"], LOG))["pending"] == [{"type": "input", "seq": seq}]
    assert accepted(await api.append(run["id"], LOG))["pending"] == []
