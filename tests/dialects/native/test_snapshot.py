"""Starting from a snapshot: one frame in place of everything so far, then the events from there."""

from __future__ import annotations

import asyncio
import re

import pytest

from gateway.store.link import Link
from tests.dialects.native.streaming import frames_of, names_of, open_stream, read_stream, seqs_of
from tests.support.links import connect
from tests.support.native import accepted, get_log, get_run
from tests.support.running import COMPLETE, LOG, RunningGateway, RunningStore

pytestmark = pytest.mark.anyio


def delta(text: str) -> tuple[str, object]:
    """Return a piece of a message."""
    return "message.delta", {"content": text, "message_id": "m"}


async def test_a_late_joiner_gets_the_state_and_what_follows(api: RunningGateway) -> None:
    """The state carries the cursor that it stands for; the next event is the next one."""
    run = await api.run_in("running")
    await api.append(run["id"], *[delta(str(number)) for number in range(100)])
    async with open_stream(api, f"/v1/runs/{run['id']}/stream?snapshot=true") as stream:
        opened, snapshot = await stream.take(2)
        assert opened.data["after_seq"] == snapshot.data["as_of_seq"] == 104
        assert snapshot.name == "stream.snapshot"
        assert snapshot.data["run_id"] == run["id"]
        assert snapshot.own_id
        assert snapshot.last_id.startswith("104-")
        assert snapshot.data["state"]["messages"][0]["content"] == "".join(map(str, range(100)))
        await api.append(run["id"], delta("x"), COMPLETE)
        rest = await stream.rest()
        assert seqs_of(rest) == [105, 106]
    same = await frames_of(api, f"/v1/runs/{run['id']}/stream", headers={"Last-Event-ID": snapshot.last_id})
    assert seqs_of(same) == [105, 106]


async def test_the_state_is_what_the_fold_says(api: RunningGateway) -> None:
    """The frame and `GET …/snapshot` are one."""
    run = await api.run_in("running")
    await api.append(run["id"], ("step.started", {"step_id": "s", "name": "n"}), LOG, delta("x"))
    fold = accepted(await api.client.get(f"/v1/runs/{run['id']}/snapshot"))
    async with open_stream(api, f"/v1/runs/{run['id']}/stream?snapshot=true") as stream:
        _, snapshot = await stream.take(2)
    assert snapshot.data["state"] == fold["state"]
    assert (snapshot.data["as_of_seq"], snapshot.last_id) == (fold["as_of_seq"], fold["as_of"])


async def test_a_snapshot_of_an_ended_run_is_worth_a_stream(api: RunningGateway) -> None:
    """No event follows it, but the reader did not have it: no 204; coming back with it is one."""
    run = await api.run_in("completed")
    frames = await frames_of(api, f"/v1/runs/{run['id']}/stream?snapshot=true")
    assert names_of(frames) == ["stream.open", "stream.snapshot", "stream.end"]
    headers = {"Last-Event-ID": frames[1].last_id}
    again = await read_stream(api, f"/v1/runs/{run['id']}/stream?snapshot=true", headers=headers)
    assert again.status == 204


async def test_whoever_has_something_gets_events(api: RunningGateway) -> None:
    """A page that reconnects keeps its address; its last id says that it needs no snapshot."""
    run = await api.run_in("completed")
    path = f"/v1/runs/{run['id']}/stream?snapshot=true"
    for headers, query in (({"Last-Event-ID": "2"}, ""), ({}, "&after=2"), ({}, "&after_seq=2")):
        frames = await frames_of(api, path + query, headers=headers)
        assert names_of(frames) == ["stream.open", "message", "message", "message", "stream.end"]
    frames = await frames_of(api, path, headers={"Last-Event-ID": "nonsense"})
    assert "stream.snapshot" not in names_of(frames)
    assert names_of(frames)[1] == "stream.reset"


