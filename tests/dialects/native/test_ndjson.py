"""Streamed appends: a line in, its answer out, while the body goes on; and on again after any break."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from ulid import ULID

from tests.dialects.native.streaming import Stream, new_key
from tests.support.native import accepted, get_log
from tests.support.running import LOG, RunningGateway, RunningStore, run_gateway

pytestmark = pytest.mark.anyio


def line(text: str, kind: str = "log") -> bytes:
    """Return a line of a log event."""
    return json.dumps({"type": kind, "data": {"level": "info", "message": text}}).encode() + b"\n"


class Duplex:
    """A streamed append by hand: what is sent and what is answered do not wait for each other."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.answers: list[dict[str, Any]] = []

    def send(self, data: bytes) -> None:
        """Send a chunk of the body."""
        self.stream.writer.write(b"%x\r\n%b\r\n" % (len(data), data))

    def finish(self) -> None:
        """End the body."""
        self.stream.writer.write(b"0\r\n\r\n")

    async def begin(self) -> None:
        """Read the head of the answer."""
        await self.stream.read_head()
        assert self.stream.status == 200
        assert self.stream.headers["content-type"] == "application/x-ndjson"

    async def next(self) -> dict[str, Any]:
        """Return the next line of the answer."""
        while self.stream.body.count(b"\n") <= len(self.answers):
            assert self.stream.ended is None, f"{self.stream.ended}: {self.stream.body!r}"
            await self.stream.read_more()
        found: dict[str, Any] = json.loads(self.stream.body.split(b"\n")[len(self.answers)])
        self.answers.append(found)
        return found

    async def take(self, count: int) -> list[dict[str, Any]]:
        """Return the next lines of the answer."""
        return [await self.next() for _ in range(count)]

    async def rest(self) -> list[dict[str, Any]]:
        """Return all lines up to the end of the answer."""
        while self.stream.ended is None:
            await self.stream.read_more()
        found = [json.loads(text) for text in self.stream.body.splitlines()[len(self.answers) :]]
        self.answers += found
        return found


@asynccontextmanager
async def open_append(
    api: RunningGateway, run_id: str, query: str = "", *, key: str = "", headers: str = ""
) -> AsyncIterator[Duplex]:
    """Begin a streamed append, leaving its body open."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port, limit=1 << 22)
    head = (
        f"POST /v1/runs/{run_id}/events{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key or api.key}\r\n"
        f"Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n{headers}\r\n"
    )
    writer.write(head.encode())
    try:
        yield Duplex(Stream(reader, writer))
    finally:
        writer.transport.abort()


async def messages(api: RunningGateway, run_id: str) -> list[str]:
    """Return the texts of a run's log events."""
    return [event["data"]["message"] for event in await get_log(api, run_id) if event["type"] == "log"]


async def test_each_line_is_answered_before_the_next_is_sent(api: RunningGateway) -> None:
    """The writer knows of each event that it is stored while its body is still open."""
    run = await api.create_run()
    async with open_append(api, run["id"]) as duplex:
        for number in range(1, 11):
            duplex.send(line(str(number)))
            if number == 1:
                await duplex.begin()
            assert await duplex.next() == {"line": number, "seq": number + 3}
            assert (await messages(api, run["id"]))[-1] == str(number)
        duplex.finish()
        assert await duplex.rest() == []
        assert duplex.stream.ended == "clean"


async def test_lines_and_chunks_need_not_agree(api: RunningGateway) -> None:
    """A line may come in pieces, several in one, with blank lines between, the last without a line feed."""
    run = await api.run_in("running")
    async with open_append(api, run["id"]) as duplex:
        whole = line("a") + b"\n  \n" + line("b") + line("é") + line("d")[:-1]
        for start in range(0, len(whole), 7):
            duplex.send(whole[start : start + 7])
            await asyncio.sleep(0)
        duplex.finish()
        await duplex.begin()
        assert [answer["seq"] for answer in await duplex.rest()] == [5, 6, 7, 8]
    assert await messages(api, run["id"]) == ["working", "a", "b", "é", "d"]


async def test_a_thousand_lines_at_once_are_stored_in_order(api: RunningGateway) -> None:
    """Together where they came together; each has its answer."""
    run = await api.run_in("running")
    async with open_append(api, run["id"]) as duplex:
        duplex.send(b"".join(line(str(number)) for number in range(3000)))
        duplex.finish()
        await duplex.begin()
        answers = await duplex.rest()
    assert answers == [{"line": number + 1, "seq": number + 5} for number in range(3000)]
    assert (await messages(api, run["id"]))[1:] == [str(number) for number in range(3000)]


async def test_a_body_of_known_length_is_a_stream_as_well(api: RunningGateway) -> None:
    """As a client sends it that has all lines."""
    run = await api.run_in("running")
    headers = {"Content-Type": "application/x-ndjson; charset=utf-8"}
    answer = await api.client.post(f"/v1/runs/{run['id']}/events", content=line("a") + line("b"), headers=headers)
    assert [json.loads(text) for text in answer.text.splitlines()] == [{"line": 1, "seq": 5}, {"line": 2, "seq": 6}]
    empty = await api.client.post(f"/v1/runs/{run['id']}/events", content=b"", headers=headers)
    assert (empty.status_code, empty.text) == (200, "")


