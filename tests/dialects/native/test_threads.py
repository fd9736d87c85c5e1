"""A thread's stream: the runs it has and those it gets, each event once, wherever the connection breaks."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import pytest
from ulid import ULID

from gateway.dialects.native.thread_position import LISTED
from gateway.dialects.native.threads import CLOSING
from tests.dialects.native.streaming import (
    Frame,
    Stream,
    names_of,
    new_key,
    new_ticket,
    open_stream,
    read_stream,
)
from tests.support.running import COMPLETE, LOG, RunningGateway, RunningStore, run_gateway, wait_until

pytestmark = pytest.mark.anyio


class Follower:
    """Someone who follows a thread over any number of connections."""

    def __init__(self, api: RunningGateway, thread_id: str, query: str = "") -> None:
        self.api = api
        self.path = f"/v1/threads/{thread_id}/stream{query}"
        self.seqs: dict[str, list[int]] = defaultdict(list)
        self.ended: list[str] = []
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.last_id = ""

    def connect(self, **request: Any) -> Any:
        """Return a connection that goes on after the last id."""
        headers = {"Last-Event-ID": self.last_id} if self.last_id else {}
        return open_stream(self.api, self.path, headers=headers, **request)

    def take(self, frame: Frame) -> None:
        """Take one frame as a client would."""
        if frame.name == "message":
            self.seqs[frame.data["run_id"]].append(frame.data["event"]["seq"])
            self.last_id = frame.last_id
        elif frame.name == "stream.end":
            self.ended.append(frame.data["run_id"])
        elif frame.name in ("stream.reset", "stream.gap"):
            self.told.append((frame.name, frame.data))

    async def read_until(self, stream: Stream, done: Any) -> None:
        """Take frames until `done()`."""
        while not done():
            self.take(await stream.next())

    def has(self, run_id: str, head: int) -> bool:
        """Whether the last event that came of a run is its `head`."""
        return self.seqs[run_id][-1:] == [head]


def thread() -> str:
    """Return a thread that nobody else uses."""
    return str(ULID())


async def run_of(api: RunningGateway, thread_id: str, *events: Any) -> str:
    """Return a new run of a thread, with these events appended."""
    run = await api.create_run(thread_id=thread_id)
    if events:
        assert (await api.append(run["id"], *events)).status_code == 200
    run_id: str = run["id"]
    return run_id


async def test_a_thread_without_runs_is_waited_for(api: RunningGateway) -> None:
    """The stream opens at once, and the first run appears in it."""
    thread_id = thread()
    follower = Follower(api, thread_id)
    async with follower.connect() as stream:
        opened = await stream.next()
        assert (opened.name, opened.data) == ("stream.open", {"thread_id": thread_id, "runs": 0})
        run_id = await run_of(api, thread_id, LOG)
        await follower.read_until(stream, lambda: follower.has(run_id, 4))
        assert follower.seqs == {run_id: [1, 2, 3, 4]}


async def test_runs_that_are_there_and_runs_to_come(api: RunningGateway) -> None:
    """Ended, going on, created later, several at once; other threads' runs do not show."""
    thread_id = thread()
    ended, going_on = await run_of(api, thread_id, LOG, COMPLETE), await run_of(api, thread_id, LOG)
    stranger = await run_of(api, thread(), LOG)
    follower = Follower(api, thread_id)
    async with follower.connect() as stream:
        await follower.read_until(stream, lambda: follower.has(ended, 5) and follower.has(going_on, 4))
        later = await asyncio.gather(*(run_of(api, thread_id, LOG) for _ in range(5)))
        await api.append(going_on, LOG)
        await run_of(api, thread(), LOG, COMPLETE)
        await follower.read_until(stream, lambda: all(follower.has(run_id, 4) for run_id in later))
        await follower.read_until(stream, lambda: follower.has(going_on, 5))
        assert stream.ended is None
    assert stranger not in follower.seqs
    assert follower.seqs == {ended: [*range(1, 6)], going_on: [*range(1, 6)], **{r: [1, 2, 3, 4] for r in later}}
    assert follower.ended == [ended]


async def test_data_says_which_run_and_where(api: RunningGateway) -> None:
    """As on a stream of several runs."""
    thread_id = thread()
    run_id = await run_of(api, thread_id, LOG, COMPLETE)
    async with open_stream(api, f"/v1/threads/{thread_id}/stream") as stream:
        frames = await stream.take(8)
    assert names_of(frames) == ["stream.open", "stream.open", *["message"] * 5, "stream.end"]
    assert frames[1].data["run_id"] == frames[-1].data["run_id"] == run_id
    for frame in frames[2:-1]:
        assert frame.data.keys() == {"run_id", "cursor", "event"}
        assert frame.last_id == f"{run_id}:{frame.data['cursor']}"


