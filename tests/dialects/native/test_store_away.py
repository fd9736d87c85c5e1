"""The store goes away in mid-stream: readers stay and catch up, writers are told, new readers are held."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.dialects.native.streaming import Stream, open_stream, read_stream, send_request, seqs_of
from tests.support.native import get_log, refused
from tests.support.running import COMPLETE, LOG, RunningGateway, RunningStore, run_gateway, wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture
def mortal() -> Iterator[RunningStore]:
    """A store of the test's own, to be killed."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        store = RunningStore(Path(folder))
        store.start()
        yield store
        store.stop()


@pytest.fixture
async def api(mortal: RunningStore, anyio_backend: object) -> AsyncIterator[RunningGateway]:
    """A gateway that gives signs of life often, and patience to whoever comes while the store is away."""
    async with run_gateway(mortal.url, keepalive_s=0.1, store_hold_s=10) as running:
        yield running


async def is_back(api: RunningGateway) -> bool:
    """Whether the gateway has its store again."""
    return (await api.client.get("/readyz")).status_code == 200


async def restart(api: RunningGateway, mortal: RunningStore) -> None:
    """Bring the store back, and wait until the gateway has noticed."""
    await asyncio.to_thread(mortal.start)
    await wait_until(lambda: is_back(api))


async def test_readers_stay_connected_and_catch_up(api: RunningGateway, mortal: RunningStore) -> None:
    """Of a run, of several, of a thread and of the feed: signs of life meanwhile, then everything, once."""
    run = await api.create_run(thread_id="t")
    await api.append(run["id"], LOG)
    paths = {
        "run": f"/v1/runs/{run['id']}/stream",
        "many": f"/v1/stream?run={run['id']}",
        "thread": "/v1/threads/t/stream",
        "feed": "/v1/feed",
    }
    streams: dict[str, Stream] = {}
    async with (
        open_stream(api, paths["run"]) as streams["run"],
        open_stream(api, paths["many"]) as streams["many"],
        open_stream(api, paths["thread"]) as streams["thread"],
        open_stream(api, paths["feed"]) as streams["feed"],
    ):
        for name, count in (("run", 5), ("many", 5), ("thread", 6), ("feed", 3)):
            await streams[name].take(count)
        for round_number in range(2):
            mortal.kill()
            for stream in streams.values():
                pings = stream.body.count(b": ping\n")
                while stream.body.count(b": ping\n") < pings + 3:
                    await stream.read_more()
                assert stream.ended is None
            await restart(api, mortal)
            assert (await api.append(run["id"], LOG, LOG)).status_code == 200
            wanted = [5 + 2 * round_number, 6 + 2 * round_number]
            assert [e["seq"] for e in await streams["run"].events(2)] == wanted
            assert [e["event"]["seq"] for e in await streams["many"].events(2)] == wanted
            assert [e["event"]["seq"] for e in await streams["thread"].events(2)] == wanted
        other = await api.create_run(thread_id="t")
        assert (await streams["thread"].next()).data["run_id"] == other["id"]
        assert (await streams["feed"].events(1))[0]["run_id"] == other["id"]
        await api.append(run["id"], COMPLETE)
        for name in ("run", "many"):
            assert len(await streams[name].rest()) == 2
            assert streams[name].ended == "clean"


async def test_what_was_written_while_nobody_could_tell_is_delivered(api: RunningGateway, mortal: RunningStore) -> None:
    """Another process reaches the store first: its events come when this one has found it."""
    run = await api.run_in("running")
    async with (
        run_gateway(mortal.url, tenant=api.tenant) as other,
        open_stream(api, f"/v1/runs/{run['id']}/stream") as stream,
    ):
        await stream.take(5)
        mortal.kill()
        await asyncio.to_thread(mortal.start)
        await wait_until(lambda: is_back(other))
        for _ in range(20):
            await other.append(run["id"], LOG)
        assert [event["seq"] for event in await stream.events(20)] == list(range(5, 25))


async def come_back(mortal: RunningStore, *, after_s: float) -> None:
    """Start the store after a while."""
    await asyncio.sleep(after_s)
    await asyncio.to_thread(mortal.start)