@pytest.mark.parametrize(
    ("bad", "status", "code"),
    [
        (b"not json\n", 400, "bad_request"),
        (b'{"type":"log"}\n', 422, "invalid_body"),
        (b'{"type":"lgo","data":{}}\n', 422, "unknown_event_type"),
        (b'{"type":"run.started","data":{}}\n', 422, "invalid_body"),
        (b'{"type":"custom.x","data":{},"extra":1}\n', 422, "invalid_body"),
        (b"[1]\n", 422, "invalid_body"),
        (b'{"type":"custom.x","data":"' + b"x" * 262_143 + b'"}\n', 413, "too_large"),
        (b'{"type":"custom.x","data":"' + b"x" * 300_000 + b'"}\n', 413, "too_large"),
    ],
)
async def test_a_refused_line_ends_the_answer(api: RunningGateway, bad: bytes, status: int, code: str) -> None:
    """Lines before it are stored, it and what follows are not; the problem names the line by its number."""
    run = await api.run_in("running")
    for before in (0, 1, 5):
        async with open_append(api, run["id"]) as duplex:
            duplex.send(b"".join(line(str(number)) for number in range(before)) + bad + line("after"))
            await duplex.begin()
            answers = await duplex.rest()
            assert duplex.stream.ended == "clean"
        assert [answer["line"] for answer in answers] == list(range(1, before + 2))
        assert all("seq" in answer for answer in answers[:-1])
        problem = answers[-1]["error"]
        assert (problem["status"], problem["code"]) == (status, code)
        assert problem.keys() >= {"type", "title", "detail", "request_id"}
        assert "index" not in problem
        assert not problem["detail"].startswith("events[")
    assert await messages(api, run["id"]) == ["working", "0", *"01234"]


async def test_a_line_of_the_largest_event_is_stored(api: RunningGateway) -> None:
    """The bound is that of an event, however it is sent."""
    run = await api.run_in("running")
    data = "x" * (262_144 - 2)
    text = b'{"type":"custom.x","data":"' + data.encode() + b'"}\n'
    async with open_append(api, run["id"]) as duplex:
        duplex.send(text)
        duplex.finish()
        await duplex.begin()
        assert await duplex.rest() == [{"line": 1, "seq": 5}]


async def test_a_stream_may_end_its_run(api: RunningGateway) -> None:
    """Lines after the end are refused by what the run is then."""
    run = await api.create_run()
    end = b'{"type":"run.completed","data":{"output":{"n":1}}}\n'
    async with open_append(api, run["id"]) as duplex:
        duplex.send(line("a") + line("b") + end + line("late"))
        await duplex.begin()
        answers = await duplex.rest()
    assert answers[:3] == [{"line": 1, "seq": 4}, {"line": 2, "seq": 5}, {"line": 3, "seq": 6}]
    assert answers[3]["error"]["code"] == "invalid_state"
    assert answers[3]["error"]["current_status"] == "completed"
    assert len(answers) == 4


async def test_what_can_be_refused_before_is_refused_with_a_status(api: RunningGateway) -> None:
    """An unknown run, a wrong parameter, no right to write: none of them is hidden in a line."""
    run = await api.run_in("running")
    reader, _ = await new_key(api, scopes=["runs:read"])
    base = f"/v1/runs/{run['id']}/events"
    headers = {"Content-Type": "application/x-ndjson"}
    for path, status in (
        (f"/v1/runs/{ULID()}/events", 404),
        (f"{base}?writer=w", 422),
        (f"{base}?writer_seq=1", 422),
        (f"{base}?writer=w&writer_seq=0", 400),
        (f"{base}?writer=w&writer_seq=x", 400),
        (f"{base}?x=1", 400),
        (f"{base}?writer=w&writer_seq=2", 409),
    ):
        answer = await api.client.post(path, content=line("a"), headers=headers)
        assert answer.status_code == status, path
    refused = await api.client.post(base, content=line("a"), headers={**headers, "Authorization": f"Bearer {reader}"})
    assert refused.status_code == 403
    assert await messages(api, run["id"]) == ["working"]


async def test_a_writer_goes_on_after_a_break(api: RunningGateway) -> None:
    """From the first line that was not answered: what was stored is said to be there, the rest is stored."""
    run = await api.run_in("running")
    async with open_append(api, run["id"], "?writer=w&writer_seq=1") as duplex:
        duplex.send(b"".join(line(str(number)) for number in range(1, 6)))
        await duplex.begin()
        await duplex.take(5)
    async with open_append(api, run["id"], "?writer=w&writer_seq=3") as duplex:
        duplex.send(b"".join(line(str(number)) for number in range(3, 9)))
        duplex.finish()
        await duplex.begin()
        assert await duplex.rest() == [
            {"line": 1, "duplicate": True},
            {"line": 2, "duplicate": True},
            {"line": 3, "duplicate": True},
            {"line": 4, "seq": 10},
            {"line": 5, "seq": 11},
            {"line": 6, "seq": 12},
        ]
    assert (await messages(api, run["id"]))[1:] == [str(number) for number in range(1, 9)]