async def test_a_run_that_is_created_and_written_to_at_once_comes_once(api: RunningGateway) -> None:
    """Several hints of a new run are one run."""
    thread_id = thread()
    follower = Follower(api, thread_id)
    async with follower.connect() as stream:
        await stream.next()
        runs = [await run_of(api, thread_id, LOG, ("run.waiting_for_input", {"prompt": "?"})) for _ in range(10)]
        await follower.read_until(stream, lambda: all(follower.has(run_id, 5) for run_id in runs))
        for run_id in runs:
            await api.append(run_id, LOG)
            await api.append(run_id, COMPLETE)
        await follower.read_until(stream, lambda: len(follower.ended) == len(runs))
        last = await run_of(api, thread_id, LOG)
        await follower.read_until(stream, lambda: follower.has(last, 4))
    assert all(follower.seqs[run_id] == [1, 2, 3, 4, 5, 6, 7, 8] for run_id in runs)
    assert sorted(follower.ended) == sorted(runs)


async def test_a_position_resumes_every_run(api: RunningGateway) -> None:
    """Runs that were seen go on, the one in between begins, and what ended is not told again."""
    thread_id = thread()
    done, going_on = await run_of(api, thread_id, LOG, COMPLETE), await run_of(api, thread_id, LOG)
    follower = Follower(api, thread_id)
    async with follower.connect() as stream:
        await follower.read_until(stream, lambda: follower.has(going_on, 4) and follower.ended == [done])
    await api.append(going_on, LOG, LOG)
    unseen = await run_of(api, thread_id, LOG, COMPLETE)
    async with follower.connect() as stream:
        await follower.read_until(stream, lambda: follower.has(unseen, 5) and follower.has(going_on, 6))
        await api.append(going_on, COMPLETE)
        await follower.read_until(stream, lambda: going_on in follower.ended)
        last = await run_of(api, thread_id)
        await follower.read_until(stream, lambda: follower.has(last, 2))
    assert follower.seqs == {done: [*range(1, 6)], going_on: [*range(1, 8)], unseen: [*range(1, 6)], last: [1, 2]}
    assert sorted(follower.ended) == sorted([done, unseen, going_on])
    assert follower.told == []
    async with open_stream(api, f"{follower.path}?after={follower.last_id}") as stream:
        opened = await stream.next()
        assert opened.data["runs"] == 1


async def test_every_cut_is_survived(store: RunningStore) -> None:
    """Runs come, are written to and end, while the reader is cut after any number of frames."""
    async with run_gateway(store.url, ring_entries=16, chunk_bytes=1024) as api:
        thread_id = thread()
        follower = Follower(api, thread_id)
        runs: list[str] = []

        async def write() -> None:
            for number in range(30):
                runs.append(await run_of(api, thread_id, LOG))
                for run_id in runs[-4:]:
                    await api.append(run_id, *[LOG] * (number % 5 + 1))
                if number >= 4:
                    await api.append(runs[number - 4], COMPLETE)
            for run_id in runs[-4:]:
                await api.append(run_id, COMPLETE)

        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(write())
            for frames in [3, 5, 8, 13, 21, 34] * 6:
                async with follower.connect() as stream:
                    for _ in range(frames):
                        if writing.done():
                            break
                        follower.take(await stream.next())
        heads = {r: (await api.client.get(f"/v1/runs/{r}")).json()["head_seq"] for r in runs}
        async with follower.connect() as stream:
            await follower.read_until(stream, lambda: all(follower.has(r, head) for r, head in heads.items()))
        assert follower.seqs == {run_id: list(range(1, head + 1)) for run_id, head in heads.items()}
        assert follower.told == []


async def test_a_restarted_run_goes_on_in_the_thread(api: RunningGateway) -> None:
    """Connected or not: after its end it is followed again from where it was."""
    thread_id = thread()
    run_id = await run_of(api, thread_id, LOG, COMPLETE)
    follower = Follower(api, thread_id)
    async with follower.connect() as stream:
        await follower.read_until(stream, lambda: follower.ended == [run_id])
        assert (await api.client.post(f"/v1/runs/{run_id}/restart")).status_code == 200
        head = (await api.append(run_id, LOG, COMPLETE, attempt=2)).json()["last_seq"]
        await follower.read_until(stream, lambda: follower.ended == [run_id, run_id])
    assert (await api.client.post(f"/v1/runs/{run_id}/restart")).status_code == 200
    last = (await api.append(run_id, LOG, attempt=3)).json()["last_seq"]
    async with follower.connect() as stream:
        await follower.read_until(stream, lambda: follower.has(run_id, last))
    assert last > head
    assert follower.seqs == {run_id: list(range(1, last + 1))}
    assert follower.told == []


