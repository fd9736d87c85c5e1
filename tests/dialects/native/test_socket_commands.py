"""Commands over a WebSocket: each answered once, in order, as HTTP answers the same; a bad one closes nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.domain.access import SCOPES
from tests.support.native import PROBLEM, ask, get_log, get_run, get_types
from tests.support.running import LOG, RunningGateway
from tests.support.sockets import Frame, SocketClient, make_ticket, open_socket

pytestmark = pytest.mark.anyio

NOWHERE = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
EVENT = {"type": "log", "data": {"level": "info", "message": "over a socket"}}


@pytest.fixture
async def socket(api: RunningGateway) -> AsyncIterator[SocketClient]:
    """A socket with every scope."""
    async with open_socket(api) as opened:
        yield opened


async def test_append_is_answered_as_over_http(api: RunningGateway, socket: SocketClient) -> None:
    """An appended batch is in the log once its ack came, and the ack has what HTTP answers."""
    run = await api.create_run()
    result = await socket.do("append", run_id=run["id"], events=[EVENT, EVENT], writer="w", writer_seq=1)
    over_http = (await api.append(run["id"], LOG)).json()
    assert result.keys() == over_http.keys()
    assert (result["last_seq"], over_http["last_seq"]) == (result["first_seq"] + 1, result["first_seq"] + 2)
    assert (await get_types(api, run["id"]))[-3:] == ["log", "log", "log"]


async def test_an_append_is_safe_to_repeat(api: RunningGateway, socket: SocketClient) -> None:
    """The same writer_seq, or the same idempotency key, is stored once and answered twice."""
    run = await api.run_in("running")
    for how in ({"writer": "w", "writer_seq": 1}, {"idempotency_key": "k"}):
        first = await socket.do("append", run_id=run["id"], events=[EVENT], **how)
        again = await socket.do("append", run_id=run["id"], events=[EVENT], **how)
        assert again == first | {"duplicate": True}
    assert len(await get_log(api, run["id"], after_seq=run["head_seq"])) == 2


async def test_an_append_that_the_log_refuses_is_an_error(api: RunningGateway, socket: SocketClient) -> None:
    """Conflicts come as problems with their facts, and nothing is stored."""
    run = await api.run_in("running")
    told = await socket.refused("writer_gap", "append", run_id=run["id"], events=[EVENT], writer="w", writer_seq=3)
    assert told["expected"] == 1
    await socket.refused("seq_conflict", "append", run_id=run["id"], events=[EVENT], expected_seq=99)
    await socket.refused("fenced", "append", run_id=run["id"], events=[EVENT], attempt=7)
    wrong = {"type": "tool.cal", "data": {}}
    assert (await socket.refused("unknown_event_type", "append", run_id=run["id"], events=[EVENT, wrong]))["index"] == 1
    assert (await get_run(api, run["id"]))["head_seq"] == run["head_seq"]


async def test_an_append_over_the_limit_is_an_error(api: RunningGateway, socket: SocketClient) -> None:
    """A batch larger than HTTP takes is refused by name, and the socket goes on."""
    run = await api.run_in("running")
    large = {"type": "log", "data": {"level": "info", "message": "x" * (1 << 18)}}
    assert (await socket.refused("too_large", "append", run_id=run["id"], events=[large]))["index"] == 0
    told = await socket.refused("too_large", "append", run_id=run["id"], events=[large] * 5)
    assert told["limit_bytes"] == 1 << 20
    assert (await socket.ask("ping"))["type"] == "pong"


async def test_input_answers_a_question_once(api: RunningGateway, socket: SocketClient) -> None:
    """The first answer wins; its repetition under the same key is told the same, any other that it was late."""
    run = await api.run_in("running")
    request_id = await ask(api, run["id"])
    answer = {"run_id": run["id"], "request_id": request_id, "content": "yes", "idempotency_key": "first"}
    result = await socket.do("input", **answer)
    assert result == {"ok": True, "request_id": request_id, "seq": result["seq"]}
    assert await socket.do("input", **answer) == result
    late = await socket.refused("already_answered", "input", run_id=run["id"], request_id=request_id, content="no")
    assert late["seq"] == result["seq"]
    assert (await get_run(api, run["id"]))["status"] == "running"


async def test_a_run_is_steered(api: RunningGateway, socket: SocketClient) -> None:
    """Pause, resume and cancel answer with the run as HTTP shows it, and the log names who asked."""
    run = await api.run_in("running")
    paused = await socket.do("pause", run_id=run["id"], reason="lunch", triggered_by="cook")
    assert paused == await get_run(api, run["id"])
    assert paused["status"] == "paused"
    assert (await socket.do("resume", run_id=run["id"]))["status"] == "running"
    assert (await socket.do("cancel", run_id=run["id"]))["status"] == "cancelling"
    assert (await socket.do("cancel", run_id=run["id"], force=True))["status"] == "cancelled"
    events = {event["type"]: event["data"] for event in await get_log(api, run["id"])}
    assert events["run.paused"]["reason"] == "lunch"
    assert events["run.paused"]["actor"]["triggered_by"] == "cook"
    assert (await socket.refused("invalid_state", "pause", run_id=run["id"]))["status"] == 409


async def test_a_command_without_an_id_is_not_acknowledged(api: RunningGateway, socket: SocketClient) -> None:
    """Who gives no id wants no ack; what goes wrong is told all the same."""
    run = await api.run_in("running")
    for run_id in (run["id"], NOWHERE):
        await socket.connection.send(json.dumps({"type": "append", "run_id": run_id, "events": [EVENT]}))
    await socket.connection.send('{"type":"ping"}')
    error, pong = await socket.next(), await socket.next()
    assert (error["type"], error["id"], error["problem"]["code"]) == ("error", None, "not_found")
    assert pong == {"type": "pong", "id": None}
    assert (await get_run(api, run["id"]))["head_seq"] == run["head_seq"] + 1


async def test_commands_are_answered_in_order(api: RunningGateway, socket: SocketClient) -> None:
    """Commands sent together are done one after the other."""
    run = await api.run_in("running")
    sent = [await socket.send("append", run_id=run["id"], events=[EVENT]) for _ in range(50)]
    sent.append(await socket.send("ping"))
    frames = [await socket.next() for _ in sent]
    assert [frame["id"] for frame in frames] == sent
    seqs = [frame["result"]["first_seq"] for frame in frames[:-1]]
    assert seqs == list(range(seqs[0], seqs[0] + 50))


@pytest.mark.parametrize(
    ("frame", "path"),
    [
        ({}, "$.type"),
        ({"type": "nonsense"}, "$.type"),
        ({"type": 7}, "$.type"),
        ({"type": "ping", "id": 7}, "$.id"),
        ({"type": "ping", "id": ""}, "$.id"),
        ({"type": "ping", "id": "x" * 129}, "$.id"),
        ({"type": "ping", "extra": 1}, "$"),
        ({"type": "subscribe"}, "$"),
        ({"type": "subscribe", "run_id": 1}, "$.run_id"),
        ({"type": "subscribe", "run_id": NOWHERE, "after_seq": -1}, "$.after_seq"),
        ({"type": "subscribe", "run_id": NOWHERE, "types": []}, "$.types"),
        ({"type": "append", "run_id": NOWHERE}, "$"),
        ({"type": "append", "run_id": NOWHERE, "events": [{"data": {}}]}, "$.events[0]"),
        ({"type": "input", "run_id": NOWHERE}, "$"),
        ({"type": "cancel", "run_id": NOWHERE, "force": "yes"}, "$.force"),
        ({"type": "auth"}, "$.ticket"),
        ({"type": "auth", "key": "a", "ticket": "b"}, "$.ticket"),
    ],
)
async def test_a_command_of_the_wrong_shape_is_told_where(socket: SocketClient, frame: Frame, path: str) -> None:
    """What a command does not take is refused with the place that is wrong."""
    await socket.connection.send(json.dumps(frame))
    told = await socket.next()
    assert told["type"] == "error"
    assert (told["problem"]["code"], told["problem"]["path"]) == ("invalid_body", path)


@pytest.mark.parametrize(
    ("kind", "members", "code"),
    [
        ("subscribe", {"run_id": NOWHERE}, "not_found"),
        ("subscribe", {"run_id": "no id"}, "not_found"),
        ("append", {"run_id": NOWHERE, "events": [EVENT]}, "not_found"),
        ("input", {"run_id": NOWHERE, "content": 1}, "not_found"),
        ("cancel", {"run_id": NOWHERE}, "not_found"),
        ("pause", {"run_id": NOWHERE}, "not_found"),
        ("resume", {"run_id": NOWHERE}, "not_found"),
        ("cancel", {"run_id": NOWHERE, "idempotency_key": "\n"}, "bad_request"),
        ("subscribe", {"run_id": NOWHERE, "after": "x"}, "bad_request"),
        ("subscribe", {"run_id": NOWHERE, "types": "a..b"}, "bad_request"),
        ("auth", {"key": "gwk_unknown"}, "unauthenticated"),
        ("auth", {"ticket": "forged"}, "unauthenticated"),
    ],
)
async def test_a_command_that_cannot_be_done_is_an_error(
    socket: SocketClient, kind: str, members: Frame, code: str
) -> None:
    """Every refusal is a whole problem under the command's id, and the socket goes on."""
    assert (await socket.refused(code, kind, **members)).keys() >= PROBLEM
    assert (await socket.ask("ping"))["type"] == "pong"


