"""Appends that are sent without waiting for answers: stored together, told as if one by one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.dialects.native.grouped import read_group
from tests.support.native import get_log, get_run
from tests.support.running import RunningGateway, run_gateway, wait_until
from tests.support.running import RunningStore as Store
from tests.support.sockets import Frame, SocketClient, open_socket

pytestmark = pytest.mark.anyio


@pytest.fixture
async def socket(api: RunningGateway) -> AsyncIterator[SocketClient]:
    """A socket with every scope."""
    async with open_socket(api) as opened:
        yield opened


def say(message: object) -> dict[str, Any]:
    """Return an event that says `message`."""
    return {"type": "log", "data": {"level": "info", "message": str(message)}}


async def send_all(socket: SocketClient, commands: list[dict[str, Any]]) -> list[Frame]:
    """Send commands at once and return their answers in the order in which they came."""
    for number, command in enumerate(commands):
        await socket.send("append", id=f"n{number}", **command)
    answers = [await socket.next() for _ in commands]
    assert [answer["id"] for answer in answers] == [f"n{number}" for number in range(len(commands))]
    return answers


async def messages(api: RunningGateway, run: dict[str, Any]) -> list[str]:
    """Return what the run's new events say, in order."""
    return [event["data"]["message"] for event in await get_log(api, run["id"], after_seq=run["head_seq"])]


async def test_each_is_told_its_own_seqs(api: RunningGateway, socket: SocketClient) -> None:
    """Dense, in the order of sending, whatever the number of events of each, and stored in that order."""
    run = await api.run_in("running")
    commands = [{"run_id": run["id"], "events": [say(f"{n}.{i}") for i in range(1 + n % 3)]} for n in range(200)]
    answers = await send_all(socket, commands)
    seq = run["head_seq"]
    for command, answer in zip(commands, answers, strict=True):
        result = answer["result"]
        assert (result["first_seq"], result["last_seq"]) == (seq + 1, seq + len(command["events"]))
        assert (result["status"], result["attempt"], result["duplicate"]) == ("running", 1, False)
        seq = result["last_seq"]
    assert await messages(api, run) == [event["data"]["message"] for c in commands for event in c["events"]]


async def test_the_first_ones_may_start_the_run(api: RunningGateway, socket: SocketClient) -> None:
    """What the gateway writes before the first event belongs to none of them."""
    run = await api.create_run()
    answers = await send_all(socket, [{"run_id": run["id"], "events": [say(n)]} for n in range(20)])
    first = run["head_seq"] + 2
    assert [answer["result"]["first_seq"] for answer in answers] == list(range(first, first + 20))
    log = await get_log(api, run["id"], after_seq=run["head_seq"])
    assert [event["type"] for event in log] == ["run.started"] + ["log"] * 20


async def test_a_bad_one_spoils_no_other(api: RunningGateway, socket: SocketClient) -> None:
    """It is refused for itself; those before and after it are stored, in order."""
    run = await api.run_in("running")
    commands = [{"run_id": run["id"], "events": [say(n)]} for n in range(30)]
    commands[7]["events"] = [say("7a"), {"type": "lag", "data": {}}]
    commands[20]["events"] = [{"type": "log", "data": {}}]
    answers = await send_all(socket, commands)
    told = {number: answer["problem"]["code"] for number, answer in enumerate(answers) if answer["type"] == "error"}
    assert told == {7: "unknown_event_type", 20: "invalid_body"}
    assert answers[7]["problem"]["index"] == 1
    assert await messages(api, run) == [str(n) for n in range(30) if n not in (7, 20)]


