"""Both streams of a run, byte for byte, and what a reader that was cut off gets when it comes back."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from gateway.domain.access import SCOPES
from tests.dialects.jobs.speaking import BASE, get, refused
from tests.dialects.native.streaming import Stream, frames_of, new_key, new_ticket, open_stream, read_stream
from tests.support.native import act, get_log
from tests.support.running import COMPLETE, LOG, RunningGateway

pytestmark = pytest.mark.anyio

DELTAS: list[tuple[str, Any]] = [
    ("message.delta", {"content": "Hel", "message_id": "m1", "role": "assistant"}),
    ("message.delta", {"content": "lo", "message_id": "m1"}),
]


async def make_run(api: RunningGateway, *, done: bool = True) -> str:
    """Return a run that said something, and has completed if it is `done`."""
    run_id: str = (await api.create_run(input={"q": 1}))["id"]
    answer = await api.append(run_id, LOG, *DELTAS, ("custom.note", "plain"), *([COMPLETE] if done else []))
    assert answer.status_code == 200, answer.text
    return run_id


def path_of(run_id: str, chunks: bool = False) -> str:
    """Return the path of a run's stream."""
    return f"{BASE}/v1/runs/{run_id}/stream" + ("/chunks" if chunks else "")


def cursors_of(stream: Stream) -> list[str]:
    """Return the cursor of every frame."""
    return [frame.last_id for frame in stream.parser.frames]


async def test_the_stream_of_events_byte_for_byte(api: RunningGateway) -> None:
    """Unnamed frames under their cursors, one an event, nothing before them but the retry and nothing after."""
    run_id = await make_run(api)
    log = await get_log(api, run_id)
    stream = await read_stream(api, path_of(run_id))
    assert stream.status == 200
    assert stream.headers["content-type"] == "text/event-stream"
    created, queued, started, logged, *_ = log
    wanted: list[tuple[str, str, Any]] = [
        ("info", "Run created.", created["data"]),
        ("info", "Run queued.", queued["data"]),
        ("info", "Attempt started.", started["data"]),
        ("info", "working", logged["data"]),
        ("debug", "Hel", DELTAS[0][1]),
        ("debug", "lo", DELTAS[1][1]),
        ("info", "custom.note", {"value": "plain"}),
        ("info", "Run completed.", COMPLETE[1]),
    ]
    expected = "retry: 2000\n\n"
    for cursor, event, (level, message, data) in zip(cursors_of(stream), log, wanted, strict=True):
        assert cursor.startswith(f"{event['seq']}-")
        told = {"id": f"{run_id}-{event['seq']}", "run_id": run_id, "type": event["type"], "level": level}
        told |= {"message": message, "data": data, "created_at": event["created_at"]}
        expected += f"id: {cursor}\ndata: {msgspec.json.encode(told).decode()}\n\n"
    assert stream.body.decode() == expected
    assert stream.ended == "clean"


async def test_the_stream_of_chunks_byte_for_byte(api: RunningGateway) -> None:
    """The deltas of its messages and nothing else, at the places that they have in the log."""
    run_id = await make_run(api)
    log = await get_log(api, run_id)
    stream = await read_stream(api, path_of(run_id, chunks=True))
    expected = "retry: 2000\n\n"
    deltas = [event for event in log if event["type"] == "message.delta"]
    for cursor, event, role in zip(cursors_of(stream), deltas, ("assistant", None), strict=True):
        told = {"id": f"{run_id}-{event['seq']}", "run_id": run_id, "message_id": "m1", "role": role}
        told |= {"content": event["data"]["content"], "created_at": event["created_at"]}
        expected += f"id: {cursor}\ndata: {msgspec.json.encode(told).decode()}\n\n"
    assert stream.body.decode() == expected
    assert stream.ended == "clean"


async def test_a_frame_is_what_the_list_of_events_shows(api: RunningGateway) -> None:
    """A client has one type for both."""
    run_id = await make_run(api)
    frames = await frames_of(api, path_of(run_id))
    assert [frame.data for frame in frames] == await get(api, f"/{run_id}/events")
    assert {frame.name for frame in frames} == {"message"}


