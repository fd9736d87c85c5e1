"""Appending: stored whole or not at all, once, in the writer's order, and refused for a reason that it can act on."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from gateway.domain.catalogue import CATALOGUE
from gateway.domain.events import APPENDABLE
from tests.support.native import accepted, act, get_log, get_run, get_types, open_client, refused
from tests.support.running import COMPLETE, LOG, RunningGateway, RunningStore, run_gateway

pytestmark = pytest.mark.anyio

NDJSON = {"content-type": "application/x-ndjson"}


def note(message: object) -> tuple[str, Any]:
    """Return a log event that says `message`."""
    return ("log", {"level": "info", "message": str(message)})


def line(message: object) -> bytes:
    """Return a log event as a line of a streamed append."""
    return json.dumps({"type": "log", "data": note(message)[1]}).encode() + b"\n"


async def stream(api: RunningGateway, run_id: str, body: Any, **params: Any) -> list[dict[str, Any]]:
    """Send a streamed append and return its answers."""
    answer = await api.client.post(f"/v1/runs/{run_id}/events", content=body, headers=NDJSON, params=params)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(text) for text in answer.text.splitlines()]


async def messages(api: RunningGateway, run_id: str) -> list[str]:
    """Return the messages of a run's log events, in order."""
    return [event["data"]["message"] for event in await get_log(api, run_id) if event["type"] == "log"]


async def test_an_event_is_stored_as_it_was_sent(api: RunningGateway) -> None:
    """Type, data and steps come back whole, with seq, run, attempt and time around them."""
    run = await api.run_in("running")
    data = {"call_id": "c", "name": "search", "input": {"q": "ü\u2028\n☃", "n": [1, 2.5, None, True]}}
    event = {"type": "tool.call", "data": data, "step_id": "s1", "parent_id": "p1"}
    body = accepted(await api.client.post(f"/v1/runs/{run['id']}/events", json={"events": [event]}))
    stored = (await get_log(api, run["id"]))[-1]
    assert stored.pop("created_at").endswith("Z")
    assert stored == {"seq": body["first_seq"], "run_id": run["id"], "attempt": 1, **event}


async def test_one_event_may_be_the_whole_body(api: RunningGateway) -> None:
    """Beside its own members it takes those of a batch."""
    run = await api.create_run()
    path = f"/v1/runs/{run['id']}/events"
    single = {"type": "custom.note", "data": 1, "writer": "w", "writer_seq": 1, "expected_seq": 2, "attempt": 1}
    first = accepted(await api.client.post(path, json=single))
    assert (first["first_seq"], first["last_seq"], first["duplicate"]) == (4, 4, False)
    again = accepted(await api.client.post(path, json=single))
    assert (again["first_seq"], again["duplicate"]) == (4, True)
    refused(await api.client.post(path, json={**single, "writer_seq": 3}), 409, "writer_gap")


async def test_a_reply_says_where_the_run_stands(api: RunningGateway) -> None:
    """Seqs of the batch, status, attempt, and nothing pending."""
    run = await api.create_run()
    assert accepted(await api.append(run["id"], LOG, LOG, COMPLETE)) == {
        "first_seq": 4,
        "last_seq": 6,
        "status": "completed",
        "attempt": 1,
        "pending": [],
        "duplicate": False,
    }


async def test_a_writer_is_told_what_is_pending(api: RunningGateway) -> None:
    """Pause and cancel are named with their event's seq for as long as they stand."""
    run = await api.run_in("running")
    pause = accepted(await act(api, run["id"], "pause"))["head_seq"]
    for _ in range(2):
        assert accepted(await api.append(run["id"], LOG))["pending"] == [{"type": "pause", "seq": pause}]
    accepted(await act(api, run["id"], "resume"))
    assert accepted(await api.append(run["id"], LOG))["pending"] == []
    cancel = accepted(await act(api, run["id"], "cancel"))["head_seq"]
    reply = accepted(await api.append(run["id"], LOG))
    assert (reply["status"], reply["pending"]) == ("cancelling", [{"type": "cancel", "seq": cancel}])


async def test_an_empty_batch_is_a_heartbeat(api: RunningGateway) -> None:
    """It stores nothing, says where the run stands, and does not start a run that waits to be started."""
    queued, running = await api.create_run(), await api.run_in("running")
    for run in (queued, running):
        reply = accepted(await api.append(run["id"]))
        assert (reply["first_seq"], reply["last_seq"], reply["status"]) == (None, run["head_seq"], run["status"])
        assert (await get_run(api, run["id"]))["head_seq"] == run["head_seq"]


