"""Streams of one run: live, filtered, ended, refused; and a run that is created and streamed at once."""

from __future__ import annotations

import asyncio

import pytest
from ulid import ULID

from tests.dialects.native.streaming import (
    frames_of,
    names_of,
    new_key,
    new_ticket,
    open_stream,
    read_stream,
    seqs_of,
)
from tests.support.native import get_log, open_client
from tests.support.running import COMPLETE, FAIL, LOG, RunningGateway, RunningStore, run_gateway

pytestmark = pytest.mark.anyio


def delta(text: str) -> tuple[str, object]:
    """Return a piece of a message."""
    return "message.delta", {"content": text}


async def test_events_arrive_while_the_run_goes_on(api: RunningGateway) -> None:
    """One append after another, each delivered before the next is made."""
    run = await api.create_run()
    async with open_stream(api, f"/v1/runs/{run['id']}/stream") as stream:
        assert names_of(await stream.take(3)) == ["stream.open", "message", "message"]
        await api.append(run["id"], LOG)
        assert [event["type"] for event in await stream.events(2)] == ["run.started", "log"]
        for number in range(5, 25):
            await api.append(run["id"], delta(str(number)))
            (event,) = await stream.events(1)
            assert (event["seq"], event["data"]["content"]) == (number, str(number))
        await api.append(run["id"], COMPLETE)
        assert names_of(await stream.rest()) == ["message", "stream.end"]
        assert stream.ended == "clean"


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
async def test_the_end_says_how_the_run_ended(api: RunningGateway, status: str) -> None:
    """For whoever was there, and for whoever comes after."""
    run = await api.run_in(status)
    frames = await frames_of(api, f"/v1/runs/{run['id']}/stream")
    assert frames[-1].name == "stream.end"
    assert frames[-1].data == {"run_id": run["id"], "status": status}
    assert seqs_of(frames) == [event["seq"] for event in await get_log(api, run["id"])]


async def test_a_batch_arrives_whole_and_in_order(api: RunningGateway) -> None:
    """A thousand events in one append, more than one chunk of the stream."""
    run = await api.run_in("running")
    async with open_stream(api, f"/v1/runs/{run['id']}/stream") as stream:
        await stream.take(5)
        batch = [delta(f"{number} " + "x" * 500) for number in range(1000)]
        assert (await api.append(run["id"], *batch)).status_code == 200
        events = await stream.events(1000)
        assert [event["seq"] for event in events] == list(range(5, 1005))
        assert [int(event["data"]["content"].split()[0]) for event in events] == list(range(1000))


async def test_events_of_every_size_arrive(api: RunningGateway) -> None:
    """Beyond what a notification, a chunk or a socket buffer holds."""
    run = await api.run_in("running")
    async with open_stream(api, f"/v1/runs/{run['id']}/stream") as stream:
        await stream.take(5)
        for size in (1, 70_000, 10, 250_000, 20):
            assert (await api.append(run["id"], delta("x" * size))).status_code == 200
            (event,) = await stream.events(1)
            assert len(event["data"]["content"]) == size


async def test_a_filter_hides_and_never_renumbers(api: RunningGateway) -> None:
    """Live and replayed, exact names and prefixes."""
    run = await api.run_in("running")
    tool = ("tool.call", {"call_id": "c", "name": "n", "input": {}})
    path = f"/v1/runs/{run['id']}/stream?types=tool.*,run.completed"
    async with open_stream(api, path) as stream:
        await stream.next()
        await api.append(run["id"], LOG, tool, LOG)
        await api.append(run["id"], LOG)
        await api.append(run["id"], COMPLETE)
        live = await stream.rest()
    assert [frame.data["type"] for frame in live[:-1]] == ["tool.call", "run.completed"]
    assert seqs_of(live) == [6, 9]
    assert names_of(live)[-1] == "stream.end"
    replayed = await frames_of(api, path)
    assert replayed[1:] == live
    assert replayed[0].data["head_seq"] == 9