@pytest.mark.parametrize("chunks", [False, True])
async def test_a_reader_that_comes_back_goes_on_after_what_it_has(api: RunningGateway, chunks: bool) -> None:
    """From every place at which it can have been cut."""
    run_id = await make_run(api)
    whole = await frames_of(api, path_of(run_id, chunks))
    for index, frame in enumerate(whole[:-1]):
        rest = await frames_of(api, path_of(run_id, chunks), headers={"Last-Event-ID": frame.last_id})
        assert rest == whole[index + 1 :]
    last = await read_stream(api, path_of(run_id, chunks), headers={"Last-Event-ID": whole[-1].last_id})
    assert (last.status, bytes(last.body)) == (204, b"")


@pytest.mark.parametrize("chunks", [False, True])
async def test_a_live_stream_shows_events_as_they_happen_and_ends_with_the_run(
    api: RunningGateway, chunks: bool
) -> None:
    """Readers that came at different times have the same in the end."""
    run_id = await make_run(api, done=False)
    async with open_stream(api, path_of(run_id, chunks)) as early:
        first = await early.take(2)
        await api.append(run_id, ("message.delta", {"content": "!", "message_id": "m1"}))
        late = asyncio.create_task(read_stream(api, path_of(run_id, chunks)))
        await api.append(run_id, COMPLETE)
        frames = first + await early.rest()
        assert early.ended == "clean"
        assert (await late).parser.frames == frames
    shown = frames if chunks else [f for f in frames if f.data["type"] == "message.delta"]
    assert "".join(f.data["content"] if chunks else f.data["message"] for f in shown) == "Hello!"


async def test_what_the_log_lost_is_told_without_a_frame(api: RunningGateway) -> None:
    """A cursor that the log does not know begins anew; a comment says so, which no client sees."""
    run_id = await make_run(api)
    whole = await frames_of(api, path_of(run_id))
    for cursor in ("nonsense", "3-1", "99-5"):
        stream = await read_stream(api, path_of(run_id), headers={"Last-Event-ID": cursor})
        assert b"\n: stream.reset {" in stream.body
        assert stream.parser.frames == whole


async def test_a_browser_reads_with_a_ticket(api: RunningGateway) -> None:
    """An EventSource cannot send headers."""
    run_id = await make_run(api)
    ticket = await new_ticket(api, runs=[run_id])
    whole = await frames_of(api, path_of(run_id))
    assert await frames_of(api, f"{path_of(run_id)}?ticket={ticket}", key=None) == whole
    assert await frames_of(api, f"{path_of(run_id)}?after_seq=2&ticket={ticket}", key=None) == whole[2:]


async def test_a_stream_that_cannot_be_opened_is_refused_in_the_systems_words(api: RunningGateway) -> None:
    """An unknown run, a bad place, no key, a log that is gone."""
    run_id = await make_run(api)
    assert "no run" in refused(await api.client.get(path_of("01J00000000000000000000000")), 404)
    assert "after_seq" in refused(await api.client.get(f"{path_of(run_id)}?after_seq=x"), 400)
    assert "types" in refused(await api.client.get(f"{path_of(run_id)}?types=log"), 400)
    keyless = await read_stream(api, path_of(run_id), key=None)
    assert keyless.status == 401
    assert json.loads(keyless.body).keys() == {"error", "request_id"}
    answer = await act(api, run_id, "purge", keep_record=True)
    assert answer.status_code == 200
    for path in ("stream", "stream/chunks", "events", "usage", "debug-bundle"):
        refused(await api.client.get(f"{BASE}/v1/runs/{run_id}/{path}"), 410)
    assert (await get(api, f"/{run_id}"))["status"] == "completed"


async def test_a_stream_ends_when_its_key_does(api: RunningGateway) -> None:
    """It is cut, not ended: a reader that resumes must not take it for the end of the run."""
    run_id = await make_run(api, done=False)
    key, record = await new_key(api, scopes=SCOPES)
    async with open_stream(api, path_of(run_id), key=key) as stream:
        await stream.take(7)
        await api.gateway.access.revoke_key(None, record.id, now_ms=api.gateway.clock.now_ms())
        assert await stream.rest() == []
        assert stream.ended == "cut"