async def test_a_heartbeat_of_an_ended_run_is_refused(api: RunningGateway) -> None:
    """A worker must learn that nobody waits for it any more."""
    run = await api.run_in("completed")
    assert refused(await api.append(run["id"]), 409, "invalid_state")["current_status"] == "completed"
    restarted = await api.run_in("completed")
    await act(api, restarted["id"], "restart")
    refused(await api.append(restarted["id"], attempt=1), 409, "fenced")


async def test_an_empty_batch_counts_for_its_writer(api: RunningGateway) -> None:
    """Whatever the run's status, the next number is the next."""
    for status in ("queued", "running"):
        run = await api.run_in(status)
        accepted(await api.append(run["id"], writer="w", writer_seq=1))
        accepted(await api.append(run["id"], note("a"), writer="w", writer_seq=2))
        assert await messages(api, run["id"]) == ["working", "a"][-1 if status == "queued" else 0 :]


@pytest.mark.parametrize("kind", sorted(set(CATALOGUE) - APPENDABLE))
async def test_what_the_gateway_writes_nobody_else_may(api: RunningGateway, kind: str) -> None:
    """A writer cannot forge a status."""
    run = await api.run_in("running")
    problem = refused(await api.append(run["id"], LOG, (kind, {})), 422, "invalid_body")
    assert (problem["reason"], problem["index"]) == ("reserved_type", 1)
    assert await get_run(api, run["id"]) == run


@pytest.mark.parametrize(
    ("kind", "data", "path"),
    [
        ("tool.call", {"call_id": "c", "name": "n"}, "data.input"),
        ("tool.call", {"call_id": 1, "name": "n", "input": 1}, "data.call_id"),
        ("message.delta", {"content": None}, "data.content"),
        ("message.delta", [], "data"),
        ("step.completed", {"step_id": "s", "duration_ms": -1}, "data.duration_ms"),
        (
            "usage.recorded",
            {"provider": "p", "model": "m", "prompt_tokens": 1.5, "completion_tokens": 1},
            "data.prompt",
        ),
        ("run.failed", {"error": {"message": "m"}}, "data.error.code"),
        ("run.completed", {}, "data.output"),
        ("file.created", {"file_id": "f", "name": "n", "size_bytes": 2**60, "content_type": "t"}, "data.size_bytes"),
    ],
)
async def test_data_must_have_the_shape_of_its_type(api: RunningGateway, kind: str, data: Any, path: str) -> None:
    """The refusal names the event and the member; nothing of the batch is stored."""
    run = await api.run_in("running")
    problem = refused(await api.append(run["id"], LOG, (kind, data)), 422, "invalid_body")
    assert problem["index"] == 1
    assert problem["path"].startswith(path)
    assert await get_run(api, run["id"]) == run


async def test_an_unknown_type_is_refused_with_the_nearest_known_one(api: RunningGateway) -> None:
    """A typo is told from a custom event."""
    run = await api.run_in("running")
    problem = refused(await api.append(run["id"], ("tool.cal", {})), 422, "unknown_event_type")
    assert problem["nearest"] == "tool.call"
    assert "tool.call" in problem["detail"]
    refused(await api.append(run["id"], ("custom.", {})), 422, "unknown_event_type")
    accepted(await api.append(run["id"], ("custom.anything.at-all_1", None)))


async def test_events_and_batches_are_bounded(api: RunningGateway) -> None:
    """256 KiB an event, 1,000 events a batch, 1 MiB a body; what fits exactly is taken."""
    run = await api.run_in("running")
    room = 256 * 1024 - len('{"level":"info","message":""}')
    refused(await api.append(run["id"], note("x" * (room + 1))), 413, "too_large")
    refused(await api.append(run["id"], *[LOG] * 1001), 413, "too_large")
    refused(await api.append(run["id"], *[note("x" * 220_000)] * 5), 413, "too_large")
    assert (await get_run(api, run["id"]))["head_seq"] == run["head_seq"]
    accepted(await api.append(run["id"], note("x" * room)))
    accepted(await api.append(run["id"], *[LOG] * 1000))