async def test_what_is_nested_too_deeply_is_an_error(socket: SocketClient) -> None:
    """A frame that nobody could read is refused; it is not a close."""
    await socket.connection.send('{"type":"ping","id":"deep","x":' + "[" * 1000 + "]" * 1000 + "}")
    told = await socket.next()
    assert (told["type"], told["problem"]["code"], told["problem"]["limit_levels"]) == ("error", "bad_request", 128)


@pytest.mark.parametrize(("given", "answered"), [('"half"', "half"), (r'"\ud800"', None)])
async def test_half_of_a_character_is_an_error(socket: SocketClient, given: str, answered: str | None) -> None:
    """A string that was cut within an emoji spoils its command, under its id; it does not end the other runs."""
    append = '{"type":"append","id":%s,"run_id":"%s","events":[{"type":"custom.x","data":"%s"}]}'
    await socket.connection.send(append % (given, NOWHERE, r"\ud83d"))
    told = await socket.next()
    assert (told["type"], told["id"], told["problem"]["code"]) == ("error", answered, "bad_request")
    assert "half of a character" in told["problem"]["detail"]
    assert (await socket.ask("ping"))["type"] == "pong"


COMMANDS: dict[str, tuple[str, Frame]] = {
    "subscribe": ("runs:read", {}),
    "append": ("runs:write", {"events": [EVENT]}),
    "cancel": ("runs:write", {}),
    "pause": ("runs:write", {}),
    "resume": ("runs:write", {}),
    "input": ("runs:input", {"content": "yes"}),
}


