"""The feed: every change of status of a tenant's runs, for lists that follow."""

from __future__ import annotations

from typing import Any

import pytest
from ulid import ULID

from tests.dialects.native.streaming import (
    Frame,
    names_of,
    new_key,
    new_ticket,
    open_stream,
    read_stream,
    seqs_of,
)
from tests.support.running import COMPLETE, LOG, RunningGateway, RunningStore, run_gateway

pytestmark = pytest.mark.anyio


def changes(frames: list[Frame]) -> list[tuple[str | None, str]]:
    """Return the statuses before and after each change."""
    return [(f.data["data"]["previous"], f.data["data"]["status"]) for f in frames if f.name == "message"]


async def test_a_tenant_without_runs_has_a_feed(store: RunningStore) -> None:
    """It opens empty, and the first run appears in it."""
    async with run_gateway(store.url) as api, open_stream(api, "/v1/feed") as stream:
        opened = await stream.next()
        assert (opened.name, opened.data) == ("stream.open", {"first_seq": 1, "head_seq": 0, "after_seq": 0})
        assert stream.headers["content-type"] == "text/event-stream"
        run = await api.create_run(title="first", thread_id="t1")
        frame = await stream.next()
        assert frame.data == {
            "seq": 1,
            "type": "run.status",
            "run_id": run["id"],
            "created_at": frame.data["created_at"],
            "data": {
                "status": "queued",
                "previous": None,
                "agent_id": "tester",
                "thread_id": "t1",
                "title": "first",
                "run_seq": frame.data["data"]["run_seq"],
            },
        }
        assert frame.last_id.startswith("1-")


async def test_every_change_of_status_is_told_once(store: RunningStore) -> None:
    """And nothing else: events that change no status are not in the feed."""
    async with run_gateway(store.url) as api, open_stream(api, "/v1/feed") as stream:
        await stream.next()
        run = await api.create_run()
        await api.append(run["id"], LOG, LOG)
        await api.append(run["id"], LOG)
        await api.client.post(f"/v1/runs/{run['id']}/pause")
        await api.client.post(f"/v1/runs/{run['id']}/resume")
        await api.append(run["id"], ("run.waiting_for_input", {"prompt": "?"}))
        await api.append(run["id"], COMPLETE)
        await api.client.post(f"/v1/runs/{run['id']}/purge")
        frames = await stream.take(7)
        assert changes(frames) == [
            (None, "queued"),
            ("queued", "running"),
            ("running", "paused"),
            ("paused", "running"),
            ("running", "waiting_for_input"),
            ("waiting_for_input", "completed"),
            ("completed", "purged"),
        ]
        assert seqs_of(frames) == list(range(1, 8))


async def test_a_feed_resumes_like_any_log(store: RunningStore) -> None:
    """By its cursor, by a number, with a reset for a cursor that is not its own."""
    async with run_gateway(store.url) as api:
        for _ in range(3):
            await api.run_in("completed")
        async with open_stream(api, "/v1/feed") as stream:
            frames = await stream.take(10)
            assert seqs_of(frames) == list(range(1, 10))
        cursor = frames[4].last_id
        for headers, query in (
            ({"Last-Event-ID": cursor}, ""),
            ({}, f"?after={cursor}"),
            ({}, "?after_seq=4"),
            ({"Last-Event-ID": cursor}, "?after_seq=8"),
        ):
            async with open_stream(api, f"/v1/feed{query}", headers=headers) as stream:
                again = await stream.take(6)
                assert again[0].data == {"first_seq": 1, "head_seq": 9, "after_seq": 4}
                assert again[1:] == frames[5:]
        for header, reason in (("4-1", "log_changed"), ("99", "ahead_of_log"), ("x", "bad_cursor")):
            async with open_stream(api, "/v1/feed", headers={"Last-Event-ID": header}) as stream:
                opened, reset, first = await stream.take(3)
                assert opened.data["after_seq"] == 0
                assert (reset.name, reset.data["reason"], first.data["seq"]) == ("stream.reset", reason, 1)


async def test_a_list_follows_the_feed_from_now(store: RunningStore) -> None:
    """`after=now` skips what the list shows already; a page that reconnects goes on where it was."""
    async with run_gateway(store.url) as api:
        async with open_stream(api, "/v1/feed?after=now") as stream:
            assert (await stream.next()).data == {"first_seq": 1, "head_seq": 0, "after_seq": 0}
        await api.run_in("completed")
        async with open_stream(api, "/v1/feed?after=now") as stream:
            assert (await stream.next()).data == {"first_seq": 1, "head_seq": 3, "after_seq": 3}
            await api.create_run()
            frame = await stream.next()
            assert frame.data["seq"] == 4
        await api.create_run()
        async with open_stream(api, "/v1/feed?after=now", headers={"Last-Event-ID": frame.last_id}) as stream:
            assert seqs_of(await stream.take(2)) == [5]