@pytest.mark.parametrize("asked", [True, False])
async def test_events_may_be_let_gather(store: RunningStore, api: RunningGateway, asked: bool) -> None:
    """With a pause between writes, asked for or set, events come together, all of them, and the end after them."""
    async with run_gateway(store.url, tenant=api.tenant, linger_ms=0 if asked else 300) as lingering:
        run = await lingering.run_in("running")
        query = "?linger_ms=300" if asked else ""
        async with open_stream(lingering, f"/v1/runs/{run['id']}/stream{query}") as stream:
            await stream.take(5)
            await lingering.append(run["id"], delta("at once"))
            await stream.events(1)
            for number in range(5):
                await lingering.append(run["id"], delta(str(number)))
            await lingering.append(run["id"], COMPLETE)
            await stream.read_more()
            assert names_of(await stream.take(6)) == ["message"] * 6
            assert names_of(await stream.rest()) == ["stream.end"]
            assert stream.ended == "clean"


async def test_chunks_are_the_text_only(api: RunningGateway) -> None:
    """`/stream/chunks` is the stream of a run's message deltas, with its end."""
    run = await api.run_in("running")
    await api.append(run["id"], delta("Hel"), LOG, delta("lo"), COMPLETE)
    frames = await frames_of(api, f"/v1/runs/{run['id']}/stream/chunks")
    assert names_of(frames) == ["stream.open", "message", "message", "stream.end"]
    assert "".join(frame.data["data"]["content"] for frame in frames[1:-1]) == "Hello"
    resumed = await frames_of(api, f"/v1/runs/{run['id']}/stream/chunks", headers={"Last-Event-ID": frames[1].last_id})
    assert seqs_of(resumed) == [7]
    assert (await read_stream(api, f"/v1/runs/{run['id']}/stream/chunks?types=log")).status == 400


async def test_nothing_ever_follows_is_204(api: RunningGateway) -> None:
    """That stops an EventSource; told only to a reader whose cursor agrees and who lacks nothing of its filter."""
    run = await api.run_in("completed")
    frames = await frames_of(api, f"/v1/runs/{run['id']}/stream")
    path, head = f"/v1/runs/{run['id']}/stream", frames[-1].last_id

    async def status(query: str = "", last_event_id: str | None = None) -> int:
        headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        return (await read_stream(api, path + query, headers=headers)).status

    assert await status(last_event_id=head) == 204
    assert await status(f"?after={head}") == 204
    assert await status("?after_seq=5") == 204
    assert await status("?after_seq=4") == 200
    assert await status("?types=message.*") == 204
    assert await status("?types=run.completed&after_seq=4") == 200
    assert await status("?types=log&after_seq=3") == 200
    assert await status("?types=log&after_seq=4") == 204
    assert await status("/chunks") == 204
    assert await status(last_event_id=head.split("-")[0] + "-1") == 200
    assert await status("?types=message.*", last_event_id="99-1") == 200
    assert await status(last_event_id="nonsense") == 200
    empty = await read_stream(api, path, headers={"Last-Event-ID": head})
    assert empty.body == b""


async def test_nothing_yet_is_no_204(api: RunningGateway) -> None:
    """A run that goes on may always have something for a reader, whatever it filters."""
    run = await api.run_in("running")
    async with open_stream(api, f"/v1/runs/{run['id']}/stream?types=message.*&after_seq=4") as stream:
        assert (await stream.next()).name == "stream.open"


async def test_a_restarted_run_goes_on_for_whoever_comes_back(api: RunningGateway) -> None:
    """What was the end is none any more; seq goes on."""
    run = await api.run_in("completed")
    frames = await frames_of(api, f"/v1/runs/{run['id']}/stream")
    assert (await api.client.post(f"/v1/runs/{run['id']}/restart")).status_code == 200
    headers = {"Last-Event-ID": frames[-1].last_id}
    async with open_stream(api, f"/v1/runs/{run['id']}/stream", headers=headers) as stream:
        opened = await stream.next()
        assert opened.data["status"] == "queued"
        await api.append(run["id"], LOG, COMPLETE, attempt=2)
        rest = await stream.rest()
    assert seqs_of(rest) == list(range(6, 6 + len(rest) - 1))
    assert names_of(rest)[-1] == "stream.end"


