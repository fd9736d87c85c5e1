"""Coming back with a cursor: exactly what is missing, or a frame that says why not; as a stream and as pages."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from gateway.domain.cursor import Cursor, parse
from gateway.store.log import LogName
from tests.dialects.native.streaming import Frame, frames_of, names_of, open_stream, read_stream, seqs_of
from tests.hub.logs import open_link
from tests.support.native import accepted
from tests.support.running import COMPLETE, LOG, RunningGateway, RunningStore, run_gateway, wait_until

pytestmark = pytest.mark.anyio

EVENTS = 12
STANDS = 5
"""A cursor in the middle."""


async def ended_run(api: RunningGateway) -> tuple[str, dict[int, str]]:
    """Return a run that has ended, and the cursor of each of its events."""
    run = await api.run_in("running")
    await api.append(run["id"], *[LOG] * (EVENTS - 5), COMPLETE)
    frames = await frames_of(api, f"/v1/runs/{run['id']}/stream")
    cursors = {frame.data["seq"]: frame.last_id for frame in frames if frame.name == "message"}
    assert list(cursors) == list(range(1, EVENTS + 1))
    return run["id"], cursors


async def purge(api: RunningGateway, run_id: str, through_seq: int) -> None:
    """Remove the beginning of a log."""
    accepted(await api.client.post(f"/v1/runs/{run_id}/purge", json={"through_seq": through_seq}))


async def resume(api: RunningGateway, run_id: str, cursor: str) -> list[Frame]:
    """Return what a reader gets that comes back with this cursor, by every way to say it."""
    path = f"/v1/runs/{run_id}/stream"
    by_header = await frames_of(api, path, headers={"Last-Event-ID": cursor})
    assert without_ids(await frames_of(api, f"{path}?after={cursor}")) == without_ids(by_header)
    if "-" not in cursor:
        assert without_ids(await frames_of(api, f"{path}?after_seq={cursor}")) == without_ids(by_header)
    return by_header


def without_ids(frames: list[Frame]) -> list[tuple[str, Any]]:
    """Return names and data."""
    return [(frame.name, frame.data) for frame in frames]


async def page(api: RunningGateway, run_id: str, **params: Any) -> dict[str, Any]:
    """Return a page of the log."""
    return accepted(await api.client.get(f"/v1/runs/{run_id}/events", params=params))


def expect(frames: list[Frame], *controls: str, first: int, open_after: int) -> None:
    """Check what a resumed reader was told, and from which event on it got everything."""
    assert names_of(frames)[: len(controls) + 1] == ["stream.open", *controls]
    assert frames[0].data["after_seq"] == open_after
    assert seqs_of(frames) == list(range(first, EVENTS + 1))
    assert names_of(frames)[-1] == "stream.end"


async def test_a_cursor_of_the_log_goes_on_after_it(api: RunningGateway) -> None:
    """With its tag, or as a bare number."""
    run_id, cursors = await ended_run(api)
    for seq in (1, STANDS, EVENTS - 1):
        for cursor in (cursors[seq], str(seq)):
            expect(await resume(api, run_id, cursor), first=seq + 1, open_after=seq)


async def test_zero_is_the_beginning(api: RunningGateway) -> None:
    """A reader that has nothing says so."""
    run_id, _ = await ended_run(api)
    expect(await resume(api, run_id, "0"), first=1, open_after=0)


async def test_a_cursor_with_another_tag_is_reset(api: RunningGateway) -> None:
    """Its event is not the log's: from the beginning, and what it has is void."""
    run_id, cursors = await ended_run(api)
    for seq in (1, STANDS, EVENTS):
        wrong = Cursor(seq, (parse(cursors[seq]).tag or 0) ^ 1).text
        frames = await resume(api, run_id, wrong)
        expect(frames, "stream.reset", first=1, open_after=0)
        assert frames[1].data == {"run_id": run_id, "reason": "log_changed", "valid_through": 0, "head_seq": EVENTS}


async def test_a_cursor_beyond_the_head_is_reset(api: RunningGateway) -> None:
    """The log has lost what the reader saw, or the reader is mistaken: it is told in both cases."""
    run_id, _ = await ended_run(api)
    for cursor in (str(EVENTS + 1), f"{EVENTS + 1}-1", f"{2**53}"):
        frames = await resume(api, run_id, cursor)
        expect(frames, "stream.reset", first=1, open_after=0)
        assert frames[1].data["reason"] == "ahead_of_log"