async def test_a_full_log_still_takes_the_end(store: RunningStore) -> None:
    """At its limit of events a run can only be ended."""
    async with run_gateway(store.url, log_events=10) as api:
        run = await api.create_run()
        accepted(await api.append(run["id"], *[LOG] * 7))
        assert refused(await api.append(run["id"], LOG), 409, "log_full")["head_seq"] == 10
        accepted(await api.append(run["id"], COMPLETE))
        assert len(await get_log(api, run["id"])) == 11


async def test_a_writer_sends_its_numbers_in_order(api: RunningGateway) -> None:
    """The next is stored; a skipped, an older and a changed one are each refused as what they are."""
    run = await api.create_run()
    assert refused(await api.append(run["id"], LOG, writer="w", writer_seq=2), 409, "writer_gap")["expected"] == 1
    first = accepted(await api.append(run["id"], note(1), writer="w", writer_seq=1))
    second = accepted(await api.append(run["id"], note(2), writer="w", writer_seq=2))
    assert refused(await api.append(run["id"], note(4), writer="w", writer_seq=4), 409, "writer_gap")["expected"] == 3
    assert refused(await api.append(run["id"], note(1), writer="w", writer_seq=1), 409, "writer_stale")["expected"] == 3
    refused(await api.append(run["id"], note("?"), writer="w", writer_seq=2), 422, "idempotency_mismatch")
    again = accepted(await api.append(run["id"], note(2), writer="w", writer_seq=2))
    assert again == second | {"duplicate": True}
    assert (first["duplicate"], second["first_seq"]) == (False, 5)
    assert await messages(api, run["id"]) == ["1", "2"]


async def test_writers_count_for_themselves(api: RunningGateway) -> None:
    """One's gap is not another's."""
    run = await api.create_run()
    for number in (1, 2, 3):
        for writer in ("a", "b"):
            accepted(await api.append(run["id"], note(f"{writer}{number}"), writer=writer, writer_seq=number))
    assert await messages(api, run["id"]) == ["a1", "b1", "a2", "b2", "a3", "b3"]


@pytest.mark.parametrize("half", [{"writer": "w"}, {"writer_seq": 1}])
async def test_a_writer_and_its_number_come_together(api: RunningGateway, half: dict[str, Any]) -> None:
    """Half of it would protect nothing."""
    run = await api.run_in("running")
    refused(await api.append(run["id"], LOG, **half), 422, "invalid_body")


async def test_a_repeat_is_answered_after_the_run_has_ended(api: RunningGateway) -> None:
    """The writer whose last reply was lost learns that its end was stored; a new event is refused."""
    run = await api.create_run()
    first = accepted(await api.append(run["id"], LOG, COMPLETE, writer="w", writer_seq=1))
    again = accepted(await api.append(run["id"], LOG, COMPLETE, writer="w", writer_seq=1))
    assert again == first | {"duplicate": True}
    refused(await api.append(run["id"], LOG, writer="w", writer_seq=2), 409, "invalid_state")


async def test_a_repeat_names_the_same_questions(api: RunningGateway) -> None:
    """Ids that the gateway filled in are told again, not made anew."""
    run = await api.create_run()
    question = ("run.waiting_for_input", {"prompt": "?"})
    first = accepted(await api.append(run["id"], LOG, question, writer="w", writer_seq=1))
    again = accepted(await api.append(run["id"], LOG, question, writer="w", writer_seq=1))
    assert again["request_ids"] == first["request_ids"]
    accepted(await act(api, run["id"], "input", content=1, request_id=first["request_ids"][0]))
    again = accepted(await api.append(run["id"], LOG, question, writer="w", writer_seq=1))
    assert (again["request_ids"], again["duplicate"]) == (first["request_ids"], True)


async def test_the_same_append_many_times_at_once_is_stored_once(api: RunningGateway) -> None:
    """All get the same seqs; one of them was the first."""
    for start in ("queued", "running"):
        run = await api.run_in(start)
        answers = await asyncio.gather(
            *(api.append(run["id"], note("once"), writer="w", writer_seq=1) for _ in range(20))
        )
        replies = [accepted(answer) for answer in answers]
        assert len({reply["first_seq"] for reply in replies}) == 1
        assert Counter(reply["duplicate"] for reply in replies) == {False: 1, True: 19}
        assert (await messages(api, run["id"])).count("once") == 1


