"""Several runs on one stream: joined cursors, and exactness under any interleaving."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from typing import Any

import pytest
from ulid import ULID

from gateway.store.log import LogName
from tests.dialects.native.streaming import (
    Frame,
    frames_of,
    names_of,
    new_key,
    new_ticket,
    open_stream,
    read_stream,
)
from tests.hub.logs import open_link
from tests.support.running import COMPLETE, FAIL, LOG, RunningGateway, RunningStore, run_gateway

pytestmark = pytest.mark.anyio


def path_of(*runs: dict[str, Any], more: str = "") -> str:
    """Return the stream of these runs."""
    return "/v1/stream?" + "&".join(f"run={run['id']}" for run in runs) + more


def by_run(frames: list[Frame]) -> dict[str, list[int]]:
    """Return the seqs of each run's events."""
    found: dict[str, list[int]] = defaultdict(list)
    for frame in frames:
        if frame.name == "message":
            assert frame.data.keys() == {"run_id", "cursor", "event"}
            assert frame.data["event"]["run_id"] == frame.data["run_id"]
            assert frame.data["cursor"].startswith(f"{frame.data['event']['seq']}-")
            found[frame.data["run_id"]].append(frame.data["event"]["seq"])
    return dict(found)


def check_ids(frames: list[Frame], runs: list[str], start: list[str]) -> None:
    """Check that each id is every run's last cursor, in the order in which the runs were named."""
    places = dict(zip(runs, start, strict=True))
    for frame in frames:
        if frame.name == "message":
            places[frame.data["run_id"]] = frame.data["cursor"]
            assert frame.last_id == ",".join(places[run_id] for run_id in runs)


async def test_runs_that_ended_are_read_whole(api: RunningGateway) -> None:
    """A `stream.open` and a `stream.end` for each, then the end of the stream."""
    runs = [await api.run_in(status) for status in ("completed", "failed", "cancelled")]
    frames = await frames_of(api, path_of(*runs))
    opened = [frame for frame in frames if frame.name == "stream.open"]
    ended = [frame for frame in frames if frame.name == "stream.end"]
    assert [frame.data["run_id"] for frame in opened] == [run["id"] for run in runs]
    assert {f.data["run_id"]: f.data["status"] for f in ended} == {run["id"]: run["status"] for run in runs}
    assert by_run(frames) == {run["id"]: list(range(1, run["head_seq"] + 1)) for run in runs}
    check_ids(frames, [run["id"] for run in runs], ["0"] * 3)


async def test_one_run_may_end_while_the_other_goes_on(api: RunningGateway) -> None:
    """The stream ends with the last of them."""
    first, second = await api.run_in("running"), await api.run_in("running")
    async with open_stream(api, path_of(first, second)) as stream:
        await stream.take(10)
        await api.append(first["id"], COMPLETE)
        assert names_of(await stream.take(2)) == ["message", "stream.end"]
        await api.append(second["id"], LOG)
        (event,) = await stream.events(1)
        assert (event["run_id"], event["event"]["seq"]) == (second["id"], 5)
        assert stream.ended is None
        await api.append(second["id"], FAIL)
        rest = await stream.rest()
        assert names_of(rest) == ["message", "stream.end"]
        assert rest[-1].data == {"run_id": second["id"], "status": "failed"}
        assert stream.ended == "clean"


async def test_joined_cursors_resume_each_run_where_it_was(api: RunningGateway) -> None:
    """Through the header, through `after`, and `0` for a run of which nothing was seen."""
    first, second = await api.run_in("completed"), await api.run_in("completed")
    frames = await frames_of(api, path_of(first, second))
    cursors = {(f.data["run_id"], f.data["event"]["seq"]): f.data["cursor"] for f in frames if f.name == "message"}
    after = f"{cursors[first['id'], 3]},{cursors[second['id'], 1]}"
    for request in ({"headers": {"Last-Event-ID": after}}, {"query": f"&after={after}"}):
        path = path_of(first, second, more=request.pop("query", ""))  # type: ignore[arg-type]
        found = by_run(await frames_of(api, path, **request))
        assert found == {first["id"]: [4, 5], second["id"]: [2, 3, 4, 5]}
    found = by_run(await frames_of(api, path_of(first, second, more=f"&after=0,{cursors[second['id'], 5]}")))
    assert found == {first["id"]: [1, 2, 3, 4, 5]}
    found = by_run(await frames_of(api, path_of(first, second, more="&after_seq=4")))
    assert found == {first["id"]: [5], second["id"]: [5]}