async def test_a_malformed_last_event_id_is_reset_in_the_stream(api: RunningGateway) -> None:
    """An EventSource would give up at a 400."""
    run_id, _ = await ended_run(api)
    for header in ("nonsense", "5-", "-5", "1,2", "5 - 1", "0-7", "9" * 400, "\u00e9"):
        frames = await frames_of(api, f"/v1/runs/{run_id}/stream", headers={"Last-Event-ID": header})
        expect(frames, "stream.reset", first=1, open_after=0)
        assert frames[1].data["reason"] == "bad_cursor"


async def test_the_header_has_the_last_word(api: RunningGateway) -> None:
    """`Last-Event-ID` before `after` before `after_seq`: a page that reconnects keeps its address."""
    run_id, cursors = await ended_run(api)
    path, three = f"/v1/runs/{run_id}/stream", {"Last-Event-ID": cursors[3]}
    expect(await frames_of(api, f"{path}?after={cursors[7]}", headers=three), first=4, open_after=3)
    expect(await frames_of(api, f"{path}?after_seq=7", headers=three), first=4, open_after=3)
    expect(await frames_of(api, f"{path}?after={cursors[7]}&after_seq=9"), first=8, open_after=7)
    expect(await frames_of(api, f"{path}?after_seq=9"), first=10, open_after=9)
    expect(await frames_of(api, f"{path}?after={cursors[7]}", headers={"Last-Event-ID": ""}), first=8, open_after=7)


async def test_what_was_trimmed_is_a_gap(api: RunningGateway) -> None:
    """A reader whose next event is gone is told what it asked for, and where the log begins."""
    run_id, cursors = await ended_run(api)
    await purge(api, run_id, STANDS)
    for cursor in ("0", "1", cursors[2], cursors[4], "4-1"):
        frames = await resume(api, run_id, cursor)
        seq = parse(cursor).seq
        expect(frames, "stream.gap", first=STANDS + 1, open_after=STANDS)
        assert frames[1].data == {"run_id": run_id, "requested": seq + 1, "first_seq": STANDS + 1}
        assert frames[0].data["first_seq"] == STANDS + 1


async def test_a_cursor_just_before_the_log_goes_on(api: RunningGateway) -> None:
    """It lacks nothing; that its own event was trimmed does not matter."""
    run_id, cursors = await ended_run(api)
    await purge(api, run_id, STANDS)
    expect(await resume(api, run_id, cursors[STANDS]), first=STANDS + 1, open_after=STANDS)
    expect(await resume(api, run_id, cursors[8]), first=9, open_after=8)


async def test_a_reset_of_a_trimmed_log_is_a_gap_as_well(api: RunningGateway) -> None:
    """First that nothing holds, then that the beginning is gone."""
    run_id, _ = await ended_run(api)
    await purge(api, run_id, STANDS)
    frames = await resume(api, run_id, "99")
    expect(frames, "stream.reset", "stream.gap", first=STANDS + 1, open_after=STANDS)
    assert frames[2].data["requested"] == 1


async def test_a_log_that_was_trimmed_to_nothing_still_knows_its_head(api: RunningGateway) -> None:
    """The record vouches for a cursor at the head, and sends another away."""
    run_id, cursors = await ended_run(api)
    await purge(api, run_id, EVENTS)
    path = f"/v1/runs/{run_id}/stream"
    assert (await read_stream(api, path, headers={"Last-Event-ID": cursors[EVENTS]})).status == 204
    assert (await read_stream(api, f"{path}?after_seq={EVENTS}")).status == 204
    frames = await frames_of(api, path, headers={"Last-Event-ID": cursors[3]})
    assert names_of(frames) == ["stream.open", "stream.gap", "stream.end"]
    wrong = Cursor(EVENTS, (parse(cursors[EVENTS]).tag or 0) ^ 1).text
    frames = await frames_of(api, path, headers={"Last-Event-ID": wrong})
    assert names_of(frames) == ["stream.open", "stream.reset", "stream.gap", "stream.end"]