async def test_many_writers_at_once_leave_no_hole(api: RunningGateway) -> None:
    """Each one's events are there in its order, and seq is dense."""
    run = await api.create_run()

    async def write(writer: str) -> None:
        for number in range(1, 16):
            await api.append(run["id"], note(f"{writer} {number}"), note("-"), writer=writer, writer_seq=number)

    await asyncio.gather(*(write(f"w{n}") for n in range(8)))
    said = [text for text in await messages(api, run["id"]) if text != "-"]
    for n in range(8):
        assert [t for t in said if t.startswith(f"w{n} ")] == [f"w{n} {number}" for number in range(1, 16)]
    assert len(said) == 8 * 15


async def test_the_first_append_of_many_writers_starts_the_run_once(api: RunningGateway) -> None:
    """Twenty race to start it; all are stored, `run.started` is there once, before them all."""
    run = await api.create_run()
    answers = await asyncio.gather(*(api.append(run["id"], note(n)) for n in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    types = await get_types(api, run["id"])
    assert types == ["run.created", "run.queued", "run.started", *["log"] * 20]


async def test_a_run_has_at_most_so_many_writers(api: RunningGateway) -> None:
    """Sixty-four are known; the next is refused, the known ones go on."""
    run = await api.create_run()
    for number in range(64):
        accepted(await api.append(run["id"], LOG, writer=f"w{number}", writer_seq=1))
    refused(await api.append(run["id"], LOG, writer="one too many", writer_seq=1), 409, "too_many_writers")
    accepted(await api.append(run["id"], LOG, writer="w0", writer_seq=2))
    accepted(await api.append(run["id"], LOG))


async def test_a_writer_without_a_name_must_name_the_attempt_of_a_restarted_run(api: RunningGateway) -> None:
    """Else nothing tells the old one from the new: neither text nor a sign of life enters the new attempt unnoticed."""
    run = await api.create_run()
    accepted(await api.append(run["id"], note(1)))
    accepted(await act(api, run["id"], "restart"))
    before = await get_log(api, run["id"])
    assert refused(await api.append(run["id"], note(2)), 409, "fenced")["attempt"] == 2
    refused(await api.append(run["id"], ("run.completed", {"output": 1})), 409, "fenced")
    refused(await api.append(run["id"]), 409, "fenced")
    assert await get_log(api, run["id"]) == before
    accepted(await api.append(run["id"], note(3), attempt=2))
    refused(await api.append(run["id"], note(2)), 409, "fenced")
    accepted(await api.append(run["id"], note(4), attempt=2, writer="new", writer_seq=1))
    accepted(await api.append(run["id"], note(5), writer="new", writer_seq=2))


async def test_a_restart_fences_the_writers_of_the_old_attempt(api: RunningGateway) -> None:
    """By their attempt, or by a number that goes on from it; a writer that begins anew is the new attempt's."""
    run = await api.create_run()
    accepted(await api.append(run["id"], note(1), writer="w", writer_seq=1))
    second = accepted(await api.append(run["id"], note(2), writer="w", writer_seq=2))
    accepted(await act(api, run["id"], "restart"))
    assert refused(await api.append(run["id"], note(3), attempt=1), 409, "fenced")["attempt"] == 2
    refused(await api.append(run["id"], note(3), writer="w", writer_seq=3), 409, "fenced")
    refused(await api.append(run["id"], note(3), writer="w", writer_seq=3, attempt=1), 409, "fenced")
    again = accepted(await api.append(run["id"], note(2), writer="w", writer_seq=2))
    assert (again["first_seq"], again["duplicate"]) == (second["first_seq"], True)
    assert (await get_run(api, run["id"]))["status"] == "queued"
    fresh = accepted(await api.append(run["id"], note("new"), writer="w", writer_seq=1))
    assert (fresh["attempt"], fresh["duplicate"]) == (2, False)
    assert await messages(api, run["id"]) == ["1", "2", "new"]


async def test_an_attempt_to_come_is_refused(api: RunningGateway) -> None:
    """Only the present attempt is written to."""
    run = await api.run_in("running")
    refused(await api.append(run["id"], LOG, attempt=2), 409, "fenced")
    accepted(await api.append(run["id"], LOG, attempt=1))


async def test_an_expected_seq_is_the_head_or_a_conflict(api: RunningGateway) -> None:
    """Of ten that expect the same head one is stored, whether or not it changes the run's state."""
    run = await api.create_run()
    assert refused(await api.append(run["id"], LOG, expected_seq=1), 409, "seq_conflict")["head_seq"] == 2
    accepted(await api.append(run["id"], LOG, expected_seq=2))
    answers = await asyncio.gather(*(api.append(run["id"], note(n), expected_seq=4) for n in range(10)))
    assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 9}
    answers = await asyncio.gather(*(api.append(run["id"], COMPLETE, expected_seq=5) for n in range(10)))
    assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 9}
    assert (await get_run(api, run["id"]))["head_seq"] == 6


