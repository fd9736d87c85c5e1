"""The threads API's event stream: its frames byte for byte, resumed by seq or by id, cut anywhere."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.threads.project import EVENT_TYPES
from gateway.dialects.threads.routes import EVENTS
from gateway.domain.lifecycle import ENDINGS
from gateway.store.log import Entry
from tests.dialects.native.streaming import new_ticket, open_stream, read_stream
from tests.dialects.stateless import check_stateless, logs
from tests.support.native import accepted, get_log
from tests.support.running import COMPLETE, FAIL, LOG, RunningGateway

pytestmark = pytest.mark.anyio

BASE = "/compat/threads/v1/runs"
TALK = [
    ("message.delta", {"content": "Hel"}),
    ("tool.call", {"call_id": "c1", "name": "grep", "input": {"q": "x"}}),
    ("tool.progress", {"call_id": "c1", "progress": 0.5}),
    ("tool.result", {"call_id": "c1", "output": [1], "status": "ok", "duration_ms": 3}),
    ("usage.recorded", {"provider": "p", "model": "m", "prompt_tokens": 1, "completion_tokens": 1}),
    ("message.delta", {"content": "lo"}),
]


async def finished_run(api: RunningGateway) -> str:
    """Return a run that said all that there is to say."""
    run = await api.create_run()
    accepted(await api.append(run["id"], LOG, *TALK, ("run.waiting_for_input", {"prompt": "?", "request_id": "q"})))
    accepted(await api.client.post(f"/v1/runs/{run['id']}/input", json={"content": "x"}))
    accepted(await api.append(run["id"], COMPLETE))
    return str(run["id"])


async def test_a_whole_stream_byte_for_byte(api: RunningGateway) -> None:
    """Data-only frames {seq, type, data, created_at} under their cursors; nothing else, and a clean end."""
    run_id = await finished_run(api)
    events = [e for e in await get_log(api, run_id) if e["type"] in EVENT_TYPES]
    assert [e["type"] for e in events] == [
        "run.started",
        "message.delta",
        "tool.call",
        "tool.result",
        "message.delta",
        "run.waiting_for_input",
        "run.completed",
    ]
    stream = await read_stream(api, f"{BASE}/{run_id}/events", headers={"Accept": "text/event-stream"})
    assert (stream.status, stream.ended) == (200, "clean")
    assert stream.headers["content-type"] == "text/event-stream"
    cursors = [frame.last_id for frame in stream.parser.frames]
    expected = "retry: 2000\n\n"
    for cursor, event in zip(cursors, events, strict=True):
        assert re.fullmatch(rf"{event['seq']}-\d+", cursor)
        shown = {name: event[name] for name in ("seq", "type", "data", "created_at")}
        expected += f"id: {cursor}\ndata: {json.dumps(shown, separators=(',', ':'))}\n\n"
    assert stream.body.decode() == expected


async def test_a_stream_resumes_after_a_seq_and_after_an_id(api: RunningGateway) -> None:
    """`after_seq` and `Last-Event-ID` both go on after what was seen, whichever event that was; the header wins."""
    run_id = await finished_run(api)
    whole = (await read_stream(api, f"{BASE}/{run_id}/events")).parser.frames
    last = (await get_log(api, run_id))[-1]["seq"]
    for after_seq in range(last):
        rest = [frame for frame in whole if frame.data["seq"] > after_seq]
        for about in ({"path": f"?after_seq={after_seq}"}, {"header": str(after_seq)}):
            headers = {"Last-Event-ID": about["header"]} if "header" in about else {}
            path = f"{BASE}/{run_id}/events{about.get('path', '')}"
            assert (await read_stream(api, path, headers=headers)).parser.frames == rest
    for frame in whole[:-1]:
        headers = {"Last-Event-ID": frame.last_id}
        again = await read_stream(api, f"{BASE}/{run_id}/events?after_seq=0", headers=headers)
        assert again.parser.frames == whole[whole.index(frame) + 1 :]


async def test_nothing_follows_the_last_event(api: RunningGateway) -> None:
    """A reader that has it all is answered 204, which stops an EventSource; a bad seq is 400."""
    run_id = await finished_run(api)
    last = (await get_log(api, run_id))[-1]["seq"]
    assert (await read_stream(api, f"{BASE}/{run_id}/events?after_seq={last}")).status == 204
    answer = await api.client.get(f"{BASE}/{run_id}/events?after_seq=-1")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    accepted(await api.client.post(f"/v1/runs/{run_id}/purge", json={"keep_record": True}))
    answer = await api.client.get(f"{BASE}/{run_id}/events")
    assert (answer.status_code, answer.json()["code"]) == (410, "log_expired")


async def test_events_come_as_they_happen_and_the_run_s_end_ends_the_stream(api: RunningGateway) -> None:
    """Also for a run that has not started yet, and for a browser's ticket."""
    run = await api.create_run()
    ticket = await new_ticket(api, runs=[run["id"]])
    async with open_stream(api, f"{BASE}/{run['id']}/events?ticket={ticket}", key=None) as stream:
        await stream.read_until(b"retry: ")
        accepted(await api.append(run["id"], LOG))
        assert [event["type"] for event in await stream.events(1)] == ["run.started"]
        accepted(await api.append(run["id"], TALK[0]))
        (said,) = await stream.events(1)
        assert (said["type"], said["data"]) == ("message.delta", {"content": "Hel"})
        accepted(await api.append(run["id"], FAIL))
        (failed,) = await stream.rest()
        assert failed.data["type"] == "run.failed"
        assert failed.data["data"]["error"]["code"] == "broken"
        assert stream.ended == "clean"


async def test_a_dismissed_stream_is_cut_without_a_word(api: RunningGateway) -> None:
    """When its credential ends no frame says so: the connection is cut, and the client comes back with its id."""
    run = await api.run_in("running")
    async with open_stream(api, f"{BASE}/{run['id']}/events") as stream:
        assert [event["type"] for event in await stream.events(1)] == ["run.started"]
        for outlet in list(api.gateway.hub.outlets):
            outlet.dismiss("key_revoked")
        assert await stream.rest() == []
        assert stream.ended == "cut"
        assert b"stream." not in stream.body


async def test_readers_share_what_is_projected(api: RunningGateway) -> None:
    """All readers of the dialect have one encoder key, so that an entry is projected once for all of them."""
    run = await api.run_in("running")
    async with (
        open_stream(api, f"{BASE}/{run['id']}/events") as one,
        open_stream(api, f"{BASE}/{run['id']}/events") as two,
    ):
        await one.events(1)
        await two.events(1)
        keys = {reader.encoder.key for outlet in api.gateway.hub.outlets for reader in outlet.readers}
        assert keys == {EVENTS.key}
        accepted(await api.append(run["id"], TALK[0]))
        assert await one.events(1) == await two.events(1)


def test_every_end_of_a_run_is_shown() -> None:
    """A client that waits for the last event gets one, however the run ended."""
    assert ENDINGS.keys() <= EVENT_TYPES.keys()


@given(logs(), st.integers(0, 12))
def test_the_stream_may_be_cut_anywhere(entries: list[Entry], cut: int) -> None:
    """Frames of a part of the log and of the rest are the frames of the whole."""
    check_stateless(EVENTS, entries, cut)