async def test_no_break_loses_or_repeats_a_line(api: RunningGateway) -> None:
    """Cut after any number of answers, with any number of lines under way, again and again."""
    run = await api.run_in("running")
    total, answered, cuts = 600, 0, 0
    while answered < total:
        async with open_append(api, run["id"], f"?writer=w&writer_seq={answered + 1}") as duplex:
            ahead = [5, 1, 40, 17, 90][cuts % 5]
            lines = [line(str(number)) for number in range(answered + 1, min(answered + ahead, total) + 1)]
            # The last piece may end within a line.
            sent = b"".join(lines)[: -10 * (cuts % 3) or None]
            duplex.send(sent)
            await duplex.begin()
            for _ in range(sent.count(b"\n") - cuts % 4):
                answer = await duplex.next()
                assert "error" not in answer, answer
                assert answer["line"] == len(duplex.answers)
                answered += 1
            cuts += 1
    assert cuts > 10
    assert (await messages(api, run["id"]))[1:] == [str(number) for number in range(1, total + 1)]


async def test_two_connections_of_one_writer_do_not_disturb_each_other(api: RunningGateway) -> None:
    """The one that broke may still store what it had brought, while the next one sends it again."""
    run = await api.run_in("running")
    lines = [line(str(number)) for number in range(1, 301)]

    async def send(pieces: int) -> list[dict[str, Any]]:
        async with open_append(api, run["id"], "?writer=w&writer_seq=1") as duplex:
            for start in range(0, len(lines), pieces):
                duplex.send(b"".join(lines[start : start + pieces]))
                await asyncio.sleep(0.001)
            duplex.finish()
            await duplex.begin()
            return await duplex.rest()

    async with asyncio.TaskGroup() as tasks:
        sending = [tasks.create_task(send(pieces)) for pieces in (1, 3, 7, 50)]
    for task in sending:
        assert [answer["line"] for answer in task.result()] == list(range(1, 301))
        assert all("seq" in answer or "duplicate" in answer for answer in task.result())
    assert (await messages(api, run["id"]))[1:] == [str(number) for number in range(1, 301)]


async def test_a_new_attempt_counts_from_one(api: RunningGateway) -> None:
    """What a writer stored in an earlier attempt is nothing that it has stored in this one."""
    run = await api.run_in("running")
    for attempt in (1, 2):
        async with open_append(api, run["id"], "?writer=w&writer_seq=1") as duplex:
            duplex.send(line(f"{attempt} a") + line(f"{attempt} b"))
            duplex.finish()
            await duplex.begin()
            assert ["seq" in answer for answer in await duplex.rest()] == [True, True]
        assert (await api.client.post(f"/v1/runs/{run['id']}/restart")).status_code == 200
    assert (await messages(api, run["id"]))[1:] == ["1 a", "1 b", "2 a", "2 b"]


async def test_an_idempotency_key_makes_a_stream_repeatable(api: RunningGateway) -> None:
    """As a writer would: lines that are there are not stored again."""
    run = await api.run_in("running")
    key = f"Idempotency-Key: {ULID()}\r\n"
    for count in (2, 5, 5):
        async with open_append(api, run["id"], headers=key) as duplex:
            duplex.send(b"".join(line(str(number)) for number in range(count)))
            duplex.finish()
            await duplex.begin()
            assert all("error" not in answer for answer in await duplex.rest())
    assert (await messages(api, run["id"]))[1:] == [str(number) for number in range(5)]


async def test_a_client_that_leaves_is_nothing_special(api: RunningGateway, caplog: pytest.LogCaptureFixture) -> None:
    """Whole lines that came are stored, half a line is not; the run goes on, and nobody is alarmed."""
    run = await api.run_in("running")
    async with open_append(api, run["id"]) as duplex:
        duplex.send(line("a") + line("half")[:-5])
        await duplex.begin()
        await duplex.next()
    await api.append(run["id"], LOG)
    await asyncio.sleep(0.05)
    assert await messages(api, run["id"]) == ["working", "a", "working"]
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]


async def test_a_revoked_key_writes_no_further_line(store: RunningStore) -> None:
    """However long the request has been going on: the next line is refused, and the answer ends."""
    async with run_gateway(store.url, access_recheck_s=0.05) as api:
        run = await api.run_in("running")
        key, record = await new_key(api, scopes=["runs:write"])
        async with open_append(api, run["id"], key=key) as duplex:
            duplex.send(line("before"))
            await duplex.begin()
            assert "seq" in await duplex.next()
            accepted(await api.client.delete(f"/v1/keys/{record.id}"))
            duplex.send(line("after"))
            told = await duplex.next()
            assert (told["line"], told["error"]["status"], told["error"]["reason"]) == (2, 401, "key_revoked")
            assert await duplex.rest() == []
            assert duplex.stream.ended == "clean"
        assert await messages(api, run["id"]) == ["working", "before"]