async def test_an_idempotency_key_makes_an_append_once(api: RunningGateway) -> None:
    """With or without a change of state; another body under it is refused."""
    run = await api.create_run()
    path = f"/v1/runs/{run['id']}/events"
    for key, (kind, data) in {"k1": note("a"), "k2": note("b"), "k3": COMPLETE}.items():
        body = {"events": [{"type": kind, "data": data}]}
        first = accepted(await api.client.post(path, json=body, headers={"idempotency-key": key}))
        again = accepted(await api.client.post(path, json=body, headers={"idempotency-key": key}))
        assert again == first | {"duplicate": True, "status": again["status"]}
        other = {"events": [{"type": "custom.other", "data": 1}]}
        refused(await api.client.post(path, json=other, headers={"idempotency-key": key}), 422, "idempotency_mismatch")
    assert await messages(api, run["id"]) == ["a", "b"]


async def test_equal_data_in_another_order_of_members_is_the_same_append(api: RunningGateway) -> None:
    """A client that serialises anew repeats all the same."""
    run = await api.create_run()
    accepted(await api.append(run["id"], ("custom.x", {"a": 1, "b": {"c": 2, "d": 3}}), writer="w", writer_seq=1))
    again = await api.append(run["id"], ("custom.x", {"b": {"d": 3, "c": 2}, "a": 1}), writer="w", writer_seq=1)
    assert accepted(again)["duplicate"] is True


async def test_times_in_a_log_never_go_back(api: RunningGateway) -> None:
    """One writer's events, and the gateway's between them, carry times in their order."""
    run = await api.create_run()
    for _ in range(10):
        accepted(await api.append(run["id"], LOG, LOG))
        accepted(await act(api, run["id"], "pause"))
        accepted(await act(api, run["id"], "resume"))
    times = [event["created_at"] for event in await get_log(api, run["id"])]
    assert times == sorted(times)
    record = await get_run(api, run["id"])
    assert (record["created_at"], record["updated_at"]) == (times[0], times[-1])


async def test_a_streamed_append_is_acknowledged_line_by_line(api: RunningGateway) -> None:
    """Each answer leaves as its line is stored, while the body is still being sent."""
    run = await api.create_run()
    path = f"/v1/runs/{run['id']}/events"
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def body() -> AsyncIterator[bytes]:
        for number in (1, 2, 3):
            yield line(number)
            assert json.loads(await heard.get()) == {"line": number, "seq": 3 + number}

    # One connection for both directions: httpx only reads once it has sent everything.
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {api.key}\r\ntransfer-encoding: chunked\r\n"
    writer.write(head.encode() + b"content-type: application/x-ndjson\r\n\r\n")
    try:
        async with asyncio.timeout(10):
            started = False
            async for chunk in body():
                writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                if not started:
                    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
                    started = True
                size = int(await reader.readline(), 16)
                heard.put_nowait((await reader.readexactly(size + 2)).decode())
            writer.write(b"0\r\n\r\n")
            assert await reader.readline() == b"0\r\n"
    finally:
        writer.close()
    assert await messages(api, run["id"]) == ["1", "2", "3"]


async def test_a_streamed_append_ends_at_the_first_refused_line(api: RunningGateway) -> None:
    """Lines before it stand, its own answer is the problem, and the lines after it are not stored."""
    run = await api.create_run()
    for bad, code in (
        (b"not json\n", "bad_request"),
        (b'{"type":"nonsense"}\n', "unknown_event_type"),
        (b'{"type":"run.started"}\n', "invalid_body"),
        (b'{"typ":"log"}\n', "invalid_body"),
        (b"[]\n", "invalid_body"),
        (b'{"type":"custom.x","data":"' + b"x" * 256 * 1024 + b'"}\n', "too_large"),
    ):
        head = (await get_run(api, run["id"]))["head_seq"]
        answers = await stream(api, run["id"], line(1) + line(2) + bad + line(4))
        assert [answer["line"] for answer in answers] == [1, 2, 3], code
        assert (answers[2]["error"]["code"], answers[2]["error"]["request_id"] != "-") == (code, True)
        assert (await get_run(api, run["id"]))["head_seq"] == answers[1]["seq"] > head