@pytest.mark.parametrize("scope", ["runs:read", "runs:write", "runs:input"])
async def test_each_command_needs_its_scope(api: RunningGateway, scope: str) -> None:
    """A ticket does what its scopes say, and is told which scope the rest needs."""
    run = await api.run_in("running")
    async with open_socket(api, ticket=await make_ticket(api, scopes=[scope])) as socket:
        for kind, (needed, members) in COMMANDS.items():
            frame = await socket.ask(kind, run_id=run["id"], **members)
            refused = frame["type"] == "error" and frame["problem"]["code"] == "forbidden"
            assert refused == (needed != scope), frame
            if refused:
                assert frame["problem"]["required"] == needed


async def test_a_run_out_of_reach_is_not_there(api: RunningGateway) -> None:
    """A ticket of one run is told of any other what is told of no run at all; so is another tenant."""
    mine, other = await api.run_in("running"), await api.run_in("running")
    ticket = await make_ticket(api, runs=[mine["id"]], scopes=["runs:read", "runs:write", "runs:input"])
    stranger, _ = await api.gateway.access.create_key(
        tenant="stranger", name=None, principal=None, scopes=SCOPES, agents=None, now_ms=0
    )
    for credential in ({"ticket": ticket}, {"key": stranger}):
        async with open_socket(api, **credential) as socket:  # type: ignore[arg-type]
            for kind, (_, members) in COMMANDS.items():
                await socket.refused("not_found", kind, run_id=other["id"], **members)
    assert (await get_run(api, other["id"]))["head_seq"] == other["head_seq"]


async def test_a_revoked_key_commands_nothing(api: RunningGateway) -> None:
    """A command under a key that was revoked is refused even before the socket ends."""
    made = (await api.client.post("/v1/keys", json={"scopes": ["runs:write"]})).json()
    run = await api.run_in("running")
    async with open_socket(api, key=made["key"]) as socket:
        await api.client.delete(f"/v1/keys/{made['id']}")
        told = await socket.refused("unauthenticated", "cancel", run_id=run["id"])
        assert told["reason"] == "key_revoked"


names = st.sampled_from(["subscribe", "unsubscribe", "append", "input", "cancel", "pause", "resume", "auth", "ping"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
members = st.sampled_from(
    [
        "run_id",
        "events",
        "after",
        "after_seq",
        "types",
        "snapshot",
        "content",
        "request_id",
        "force",
        "ticket",
        "key",
        "writer",
        "writer_seq",
        "expected_seq",
        "attempt",
        "lease",
        "reason",
        "triggered_by",
        "idempotency_key",
    ]
)


@given(
    kind=names | values, extra=st.dictionaries(members | st.text(max_size=8), values, max_size=4), reach=st.booleans()
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_object_closes_the_socket(socket: SocketClient, kind: Any, extra: Frame, reach: bool) -> None:
    """Whatever object is sent gets one answer that is no fault of the gateway's, and the socket goes on."""
    frame = {"run_id": NOWHERE} | extra if reach else extra
    await socket.connection.send(json.dumps({**frame, "type": kind, "id": "fuzz"}))
    told = await socket.answer("fuzz")
    if told["type"] == "error":
        assert 400 <= told["problem"]["status"] < 500, told
    assert (await socket.ask("ping"))["type"] == "pong"