@pytest.mark.parametrize(
    ("query", "trimmed"),
    [("", EVENTS), ("?after=99", EVENTS), ("?types=custom.none&after=99", 0), ("?types=custom.none&after=3-1", 0)],
)
async def test_who_is_given_no_event_of_an_ended_run_comes_back_once(
    api: RunningGateway, query: str, trimmed: int
) -> None:
    """A browser reconnects after a clean end; the end itself tells it the place from which nothing follows."""
    run_id, cursors = await ended_run(api)
    if trimmed:
        await purge(api, run_id, trimmed)
    for path in (f"/v1/runs/{run_id}/stream{query}", f"/v1/stream{query or '?'}&run={run_id}"):
        frames = await frames_of(api, path)
        assert seqs_of(frames) == []
        assert (frames[-1].name, frames[-1].last_id) == ("stream.end", cursors[EVENTS])
        assert (await read_stream(api, path, headers={"Last-Event-ID": frames[-1].last_id})).status == 204


async def test_pages_follow_the_same_rules(api: RunningGateway) -> None:
    """What is a frame in a stream is a member of the page."""
    run_id, cursors = await ended_run(api)
    whole = await page(api, run_id, limit=1000)
    assert [event["seq"] for event in whole["data"]] == list(range(1, EVENTS + 1))
    assert whole.keys() == {"data", "next_after", "next_after_seq", "head_seq", "has_more"}
    assert (whole["next_after"], whole["next_after_seq"]) == (cursors[EVENTS], EVENTS)
    for start in ({"after": cursors[4]}, {"after": "4"}, {"after_seq": 4}, {"after": cursors[4], "after_seq": 9}):
        found = await page(api, run_id, limit=3, **start)
        assert [event["seq"] for event in found["data"]] == [5, 6, 7]
        assert found["has_more"]
        assert found["next_after"] == cursors[7]
        assert "gap" not in found
    for cursor, reason in (("4-1", "log_changed"), ("99", "ahead_of_log")):
        found = await page(api, run_id, after=cursor, limit=2)
        assert found["reset"] == {"reason": reason, "valid_through": 0}
        assert [event["seq"] for event in found["data"]] == [1, 2]
    await purge(api, run_id, STANDS)
    found = await page(api, run_id, after=cursors[2], limit=2)
    assert found["gap"] == {"requested": 3, "first_seq": STANDS + 1}
    assert [event["seq"] for event in found["data"]] == [STANDS + 1, STANDS + 2]
    found = await page(api, run_id, after=cursors[EVENTS])
    assert (found["data"], found["next_after"], found["has_more"]) == ([], cursors[EVENTS], False)
    found = await page(api, run_id, after="99", limit=1)
    assert found["reset"]["valid_through"] == 0
    assert found["gap"] == {"requested": 1, "first_seq": STANDS + 1}


async def test_pages_lead_through_the_whole_log(api: RunningGateway) -> None:
    """Each page says where the next begins, filtered or not."""
    run_id, _ = await ended_run(api)
    for types, wanted in ((None, EVENTS), ("log", EVENTS - 4), ("run.*", 4)):
        for limit in (1, 5, 1000):
            seqs: list[int] = []
            after, more = "0", True
            while more:
                params = {"after": after, "limit": limit, **({} if types is None else {"types": types})}
                found = await page(api, run_id, **params)
                seqs += [event["seq"] for event in found["data"]]
                after, more = found["next_after"], found["has_more"]
            assert len(seqs) == len(set(seqs)) == wanted
            assert seqs == sorted(seqs)


async def test_pages_refuse_what_is_malformed(api: RunningGateway) -> None:
    """A cursor, a number, a limit, a filter; and pages of what is not there."""
    run_id, _ = await ended_run(api)
    client: httpx.AsyncClient = api.client
    for query in ("after=x", "after_seq=-1", "limit=0", "limit=1001", "limit=x", "types=A", "snapshot=true", "x=1"):
        assert (await client.get(f"/v1/runs/{run_id}/events?{query}")).status_code == 400
    assert (await client.get("/v1/runs/01ARZ3NDEKTSV4RRFFQ69G5FAV/events")).status_code == 404