async def test_a_long_thread_is_opened_to_its_end_over_an_outage(api: RunningGateway, mortal: RunningStore) -> None:
    """Runs that could not be opened are opened when the store is back, on the same connection."""
    runs = []
    for _ in range(12):
        runs += await asyncio.gather(*(api.create_run(thread_id="long") for _ in range(10)))
    await asyncio.gather(*(api.append(run["id"], LOG, COMPLETE) for run in runs))
    seqs: dict[str, list[int]] = {run["id"]: [] for run in runs}
    ended = 0
    async with open_stream(api, "/v1/threads/long/stream", ahead_bytes=1 << 12) as stream:
        while ended < len(runs):
            frame = await stream.next()
            if frame.name == "message":
                seqs[frame.data["run_id"]].append(frame.data["event"]["seq"])
            ended += frame.name == "stream.end"
            if ended == 3 and frame.name == "stream.end":
                mortal.kill()
                # Longer than the gateway hopes for the store's immediate return.
                coming = asyncio.create_task(come_back(mortal, after_s=1.5))
        assert coming.done()
        assert stream.ended is None
    assert set(map(tuple, seqs.values())) == {(1, 2, 3, 4, 5)}


async def test_a_reader_that_lags_waits_for_the_store(mortal: RunningStore) -> None:
    """It was reading the log when the store went away; it goes on where it was, kept alive meanwhile."""
    async with run_gateway(mortal.url, keepalive_s=0.1, ring_entries=16) as api:
        run = await api.run_in("running")
        text = ("log", {"level": "info", "message": "x" * 5000})
        for _ in range(60):
            await api.append(run["id"], *[text] * 40)
        async with open_stream(api, f"/v1/runs/{run['id']}/stream") as stream:
            await stream.take(300)
            mortal.kill()
            await stream.read_until(b": ping\n: ping\n")
            await restart(api, mortal)
            await api.append(run["id"], COMPLETE)
            await stream.rest()
            assert seqs_of(stream.parser.frames) == list(range(1, 2406))
            assert stream.ended == "clean"


async def test_a_new_stream_is_held_and_then_served(api: RunningGateway, mortal: RunningStore) -> None:
    """An EventSource would give up at a 503: nothing is answered until the store is there."""
    run = await api.run_in("running")
    mortal.kill()
    paths = [
        f"/v1/runs/{run['id']}/stream",
        f"/v1/runs/{run['id']}/stream?snapshot=true",
        f"/v1/stream?run={run['id']}",
        f"/v1/threads/{run['thread_id']}/stream",
        "/v1/feed",
    ]
    streams = [Stream(*await asyncio.open_connection("127.0.0.1", api.port)) for _ in paths]
    async with asyncio.TaskGroup() as tasks:
        waiting = [
            tasks.create_task(send_request(stream, api, path)) for stream, path in zip(streams, paths, strict=True)
        ]
        done, _ = await asyncio.wait(waiting, timeout=0.5)
        assert not done
        await asyncio.to_thread(mortal.start)
    for stream in streams:
        assert stream.status == 200
        assert (await stream.next()).name == "stream.open"
        stream.writer.transport.abort()


async def test_who_is_wrong_is_told_at_once(api: RunningGateway, mortal: RunningStore) -> None:
    """A malformed parameter is 400 with or without a store."""
    run = await api.run_in("running")
    mortal.kill()
    assert (await read_stream(api, f"/v1/runs/{run['id']}/stream?after=x")).status == 400
    assert (await read_stream(api, f"/v1/runs/{run['id']}/stream", key=None)).status == 401


async def test_a_stream_that_was_held_too_long_is_dropped_without_a_byte(mortal: RunningStore) -> None:
    """A browser comes back after that."""
    async with run_gateway(mortal.url, store_hold_s=0.5) as api:
        run = await api.run_in("running")
        mortal.kill()
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        head = f"GET /v1/runs/{run['id']}/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.key}\r\n\r\n"
        began_s = time.monotonic()
        writer.write(head.encode())
        async with asyncio.timeout(8):
            assert await reader.read() == b""
        assert time.monotonic() - began_s >= 0.5
        writer.close()