async def test_what_is_not_there_is_404(api: RunningGateway) -> None:
    """Unknown, malformed, another tenant's, another agent's: all the same to whoever asks."""
    run = await api.run_in("completed")
    async with open_client(api, tenant="stranger") as stranger:
        stranger_key = stranger.headers["authorization"].removeprefix("Bearer ")
    other_agent, _ = await new_key(api, agents=["other"])
    for name in ("stream", "stream/chunks"):
        for run_id in (str(ULID()), "x", "0" * 25, "%00"):
            refusal = await read_stream(api, f"/v1/runs/{run_id}/{name}")
            assert refusal.status == 404
            assert refusal.headers["content-type"] == "application/problem+json"
        for key in (stranger_key, other_agent):
            refusal = await read_stream(api, f"/v1/runs/{run['id']}/{name}", key=key)
            assert (refusal.status, refusal.problem["code"]) == (404, "not_found")


async def test_who_may_not_read_is_refused(api: RunningGateway) -> None:
    """No key, a wrong one, one without the scope, a ticket of another run."""
    run, other = await api.run_in("completed"), await api.run_in("completed")
    path = f"/v1/runs/{run['id']}/stream"
    writer, _ = await new_key(api, scopes=["runs:write"])
    assert (await read_stream(api, path, key=None)).status == 401
    assert (await read_stream(api, path, key="gwk_wrong")).status == 401
    assert (await read_stream(api, path, key=writer)).status == 403
    ticket = await new_ticket(api, runs=[other["id"]])
    assert (await read_stream(api, f"{path}?ticket={ticket}", key=None)).status == 404
    ticket = await new_ticket(api, runs=[run["id"]])
    assert (await read_stream(api, f"{path}?ticket={ticket}", key=None)).status == 200
    assert (await read_stream(api, f"{path}?ticket={ticket}x", key=None)).status == 401


@pytest.mark.parametrize(
    "query",
    [
        "after=x",
        "after=13-",
        "after=-1",
        "after=0-5",
        "after=1,2",
        "after=1&after=2",
        "after_seq=x",
        "after_seq=-1",
        "after_seq=1.5",
        "after_seq=1-2",
        f"after_seq={2**53 + 1}",
        "types=Log",
        "types=a..b",
        "types=*.log",
        "snapshot=maybe",
        "limit=5",
        "unknown=1",
        "after=%ff",
    ],
)
async def test_a_malformed_parameter_is_400(api: RunningGateway, query: str) -> None:
    """Named in a problem, whatever else the request carries; nothing is streamed."""
    run = await api.run_in("completed")
    for headers in ({}, {"Last-Event-ID": "1"}):
        refusal = await read_stream(api, f"/v1/runs/{run['id']}/stream?{query}", headers=headers)
        assert (refusal.status, refusal.problem["code"]) == (400, "bad_request")


async def test_a_log_that_was_removed_is_410(api: RunningGateway) -> None:
    """The record stays, its log routes say that there is nothing any more."""
    run = await api.run_in("completed")
    answer = await api.client.post(f"/v1/runs/{run['id']}/purge", json={"keep_record": True})
    assert answer.status_code == 200
    for path in ("stream", "stream/chunks", "stream?snapshot=true", "events", "snapshot"):
        refusal = await read_stream(api, f"/v1/runs/{run['id']}/{path}")
        assert (refusal.status, refusal.problem["code"]) == (410, "log_expired")
    refusal = await read_stream(api, f"/v1/runs/{run['id']}/stream", headers={"Last-Event-ID": "1"})
    assert refusal.status == 410
    assert (await api.client.get(f"/v1/runs/{run['id']}")).status_code == 200


async def test_a_run_that_is_removed_is_404(api: RunningGateway) -> None:
    """Record and log are gone."""
    run = await api.run_in("completed")
    assert (await api.client.post(f"/v1/runs/{run['id']}/purge")).status_code == 200
    assert (await read_stream(api, f"/v1/runs/{run['id']}/stream")).status == 404