async def test_a_filter_goes_with_a_snapshot(api: RunningGateway) -> None:
    """The state is whole, what follows is filtered."""
    run = await api.run_in("running")
    async with open_stream(api, f"/v1/runs/{run['id']}/stream?snapshot=true&types=run.*") as stream:
        assert names_of(await stream.take(2)) == ["stream.open", "stream.snapshot"]
        await api.append(run["id"], LOG, COMPLETE)
        assert [frame.data.get("type") for frame in await stream.rest()] == ["run.completed", None]


async def test_the_text_alone_may_start_from_a_snapshot(api: RunningGateway) -> None:
    """`/stream/chunks` of a late joiner."""
    run = await api.run_in("running")
    await api.append(run["id"], delta("Hel"))
    async with open_stream(api, f"/v1/runs/{run['id']}/stream/chunks?snapshot=true") as stream:
        _, snapshot = await stream.take(2)
        await api.append(run["id"], LOG, delta("lo"), COMPLETE)
        rest = await stream.rest()
    text = snapshot.data["state"]["messages"][0]["content"]
    assert text + "".join(f.data["data"]["content"] for f in rest if f.name == "message") == "Hello"


async def test_a_snapshot_and_its_events_meet_whenever_it_is_taken(api: RunningGateway) -> None:
    """While a run is written to, state and events join without a gap or an overlap."""
    run = await api.run_in("running")

    async def write() -> None:
        for number in range(60):
            await api.append(run["id"], delta(f"{number},"))
        await api.append(run["id"], COMPLETE)

    async with asyncio.TaskGroup() as tasks:
        writing = tasks.create_task(write())
        joined = []
        while not writing.done():
            joined.append(tasks.create_task(frames_of(api, f"/v1/runs/{run['id']}/stream?snapshot=true")))
            await asyncio.sleep(0.005)
    whole = "".join(e["data"]["content"] for e in await get_log(api, run["id"]) if e["type"] == "message.delta")
    assert len(joined) > 3
    for task in joined:
        frames = task.result()
        messages = frames[1].data["state"]["messages"]
        text = messages[0]["content"] if messages else ""
        text += "".join(f.data["data"]["content"] for f in frames if f.data.get("type") == "message.delta")
        assert text == whole
        assert seqs_of(frames) == list(range(frames[1].data["as_of_seq"] + 1, 66))


async def test_what_was_purged_is_not_in_a_snapshot(api: RunningGateway) -> None:
    """A fold that was kept in memory does not show what was removed from the log."""
    run = await api.run_in("running")
    await api.append(run["id"], delta("secret"), LOG, COMPLETE)
    path = f"/v1/runs/{run['id']}/stream?snapshot=true"
    assert "secret" in str(await frames_of(api, path))
    accepted(await api.client.post(f"/v1/runs/{run['id']}/purge", json={"through_seq": 5}))
    frames = await frames_of(api, path)
    assert "secret" not in str(frames)
    assert frames[0].data["first_seq"] == 6
    assert frames[1].data["as_of_seq"] == 7


async def test_many_at_once_share_what_is_read(api: RunningGateway, store: RunningStore) -> None:
    """A crowd that comes at once has one state, and the log is read for it a few times, not once for each."""
    run = await api.run_in("running")
    await api.append(run["id"], *[LOG] * 50)
    grant, folds = await api.gateway.access.authenticate(api.key, now_ms=0), api.gateway.services.folds
    async with connect(store.url) as link:
        before = await count_scripts(link)
        taken = await asyncio.gather(*(folds.snapshot(grant, run["id"]) for _ in range(200)))
        assert await count_scripts(link) - before < 100
    assert {each.as_of.seq for each in taken} == {(await get_run(api, run["id"]))["head_seq"]}
    assert len({id(each.state_json) for each in taken}) == 1


async def count_scripts(link: Link) -> int:
    """Return how many scripts the store has run; each read of a log is one, and others' timers are few."""
    told = (await link.call("INFO", "commandstats")).decode()
    found = re.search(r"cmdstat_evalsha:calls=(\d+)", told)
    assert found is not None
    return int(found[1])