async def test_pages_and_writes_are_refused_with_what_is_known(api: RunningGateway, mortal: RunningStore) -> None:
    """503, when to come again, and whether something may have been written."""
    run = await api.run_in("running")
    mortal.kill()
    answers = await asyncio.gather(
        api.append(run["id"], LOG),
        api.append(run["id"], LOG, writer="w", writer_seq=1),
        api.client.post(f"/v1/runs/{run['id']}/cancel"),
        api.client.post("/v1/runs", json={"agent_id": "a", "mode": "direct"}),
        api.client.get(f"/v1/runs/{run['id']}/events"),
        api.client.get(f"/v1/runs/{run['id']}"),
        api.client.get("/v1/runs"),
    )
    for answer in answers:
        problem = refused(answer, 503, "store_unavailable")
        assert problem["outcome"] in ("not_written", "unknown")
        assert int(answer.headers["retry-after"]) >= 1


async def test_writes_are_safe_to_repeat(api: RunningGateway, mortal: RunningStore) -> None:
    """Under a writer's number or an idempotency key, whatever the store's death did to the first attempt."""
    run = await api.run_in("running")
    stored: list[int] = []
    dead = asyncio.Event()

    async def persist(call: Any) -> httpx.Response:
        while True:
            answer: httpx.Response = await call()
            if answer.status_code != 503:
                return answer
            dead.set()
            await asyncio.sleep(0.02)

    async def write(name: str, count: int) -> None:
        for number in range(1, count + 1):
            event = ("log", {"level": "info", "message": f"{name}{number}"})
            answer = await persist(lambda e=event, n=number: api.append(run["id"], e, writer=name, writer_seq=n))
            assert answer.status_code == 200, answer.text
            stored.append(answer.json()["last_seq"])

    async def create(number: int) -> dict[str, Any]:
        headers, body = {"Idempotency-Key": f"k{number}"}, {"agent_id": "a", "mode": "direct", "tags": {"n": "x"}}
        answer = await persist(lambda: api.client.post("/v1/runs", json=body, headers=headers))
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async with asyncio.TaskGroup() as tasks:
        writing = [tasks.create_task(write(name, 150)) for name in "abcd"]
        creating = [tasks.create_task(create(number)) for number in range(40)]
        for _ in range(2):
            await asyncio.sleep(0.05)
            dead.clear()
            mortal.kill()
            if not all(task.done() for task in writing):
                await asyncio.wait_for(dead.wait(), 10)
            await asyncio.to_thread(mortal.start)
    log = await get_log(api, run["id"])
    for name in "abcd":
        mine = [e["data"]["message"] for e in log if e["type"] == "log" and e["data"]["message"].startswith(name)]
        assert mine == [f"{name}{number}" for number in range(1, 151)]
    assert len(set(stored)) == 600
    runs = (await api.client.get("/v1/runs", params={"tag": "n:x"})).json()["data"]
    assert sorted(found["id"] for found in runs) == sorted(task.result()["id"] for task in creating)
    assert len({found["id"] for found in runs}) == 40


async def test_a_streamed_append_says_which_line_was_not_stored(api: RunningGateway, mortal: RunningStore) -> None:
    """And goes on from there under its writer's number when the store is back."""
    run = await api.run_in("running")
    body = b"".join(b'{"type":"custom.x","data":%d}\n' % number for number in range(1, 6))
    path, headers = f"/v1/runs/{run['id']}/events?writer=w&writer_seq=1", {"Content-Type": "application/x-ndjson"}
    first = await api.client.post(path, content=body, headers=headers)
    assert len(first.text.splitlines()) == 5
    mortal.kill()
    refusal = await api.client.post(path, content=body, headers=headers)
    assert refusal.status_code == 503
    await restart(api, mortal)
    more = b"".join(b'{"type":"custom.x","data":%d}\n' % number for number in range(1, 8))
    again = await api.client.post(path, content=more, headers=headers)
    assert [b'"seq"' in line for line in again.content.splitlines()] == [False] * 5 + [True] * 2
    log = await get_log(api, run["id"])
    assert [event["data"] for event in log if event["type"] == "custom.x"] == list(range(1, 8))


async def test_readiness_tells_that_the_store_is_away(api: RunningGateway, mortal: RunningStore) -> None:
    """Red while it is, green again after."""
    assert await is_back(api)
    mortal.kill()
    await wait_until(lambda: _is_red(api))
    assert (await api.client.get("/healthz")).status_code == 200
    await restart(api, mortal)


async def _is_red(api: RunningGateway) -> bool:
    return (await api.client.get("/readyz")).status_code == 503