async def test_a_streamed_append_that_cannot_begin_is_an_ordinary_problem(api: RunningGateway) -> None:
    """A gap, a foreign run or a bad parameter has a status of its own."""
    run = await api.create_run()
    path = f"/v1/runs/{run['id']}/events"

    async def post(path: str, **params: Any) -> httpx.Response:
        return await api.client.post(path, content=line(1), headers=NDJSON, params=params)

    assert refused(await post(path, writer="w", writer_seq=3), 409, "writer_gap")["expected"] == 1
    refused(await post(path, writer="w"), 422, "invalid_body")
    refused(await post(path, writer="w", writer_seq="x"), 400, "bad_request")
    refused(await post(path, expected_seq=1), 400, "bad_request")
    refused(await post("/v1/runs/01J00000000000000000000000/events"), 404, "not_found")


async def test_a_streamed_append_that_comes_again_stores_only_what_is_new(api: RunningGateway) -> None:
    """Under its writer's numbers, one a line: known lines are acknowledged, the rest is stored."""
    run = await api.create_run()
    first = await stream(api, run["id"], line(1) + line(2), writer="w", writer_seq=1)
    assert [answer["seq"] for answer in first] == [4, 5]
    again = await stream(api, run["id"], b"".join(map(line, range(1, 5))), writer="w", writer_seq=1)
    assert again == [
        {"line": 1, "duplicate": True},
        {"line": 2, "duplicate": True},
        {"line": 3, "seq": 6},
        {"line": 4, "seq": 7},
    ]
    assert await messages(api, run["id"]) == ["1", "2", "3", "4"]


async def test_a_streamed_append_of_a_new_attempt_begins_anew(api: RunningGateway) -> None:
    """The numbers of the attempt before count for nothing in the next one: its lines are stored."""
    run = await api.create_run()
    await stream(api, run["id"], line("a") + line("b"), writer="w", writer_seq=1)
    accepted(await act(api, run["id"], "restart"))
    answers = await stream(api, run["id"], line("c") + line("d"), writer="w", writer_seq=1)
    assert [answer.keys() for answer in answers] == [{"line", "seq"}] * 2
    assert await messages(api, run["id"]) == ["a", "b", "c", "d"]


async def test_a_streamed_append_under_an_idempotency_key_is_stored_once(api: RunningGateway) -> None:
    """However its lines fall into network reads, the first time and the second."""
    run = await api.create_run()
    path = f"/v1/runs/{run['id']}/events"

    async def dribble() -> AsyncIterator[bytes]:
        for number in (1, 2, 3):
            yield line(number)
            await asyncio.sleep(0.02)

    headers = NDJSON | {"idempotency-key": "k"}
    for body in (dribble(), line(1) + line(2) + line(3), dribble()):
        answer = await api.client.post(path, content=body, headers=headers)
        assert [json.loads(text)["line"] for text in answer.text.splitlines()] == [1, 2, 3]
        assert '"error"' not in answer.text
    assert await messages(api, run["id"]) == ["1", "2", "3"]


async def test_a_streamed_end_is_told_its_own_seq(api: RunningGateway) -> None:
    """Also where the gateway closes questions between it and the line before."""
    run = await api.run_in("waiting_for_input")
    end = json.dumps({"type": "run.completed", "data": {"output": 1}}).encode()
    answers = await stream(api, run["id"], line(1) + end)
    log = await get_log(api, run["id"])
    assert [log[answer["seq"] - 1]["type"] for answer in answers] == ["log", "run.completed"]
    assert [event["type"] for event in log[-3:]] == ["log", "run.input_closed", "run.completed"]


async def test_blank_lines_and_a_missing_last_newline_are_fine(api: RunningGateway) -> None:
    """They are how programs end their output."""
    run = await api.create_run()
    answers = await stream(api, run["id"], b"\n" + line(1) + b"\r\n\n" + line(2).rstrip())
    assert [answer["seq"] for answer in answers] == [4, 5]
    assert await stream(api, run["id"], b"") == []


async def test_an_append_needs_the_scope_to_write(api: RunningGateway) -> None:
    """A key that only reads changes nothing."""
    run = await api.run_in("running")
    async with open_client(api, scopes=["runs:read", "runs:input"]) as client:
        answer = await client.post(f"/v1/runs/{run['id']}/events", json={"events": []})
        assert refused(answer, 403, "forbidden")["required"] == "runs:write"