async def test_nothing_ever_follows_is_204_when_it_is_so_of_all(api: RunningGateway) -> None:
    """One that goes on, or lacks something, is enough for a stream."""
    first, second = await api.run_in("completed"), await api.run_in("completed")
    going_on = await api.run_in("running")
    last_id = (await frames_of(api, path_of(first, second)))[-1].last_id
    headers = {"Last-Event-ID": last_id}
    assert (await read_stream(api, path_of(first, second), headers=headers)).status == 204
    assert (await read_stream(api, path_of(second, first), headers=headers)).status == 200
    assert (await read_stream(api, path_of(first, second, more="&types=custom.x"))).status == 204
    assert (await read_stream(api, path_of(first, second, more="&after=0,0"))).status == 200
    async with open_stream(api, path_of(first, going_on, more=f"&after={last_id}")) as stream:
        assert stream.status == 200


async def test_each_run_is_judged_by_itself(api: RunningGateway) -> None:
    """One run's cursor may be refused, another's log trimmed, a third go on."""
    fine, reset, trimmed = [await api.run_in("completed") for _ in range(3)]
    frames = await frames_of(api, path_of(fine))
    cursor = next(f.data["cursor"] for f in frames if f.name == "message" and f.data["event"]["seq"] == 3)
    await api.client.post(f"/v1/runs/{trimmed['id']}/purge", json={"through_seq": 4})
    frames = await frames_of(api, path_of(fine, reset, trimmed, more=f"&after={cursor},3-1,2"))
    told = {f.data["run_id"]: (f.name, f.data) for f in frames if f.name in ("stream.reset", "stream.gap")}
    assert told.keys() == {reset["id"], trimmed["id"]}
    assert told[reset["id"]][0] == "stream.reset"
    places = [f.last_id.split(",")[2] for f in frames if f.data.get("run_id") == fine["id"] and f.name == "message"]
    assert set(places) == {"4"}
    assert told[trimmed["id"]][1] == {"run_id": trimmed["id"], "requested": 3, "first_seq": 5}
    assert by_run(frames) == {fine["id"]: [4, 5], reset["id"]: [1, 2, 3, 4, 5], trimmed["id"]: [5]}


async def test_a_malformed_last_event_id_resets_all(api: RunningGateway) -> None:
    """Also one that has too few cursors, or too many."""
    runs = [await api.run_in("completed") for _ in range(2)]
    for header in ("x", "1", "1,2,3", "1,x"):
        frames = await frames_of(api, path_of(*runs), headers={"Last-Event-ID": header})
        assert names_of(frames).count("stream.reset") == 2
        assert by_run(frames) == {run["id"]: [1, 2, 3, 4, 5] for run in runs}


async def test_filters_and_snapshots_are_of_each_run(api: RunningGateway) -> None:
    """A filter never renumbers; a snapshot's id says where all of them stand."""
    first, second = await api.run_in("completed"), await api.run_in("running")
    async with open_stream(api, path_of(first, second, more="&snapshot=true&types=run.completed")) as stream:
        frames = await stream.take(5)
        shown = [frame for frame in frames if frame.name == "stream.snapshot"]
        assert {f.data["run_id"]: f.data["as_of_seq"] for f in shown} == {first["id"]: 5, second["id"]: 4}
        await api.append(second["id"], LOG, COMPLETE)
        rest = await stream.rest()
    assert by_run(rest) == {second["id"]: [6]}
    assert shown[-1].last_id.startswith("5-")
    again = await frames_of(api, path_of(first, second), headers={"Last-Event-ID": shown[-1].last_id})
    assert by_run(again) == {second["id"]: [5, 6]}


async def test_what_cannot_be_opened_is_refused_whole(api: RunningGateway) -> None:
    """No run, one run twice, too many, one that is unknown, expired, or out of reach."""
    run, removed = await api.run_in("completed"), await api.run_in("completed")
    await api.client.post(f"/v1/runs/{removed['id']}/purge", json={"keep_record": True})
    other_agent, _ = await new_key(api, agents=["other"])
    ticket = await new_ticket(api, runs=[run["id"]])
    ids = "&".join(f"run={ULID()}" for _ in range(17))
    expected = [
        ("/v1/stream", 400),
        ("/v1/stream?run=", 400),
        (path_of(run, run), 400),
        (f"/v1/stream?{ids}", 400),
        (path_of(run, {"id": "x"}), 404),
        (path_of(run, {"id": str(ULID())}), 404),
        (path_of(run, removed), 410),
        (path_of(run, more="&after=1,2"), 400),
        (path_of(run, removed, more="&after=1"), 400),
        (path_of(run, more="&after=x"), 400),
        (path_of(run, more="&x=1"), 400),
    ]
    for path, status in expected:
        assert (await read_stream(api, path)).status == status, path
    assert (await read_stream(api, path_of(run), key=other_agent)).status == 404
    assert (await read_stream(api, path_of(run, removed, more=f"&ticket={ticket}"), key=None)).status == 404
    assert (await read_stream(api, path_of(run, more=f"&ticket={ticket}"), key=None)).status == 200
    sixteen = [await api.create_run() for _ in range(16)]
    async with open_stream(api, path_of(*sixteen)) as stream:
        assert names_of(await stream.take(16)) == ["stream.open"] * 16