async def test_what_comes_between_keeps_its_place(api: RunningGateway, socket: SocketClient) -> None:
    """Other runs, numbered appends, guarded ones, and one that ends the run, after which nothing is stored."""
    run, other = await api.run_in("running"), await api.run_in("running")
    here = {"run_id": run["id"]}
    commands: list[dict[str, Any]] = [
        {**here, "events": [say(0)]},
        {**here, "events": [say(1)]},
        {"run_id": other["id"], "events": [say("elsewhere")]},
        {**here, "events": [say(2)], "writer": "w", "writer_seq": 1},
        {**here, "events": [say(2)], "writer": "w", "writer_seq": 1},
        {**here, "events": [say(3)]},
        {**here, "events": [say("never")], "expected_seq": 1},
        {**here, "events": [say(4)]},
        {**here, "events": [{"type": "run.completed", "data": {"output": 1}}]},
        {**here, "events": [say("late")]},
        {**here, "events": [say("later")]},
    ]
    answers = await send_all(socket, commands)
    told = [answer["problem"]["code"] if answer["type"] == "error" else "ok" for answer in answers]
    assert told == ["ok"] * 6 + ["seq_conflict", "ok", "ok", "invalid_state", "invalid_state"]
    assert answers[4]["result"] == answers[3]["result"] | {"duplicate": True}
    log = await get_log(api, run["id"], after_seq=run["head_seq"])
    assert [event["data"].get("message") for event in log] == ["0", "1", "2", "3", "4", None]
    assert (await get_run(api, run["id"]))["status"] == "completed"


async def test_many_in_one_piece_are_one_append(store: Store, anyio_backend: object) -> None:
    """What came together is stored with few scripts: counted by the gateway's own measure of its appends."""
    async with run_gateway(store.url) as api, open_socket(api) as socket:
        run = await api.run_in("running")
        before = await count_appends(api)
        protocol, transport = socket.connection.protocol, socket.connection.transport
        for _ in range(300):
            protocol.send_text(frame(run_id=run["id"]))
        transport.write(b"".join(protocol.data_to_send()))
        for _ in range(300):
            assert (await socket.next())["type"] == "ack"
        assert await count_appends(api) - before < 30


async def count_appends(api: RunningGateway) -> float:
    """Return how many appends the gateway has had stored."""
    lines = (await api.client.get("/metrics")).text.splitlines()
    name = 'gateway_appends_total{outcome="ok"'
    return float(next(line.split()[-1] for line in lines if line.startswith(name)))


def frame(**members: Any) -> bytes:
    """Return an append as it comes over the wire."""
    return json.dumps({"type": "append", "id": "1", "run_id": "r", "events": [say(1)]} | members).encode()


@pytest.mark.parametrize(
    "odd",
    [
        frame(run_id="s"),
        frame(lease="l"),
        frame(attempt=2),
        frame(writer="w", writer_seq=1),
        frame(idempotency_key="k"),
        frame(expected_seq=0),
        frame(events=[]),
        frame(events=[{"type": "run.failed", "data": {}}]),
        frame(surplus=1),
        b'{"type":"ping"}',
        b"{",
    ],
)
def test_a_group_ends_before_what_is_not_like_it(odd: bytes) -> None:
    """Another run, lease or attempt, what is recognised again, what changes the state, and what is no append."""
    group = read_group([frame(), frame(), odd, frame()], most_events=10, most_bytes=10_000)
    assert [command.run_id for command in group] == ["r", "r"]


def test_a_group_is_no_larger_than_a_batch() -> None:
    """Neither in events nor in bytes."""
    frames = [frame(events=[say(1), say(2)])] * 10
    assert len(read_group(frames, most_events=7, most_bytes=10_000)) == 3
    assert len(read_group(frames, most_events=100, most_bytes=4 * len(frames[0]))) == 4


async def test_a_socket_that_is_closed_meanwhile_ends(api: RunningGateway, socket: SocketClient) -> None:
    """A client that sends many appends and leaves costs nothing more, and what was stored is whole."""
    run = await api.run_in("running")
    for number in range(100):
        await socket.send("append", run_id=run["id"], events=[say(number)])
    await socket.connection.close()
    await wait_until(lambda: not api.gateway.hub.outlets, timeout_s=30)
    stored = await messages(api, run)
    assert stored == [str(number) for number in range(len(stored))]