async def finished_runs(api: RunningGateway, thread_id: str, count: int, event: Any = LOG) -> list[str]:
    """Return runs of a thread that have ended, in the order of their ids."""
    made = [
        await asyncio.gather(*(run_of(api, thread_id, event, COMPLETE) for _ in range(10))) for _ in range(count // 10)
    ]
    return sorted(run_id for some in made for run_id in some)


async def test_a_position_stays_short_however_many_runs_have_ended(api: RunningGateway) -> None:
    """The oldest ended runs are summed up, one that goes on among them notwithstanding; nothing comes twice."""
    thread_id = thread()
    oldest = await run_of(api, thread_id, LOG)
    runs = await finished_runs(api, thread_id, LISTED + 32)
    follower = Follower(api, thread_id)
    async with follower.connect() as stream:
        await follower.read_until(stream, lambda: len(follower.ended) == len(runs))
        await api.append(oldest, LOG)
        await follower.read_until(stream, lambda: follower.has(oldest, 5))
    assert len(follower.last_id.split(",")) == LISTED + 2
    assert all(follower.seqs[run_id] == [1, 2, 3, 4, 5] for run_id in runs)
    new = await run_of(api, thread_id, LOG)
    async with follower.connect() as stream:
        assert (await stream.next()).data["runs"] == 2
        await follower.read_until(stream, lambda: follower.has(new, 4))
    assert all(follower.seqs[run_id] == [1, 2, 3, 4, 5] for run_id in [*runs, oldest])


async def test_no_id_names_more_than_what_matters(store: RunningStore) -> None:
    """Also on the way of a slow reader through a long thread: each event carries its id."""
    async with run_gateway(store.url) as api:
        thread_id, large = thread(), ("log", {"level": "info", "message": "x" * 100_000})
        await finished_runs(api, thread_id, LISTED + 32, large)
        async with open_stream(api, f"/v1/threads/{thread_id}/stream", ahead_bytes=1 << 16) as stream:
            (outlet,) = api.gateway.hub.outlets
            await wait_until(lambda: outlet.busy and len(outlet.readers) == CLOSING)
            ended = 0
            while ended < LISTED + 32:
                frame = await stream.next()
                ended += frame.name == "stream.end"
                assert len(frame.last_id.split(",")) <= 1 + LISTED + CLOSING
                assert len(outlet.readers) <= CLOSING


async def test_a_run_that_was_summed_up_and_went_on_is_told_anew(api: RunningGateway) -> None:
    """Its place is forgotten: a reset, then all of it; whether it still goes on or has ended again."""
    thread_id = thread()
    runs = await finished_runs(api, thread_id, LISTED + 12)
    follower = Follower(api, thread_id)
    async with follower.connect() as stream:
        await follower.read_until(stream, lambda: len(follower.ended) == len(runs))
        await run_of(api, thread_id, LOG)
        await follower.read_until(stream, lambda: follower.last_id.startswith("~"))
    first, second = runs[0], runs[1]
    for run_id in (first, second):
        assert (await api.client.post(f"/v1/runs/{run_id}/restart")).status_code == 200
    heads = {first: (await api.append(first, LOG, attempt=2)).json()["last_seq"]}
    heads[second] = (await api.append(second, LOG, COMPLETE, attempt=2)).json()["last_seq"]
    follower.seqs.clear()
    async with follower.connect() as stream:
        await follower.read_until(stream, lambda: all(follower.has(r, head) for r, head in heads.items()))
    told = {facts["run_id"]: (name, facts["reason"], facts["valid_through"]) for name, facts in follower.told}
    assert told == dict.fromkeys((first, second), ("stream.reset", "run_restarted", 0))
    assert {r: follower.seqs[r] for r in heads} == {r: list(range(1, head + 1)) for r, head in heads.items()}


async def test_a_purged_run_is_simply_gone(api: RunningGateway) -> None:
    """A position that names it is as good as before."""
    thread_id = thread()
    gone, kept = await run_of(api, thread_id, LOG, COMPLETE), await run_of(api, thread_id, LOG)
    follower = Follower(api, thread_id)
    async with follower.connect() as stream:
        await follower.read_until(stream, lambda: follower.has(kept, 4) and follower.ended == [gone])
    assert (await api.client.post(f"/v1/runs/{gone}/purge")).status_code == 200
    async with follower.connect() as stream:
        await stream.next()
        await api.append(kept, LOG)
        await follower.read_until(stream, lambda: follower.has(kept, 5))
    assert follower.told == []


async def test_a_run_whose_log_was_removed_is_told_as_a_gap(api: RunningGateway) -> None:
    """What is missing of it is said, and that it has ended."""
    thread_id = thread()
    expired, kept = await run_of(api, thread_id, LOG, COMPLETE), await run_of(api, thread_id, LOG)
    answer = await api.client.post(f"/v1/runs/{expired}/purge", json={"keep_record": True})
    assert answer.status_code == 200
    follower = Follower(api, thread_id)
    async with follower.connect() as stream:
        await follower.read_until(stream, lambda: follower.has(kept, 4) and expired in follower.ended)
    assert follower.told == [("stream.gap", {"run_id": expired, "requested": 1, "first_seq": 6})]


async def test_a_filter_applies_to_every_run(api: RunningGateway) -> None:
    """Runs of which nothing passes are still opened and ended."""
    thread_id = thread()
    first, second = await run_of(api, thread_id, LOG, COMPLETE), await run_of(api, thread_id, LOG)
    follower = Follower(api, thread_id, "?types=log")
    async with follower.connect() as stream:
        await follower.read_until(stream, lambda: follower.has(second, 4) and follower.ended == [first])
    await api.append(second, COMPLETE)
    later = await run_of(api, thread_id, LOG)
    async with follower.connect() as stream:
        await follower.read_until(stream, lambda: follower.has(later, 4))
    assert follower.seqs == {first: [4], second: [4], later: [4]}


async def test_a_malformed_position_is_told_or_refused(api: RunningGateway) -> None:
    """In the header it is a reset of everything, in the address a 400."""
    thread_id = thread()
    run_id = await run_of(api, thread_id, LOG)
    for header in ("x", f"{run_id}:", f"{run_id}", "x:1", "~x@1", f"~{run_id}", f"{run_id}:1,,", "," * 5000):
        async with open_stream(api, f"/v1/threads/{thread_id}/stream", headers={"Last-Event-ID": header}) as stream:
            frames = await stream.take(7)
            assert names_of(frames)[:2] == ["stream.open", "stream.reset"]
            assert frames[1].data == {"thread_id": thread_id, "reason": "bad_cursor", "valid_through": 0}
            assert [f.data["event"]["seq"] for f in frames if f.name == "message"] == [1, 2, 3, 4]
    for query in ("after=x", f"after={run_id}:", "after_seq=1", "snapshot=true", "types=A", "x=1"):
        refusal = await read_stream(api, f"/v1/threads/{thread_id}/stream?{query}")
        assert (refusal.status, refusal.problem["code"]) == (400, "bad_request"), query
    refusal = await read_stream(api, f"/v1/threads/{'x' * 200}/stream")
    assert refusal.status == 400


async def test_a_thread_shows_what_its_reader_may_see(api: RunningGateway) -> None:
    """A ticket of the thread, a ticket of another or of runs, a key that is bound to agents."""
    thread_id = thread()
    mine = await run_of(api, thread_id, LOG)
    other = (await api.create_run(thread_id=thread_id, agent_id="other"))["id"]
    path = f"/v1/threads/{thread_id}/stream"
    bound, _ = await new_key(api, agents=["other"])
    async with open_stream(api, path, key=bound) as stream:
        frames = await stream.take(4)
        assert {f.data["run_id"] for f in frames[1:]} == {other}
        await run_of(api, thread_id, LOG)
        later = (await api.create_run(thread_id=thread_id, agent_id="other"))["id"]
        assert {f.data["run_id"] for f in await stream.take(3)} == {later}
    ticket = await new_ticket(api, thread_id=thread_id)
    async with open_stream(api, f"{path}?ticket={ticket}", key=None) as stream:
        frames = await stream.take(6)
        assert {mine} <= {f.data.get("run_id") for f in frames}
        new = await run_of(api, thread_id)
        while (await stream.next()).data.get("run_id") != new:
            pass
    for ticket in (await new_ticket(api, thread_id=thread()), await new_ticket(api, runs=[mine])):
        refusal = await read_stream(api, f"{path}?ticket={ticket}", key=None)
        assert refusal.status == 404


async def test_a_drain_tells_the_position(store: RunningStore) -> None:
    """`resume_after` is an id of the stream."""
    async with run_gateway(store.url) as api:
        thread_id = thread()
        await run_of(api, thread_id, LOG)
        async with open_stream(api, f"/v1/threads/{thread_id}/stream") as stream:
            frames = await stream.take(6)
            await api.gateway.close_streams(0)
            (closed,) = await stream.rest()
            assert closed.data == {"reason": "drain", "resume_after": frames[-1].last_id}
            assert stream.ended == "cut"


async def test_followers_leave_nothing_behind(store: RunningStore) -> None:
    """Neither readers nor listeners nor channels in use."""
    async with run_gateway(store.url) as api:
        thread_id = thread()
        await run_of(api, thread_id, LOG)
        await run_of(api, thread_id, LOG, COMPLETE)
        for _ in range(3):
            async with open_stream(api, f"/v1/threads/{thread_id}/stream") as stream:
                await stream.take(7)
        hub = api.gateway.hub
        await wait_until(lambda: not hub.outlets and not any(f.users for f in hub._followed.values()))
        assert not any(f.channel.listeners for f in hub._followed.values())