async def test_pages_of_large_events_are_bounded_and_complete(store: RunningStore) -> None:
    """A page may be short; it says where to go on, and nothing is left out."""
    async with run_gateway(store.url) as api:
        run = await api.run_in("running")
        big = ("log", {"level": "info", "message": "x" * 250_000})
        for _ in range(10):
            accepted(await api.append(run["id"], big, big, big))
        seqs, sizes, after, more = [], [], "0", True
        while more:
            answer = await api.client.get(f"/v1/runs/{run['id']}/events", params={"after": after, "limit": 1000})
            sizes.append(len(answer.content))
            found = answer.json()
            seqs += [event["seq"] for event in found["data"]]
            after, more = found["next_after"], found["has_more"]
        assert seqs == list(range(1, 35))
        assert max(sizes) < 5 * 1024 * 1024


async def test_a_store_that_was_restored_to_an_older_state_is_told(store: RunningStore) -> None:
    """Connected readers, returning readers and pages: none skips silently, all end with the new log."""
    async with run_gateway(store.url, sweep_s=0.2) as api, open_link(store.url) as link:
        run = await api.run_in("running")
        path, name = f"/v1/runs/{run['id']}/stream", LogName.of_run(run["id"])
        async with open_stream(api, path) as stream:
            await api.append(run["id"], LOG, LOG)
            frames = await stream.take(7)
            dumps = [await link.call("DUMP", key) for key in (name.record, name.stream)]
            await api.append(run["id"], LOG, LOG, LOG)
            frames += await stream.take(3)
            assert seqs_of(frames) == list(range(1, 10))
            for key, dump in zip((name.record, name.stream), dumps, strict=True):
                await link.call("RESTORE", key, 0, dump, "REPLACE")
            found = await page(api, run["id"], after=frames[-1].last_id)
            assert found["reset"]["reason"] == "ahead_of_log"
            await api.append(run["id"], LOG, LOG, COMPLETE)
            rest = await stream.rest()
            assert names_of(rest) == ["stream.reset", "message", "message", "message", "stream.end"]
            assert rest[0].data["reason"] == "rolled_back"
            assert rest[0].data["valid_through"] == 6
            assert seqs_of(rest) == [7, 8, 9]
        for cursor in (frames[7].last_id, frames[-1].last_id):
            returned = await frames_of(api, path, headers={"Last-Event-ID": cursor})
            assert returned[1].name == "stream.reset"
            assert seqs_of(returned) == list(range(1, 10))
        returned = await frames_of(api, path, headers={"Last-Event-ID": frames[6].last_id})
        assert seqs_of(returned) == [7, 8, 9]
        assert [f.last_id for f in returned[1:-1]] == [f.last_id for f in rest[1:-1]]


async def test_a_rollback_that_nothing_follows_is_found_by_the_sweep(store: RunningStore) -> None:
    """Nobody writes and nobody tells; a connected reader learns of it all the same."""
    async with run_gateway(store.url, sweep_s=0.1) as api, open_link(store.url) as link:
        run = await api.run_in("running")
        name = LogName.of_run(run["id"])
        dumps = [await link.call("DUMP", key) for key in (name.record, name.stream)]
        async with open_stream(api, f"/v1/runs/{run['id']}/stream") as stream:
            await api.append(run["id"], LOG)
            await stream.take(6)
            for key, dump in zip((name.record, name.stream), dumps, strict=True):
                await link.call("RESTORE", key, 0, dump, "REPLACE")
            told = await stream.next()
            assert (told.name, told.data["valid_through"], told.data["head_seq"]) == ("stream.reset", 4, 4)


async def test_a_reader_that_is_cut_again_and_again_reads_the_log_once(api: RunningGateway) -> None:
    """Cut after any number of frames, it comes back with its last id until the end."""
    run = await api.run_in("running")
    seen: list[int] = []
    last_id, cuts = "", 0
    for _ in range(30):
        headers = {"Last-Event-ID": last_id} if last_id else {}
        async with open_stream(api, f"/v1/runs/{run['id']}/stream", headers=headers) as stream:
            await stream.next()
            await api.append(run["id"], LOG, LOG)
            for _ in range(1 + cuts % 3):
                frame = await stream.next()
                seen.append(frame.data["seq"])
                last_id = frame.last_id
            cuts += 1
    await api.append(run["id"], COMPLETE)
    rest = await frames_of(api, f"/v1/runs/{run['id']}/stream", headers={"Last-Event-ID": last_id})
    assert seen + seqs_of(rest) == list(range(1, 66))
    await wait_until(lambda: not api.gateway.hub.outlets)