async def test_create_and_stream_is_one_request(api: RunningGateway) -> None:
    """The answer is the new run's stream, and names it."""
    body = b'{"agent_id":"a","mode":"direct","input":{"q":1}}'
    async with open_stream(api, "/v1/runs?stream=true", method="POST", body=body) as stream:
        assert stream.status in (200, 201)
        assert stream.headers["content-type"] == "text/event-stream"
        opened = await stream.next()
        run_id = opened.data["run_id"]
        assert stream.headers["location"] == f"/v1/runs/{run_id}"
        assert [event["type"] for event in await stream.events(2)] == ["run.created", "run.queued"]
        await api.append(run_id, LOG, FAIL)
        rest = await stream.rest()
        assert rest[-1].data["status"] == "failed"
        assert stream.ended == "clean"


async def test_create_and_stream_works_in_a_thread_and_filtered(api: RunningGateway) -> None:
    """As a run of a thread, with the filter of any stream."""
    thread_id, body = str(ULID()), b'{"agent_id":"a","mode":"direct"}'
    path = f"/v1/threads/{thread_id}/runs?stream=true&types=run.completed"
    async with open_stream(api, path, method="POST", body=body) as stream:
        run_id = (await stream.next()).data["run_id"]
        await api.append(run_id, LOG, COMPLETE)
        assert [frame.data.get("type") for frame in await stream.rest()] == ["run.completed", None]
    assert (await api.client.get(f"/v1/runs/{run_id}")).json()["thread_id"] == thread_id


async def test_create_and_stream_is_recognised_when_repeated(api: RunningGateway) -> None:
    """Under its idempotency key it is the same run, from its beginning."""
    headers = {"Idempotency-Key": str(ULID())}
    body, ids = b'{"agent_id":"a","mode":"direct"}', []
    for _ in range(2):
        async with open_stream(api, "/v1/runs?stream=true", method="POST", body=body, headers=headers) as stream:
            ids.append((await stream.next()).data["run_id"])
            assert (await stream.events(1))[0]["seq"] == 1
    assert ids[0] == ids[1]


async def test_create_and_stream_needs_both_scopes_and_a_sound_body(api: RunningGateway) -> None:
    """Nothing is created for whoever could not read it, or asks wrongly."""
    before = (await api.client.get("/v1/runs")).json()["data"]
    writer, _ = await new_key(api, scopes=["runs:write"])
    body = b'{"agent_id":"a","mode":"direct"}'
    assert (await read_stream(api, "/v1/runs?stream=true", method="POST", body=body, key=writer)).status == 403
    assert (await read_stream(api, "/v1/runs?stream=true&types=X", method="POST", body=body)).status == 400
    assert (await read_stream(api, "/v1/runs?stream=maybe", method="POST", body=body)).status == 400
    assert (await read_stream(api, "/v1/runs?stream=true", method="POST", body=b'{"mode":"direct"}')).status == 422
    assert (await api.client.get("/v1/runs")).json()["data"] == before


async def test_many_readers_of_one_run_get_the_same_bytes(api: RunningGateway) -> None:
    """A hundred connections, each event once, all alike."""
    run = await api.run_in("running")
    async with asyncio.TaskGroup() as tasks:
        reading = [tasks.create_task(read_stream(api, f"/v1/runs/{run['id']}/stream")) for _ in range(100)]
        for _ in range(20):
            await api.append(run["id"], LOG)
        await api.append(run["id"], COMPLETE)
    bodies = {bytes(stream.result().body).partition(b"id: 1-")[2] for stream in reading}
    assert len(bodies) == 1


async def test_what_one_process_appends_another_streams(store: RunningStore, api: RunningGateway) -> None:
    """Two gateways over one store are one."""
    async with run_gateway(store.url, tenant=api.tenant) as other:
        run = await api.run_in("running")
        async with open_stream(other, f"/v1/runs/{run['id']}/stream") as stream:
            await stream.take(5)
            for _ in range(10):
                await api.append(run["id"], LOG)
                await other.append(run["id"], LOG)
            assert [event["seq"] for event in await stream.events(20)] == list(range(5, 25))