async def test_a_drain_tells_where_all_of_them_are(store: RunningStore) -> None:
    """`resume_after` is the joined cursors, as any id of the stream."""
    async with run_gateway(store.url) as api:
        runs = [await api.run_in("running") for _ in range(2)]
        async with open_stream(api, path_of(*runs)) as stream:
            frames = await stream.take(10)
            await api.gateway.close_streams(0)
            (closed,) = await stream.rest()
            assert closed.data == {"reason": "drain", "resume_after": frames[-1].last_id}
            assert stream.ended == "cut"


async def test_every_interleaving_resumes_exactly(store: RunningStore) -> None:
    """Three runs written to at once, a reader cut after any number of frames: each event once and in order."""
    chance = random.Random(11)
    async with run_gateway(store.url, ring_entries=16, chunk_bytes=1024) as api:
        runs = [await api.run_in("running") for _ in range(3)]
        ids = [run["id"] for run in runs]

        async def write(run_id: str) -> None:
            for _ in range(60):
                size = chance.choice([1, 1, 3, 20])
                await api.append(run_id, *[LOG] * size)
                await asyncio.sleep(chance.random() * 0.004)
            await api.append(run_id, COMPLETE)

        seen: dict[str, list[int]] = defaultdict(list)
        last_id, cuts = "0,0,0", 0
        async with asyncio.TaskGroup() as tasks:
            for run_id in ids:
                tasks.create_task(write(run_id))
            while True:
                headers = {"Last-Event-ID": last_id}
                async with open_stream(api, path_of(*runs), headers=headers) as stream:
                    frames: list[Frame] = []
                    for _ in range(chance.choice([4, 10, 60])):
                        while stream._given == len(stream.parser.frames) and stream.ended is None:
                            await stream.read_more()
                        if stream._given == len(stream.parser.frames):
                            break
                        frames.append(await stream.next())
                    if not frames:
                        # Cut after the last frame: nothing will ever follow.
                        break
                    check_ids(frames, ids, last_id.split(","))
                    for run_id, seqs in by_run(frames).items():
                        seen[run_id] += seqs
                    last_id = frames[-1].last_id or last_id
                    if stream.ended == "clean":
                        break
                    cuts += 1
        assert cuts > 10
        for run_id in ids:
            head = (await api.client.get(f"/v1/runs/{run_id}")).json()["head_seq"]
            assert seen[run_id] == list(range(1, head + 1))


async def test_a_rollback_of_one_run_is_told_before_its_place_moves(store: RunningStore) -> None:
    """The joined cursors never say that a reset was told which was not."""
    async with run_gateway(store.url, sweep_s=0.1) as api, open_link(store.url) as link:
        runs = [await api.run_in("running") for _ in range(2)]
        name = LogName.of_run(runs[0]["id"])
        dumps = [await link.call("DUMP", key) for key in (name.record, name.stream)]
        async with open_stream(api, path_of(*runs)) as stream:
            await api.append(runs[0]["id"], LOG, LOG)
            await stream.take(12)
            for key, dump in zip((name.record, name.stream), dumps, strict=True):
                await link.call("RESTORE", key, 0, dump, "REPLACE")
            await api.append(runs[1]["id"], LOG)
            await api.append(runs[0]["id"], LOG)
            frames = await stream.take(3)
            places = [f.last_id.split(",")[0] for f in frames]
            told = names_of(frames).index("stream.reset")
            assert all(place.startswith("6-") for place in places[:told])
            mine = [f for f in frames if f.name == "message" and f.data["run_id"] == runs[0]["id"]]
            assert [f.data["event"]["seq"] for f in mine] == [5]
            assert frames[told].data["run_id"] == runs[0]["id"]
            assert frames[told].data["valid_through"] == 4