async def test_a_feed_from_now_says_which_now_it_was(store: RunningStore) -> None:
    """A browser that is cut before the first change asks for "now" again: its last id keeps what came between."""
    async with run_gateway(store.url) as api:
        for known in (0, 1):
            async with open_stream(api, "/v1/feed?after=now") as stream:
                opened = await stream.next()
                assert opened.data["after_seq"] == known
            await api.create_run()
            async with open_stream(api, "/v1/feed?after=now", headers={"Last-Event-ID": opened.last_id}) as stream:
                assert seqs_of(await stream.take(2)) == [known + 1]


async def test_a_feed_that_was_trimmed_says_so(store: RunningStore) -> None:
    """It keeps so many changes; whoever was away for longer is told, and goes on at the first that is left."""
    async with run_gateway(store.url, feed_entries=10) as api:
        async with open_stream(api, "/v1/feed") as stream:
            await stream.next()
            await api.run_in("completed")
            early = await stream.take(3)
        for _ in range(5):
            await api.run_in("completed")
        for headers, requested in (({"Last-Event-ID": early[-1].last_id}, 4), ({}, 1)):
            async with open_stream(api, "/v1/feed", headers=headers) as stream:
                frames = await stream.take(12)
                assert names_of(frames)[:2] == ["stream.open", "stream.gap"]
                assert frames[0].data == {"first_seq": 9, "head_seq": 18, "after_seq": 8}
                assert frames[1].data == {"requested": requested, "first_seq": 9}
                assert seqs_of(frames) == list(range(9, 19))


async def test_a_key_that_is_bound_to_agents_sees_theirs(store: RunningStore) -> None:
    """Filtered, never renumbered, live and replayed."""
    async with run_gateway(store.url) as api:
        bound, _ = await new_key(api, agents=["mine", "ours"])
        for agent_id in ("mine", "theirs", "ours"):
            await api.create_run(agent_id=agent_id)
        async with open_stream(api, "/v1/feed", key=bound) as stream:
            frames = await stream.take(3)
            assert [f.data["data"]["agent_id"] for f in frames[1:]] == ["mine", "ours"]
            assert seqs_of(frames) == [1, 3]
            await api.create_run(agent_id="theirs")
            await api.create_run(agent_id="mine")
            assert (await stream.events(1))[0]["seq"] == 5


async def test_a_feed_is_of_one_tenant(store: RunningStore, api: RunningGateway) -> None:
    """What others do is not in it."""
    async with run_gateway(store.url) as mine, open_stream(mine, "/v1/feed") as stream:
        await stream.next()
        await api.run_in("completed")
        run = await mine.create_run()
        assert [event["run_id"] for event in await stream.events(1)] == [run["id"]]


async def test_who_may_not_follow_the_feed_is_refused(api: RunningGateway) -> None:
    """It takes a credential of the whole tenant that may read."""
    run = await api.run_in("completed")
    writer, _ = await new_key(api, scopes=["runs:write"])
    assert (await read_stream(api, "/v1/feed", key=None)).status == 401
    assert (await read_stream(api, "/v1/feed", key=writer)).status == 403
    for body in ({"runs": [run["id"]]}, {"thread_id": run["thread_id"]}):
        ticket = await new_ticket(api, **body)
        assert (await read_stream(api, f"/v1/feed?ticket={ticket}", key=None)).status == 403
    ticket = await new_ticket(api, tenant=True)
    async with open_stream(api, f"/v1/feed?ticket={ticket}", key=None) as stream:
        assert (await stream.next()).name == "stream.open"
    for query in ("after=x", "after_seq=x", "types=log", "snapshot=true", f"run={ULID()}"):
        assert (await read_stream(api, f"/v1/feed?{query}")).status == 400


async def test_a_drain_tells_the_place_in_the_feed(store: RunningStore) -> None:
    """`resume_after` is the last cursor, also when nothing was sent on this connection."""
    async with run_gateway(store.url) as api:
        await api.run_in("completed")
        async with open_stream(api, "/v1/feed") as stream:
            frames = await stream.take(4)
            async with open_stream(api, "/v1/feed", headers={"Last-Event-ID": frames[-1].last_id}) as idle:
                await idle.next()
                await api.gateway.close_streams(0)
                for each in (stream, idle):
                    (closed,) = await each.rest()
                    expected: dict[str, Any] = {"reason": "drain", "resume_after": frames[-1].last_id}
                    assert closed.data == expected
                    assert each.ended == "cut"
