"""Reading a run's log through whatever happens to the connection."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from gateway.client import (
    BadRequest,
    Client,
    ConnectionLost,
    Event,
    FeedItem,
    Gap,
    LogExpired,
    NotFound,
    ProtocolError,
    Reset,
    Run,
    Snapshot,
    Unauthenticated,
)
from tests.client.waits import SOON
from tests.support.proxy import Cut, Dooms, lay_proxy
from tests.support.running import RunningGateway

pytestmark = pytest.mark.anyio


def log(message: object) -> dict[str, object]:
    """Return a log event to append."""
    return {"type": "log", "data": {"level": "info", "message": str(message)}}


async def write(client: Client, run_id: str, *messages: object, end: bool = True) -> None:
    """Append a log event for each message, and end the run."""
    events = [log(message) for message in messages]
    if end:
        events.append({"type": "run.completed", "data": {"output": None}})
    await client.runs.append(run_id, events)


async def test_a_reader_gets_the_whole_log_and_its_end(client: Client, run: Run) -> None:
    """Events come live, in order, each with its cursor, and the loop ends with the run."""
    seen: list[Event] = []
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(write(client, run.id, "a", "b"))
        async for item in client.runs.events(run.id):
            assert isinstance(item, Event)
            seen.append(item)
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
    assert seen[-1].type == "run.completed"
    assert all(event.cursor.startswith(f"{event.seq}-") for event in seen)


async def test_a_reader_goes_on_after_its_cursor(client: Client, run: Run) -> None:
    """A cursor, a number and the end itself are places to start from."""
    await write(client, run.id, "a", "b")
    events = [item async for item in client.runs.events(run.id) if isinstance(item, Event)]
    third = events[2]
    assert [item async for item in client.runs.events(run.id, after=third.cursor)] == events[3:]
    assert [item async for item in client.runs.events(run.id, after=3)] == events[3:]
    assert [item async for item in client.runs.events(run.id, after=events[-1].cursor)] == []


async def test_a_filtered_reader_gets_only_its_types(client: Client, run: Run) -> None:
    """Filters leave the numbers as they are."""
    await write(client, run.id, "a", "b")
    items = [item async for item in client.runs.events(run.id, types=["log"])]
    assert [item.seq for item in items if isinstance(item, Event)] == [4, 5]


async def test_a_late_reader_may_begin_with_a_snapshot(client: Client, run: Run) -> None:
    """The state so far comes first, then only what is new."""
    await write(client, run.id, "a", end=False)
    async with aclosing(client.runs.events(run.id, snapshot=True)) as items:
        snapshot = await anext(items)
        assert isinstance(snapshot, Snapshot)
        await write(client, run.id, "b")
        rest = [item async for item in items]
    assert [item.seq for item in rest if isinstance(item, Event)] == [snapshot.as_of_seq + 1, snapshot.as_of_seq + 2]


async def test_a_reader_survives_every_cut(gateway: RunningGateway, client: Client, run: Run) -> None:
    """A connection that breaks again and again in the middle of frames costs no event and repeats none."""
    total = 3000
    seen: list[int] = []
    dooms = Dooms(7, cuts=30, most_bytes=30_000, most_s=5, black_holes=0)
    async with (
        asyncio.timeout(60),
        lay_proxy(gateway.port, choose=dooms) as proxy,
        Client(proxy.url, key=gateway.key, backoff=SOON) as reader,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(_write_many(client, run.id, total))
        async for item in reader.runs.events(run.id):
            assert isinstance(item, Event)
            seen.append(item.seq)
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) > total
    assert proxy.cuts.total() > 10


async def _write_many(client: Client, run_id: str, total: int) -> None:
    async with client.runs.writer(run_id) as writer:
        for number in range(total):
            await writer.append("log", {"level": "info", "message": str(number)})
        await writer.append("run.completed", {"output": None})


async def test_a_silent_connection_is_opened_again(gateway: RunningGateway, client: Client, run: Run) -> None:
    """A black hole is noticed, because a living gateway is never silent for long."""
    async with (
        asyncio.timeout(20),
        lay_proxy(gateway.port) as proxy,
        Client(proxy.url, key=gateway.key, backoff=SOON, silence_s=0.5) as reader,
        aclosing(reader.runs.events(run.id)) as items,
    ):
        seen = [await anext(items), await anext(items)]
        proxy.cut_all(Cut.BLACK_HOLE)
        await proxy.wait_cuts(1)
        await write(client, run.id, "a")
        seen += [item async for item in items]
    assert [item.seq for item in seen if isinstance(item, Event)] == list(range(1, 6))
    assert proxy.connections == 2


async def test_a_trimmed_log_is_told(client: Client, run: Run) -> None:
    """Where the log no longer begins at the beginning the reader gets a Gap, then what is left."""
    await write(client, run.id, "a", "b")
    await client.request("POST", f"/v1/runs/{run.id}/purge", body={"through_seq": 3})
    items = [item async for item in client.runs.events(run.id)]
    assert isinstance(items[0], Gap)
    assert items[0].first_seq == 4
    assert [item.seq for item in items[1:] if isinstance(item, Event)] == [4, 5, 6]
    paged = [item async for item in client.runs.log(run.id)]
    assert isinstance(paged[0], Gap)
    assert [item.seq for item in paged[1:] if isinstance(item, Event)] == [4, 5, 6]


async def test_a_cursor_that_disagrees_is_told(client: Client, run: Run) -> None:
    """A cursor of another log's making gets a Reset, then the events again."""
    await write(client, run.id, "a", "b")
    for stream in (client.runs.events(run.id, after="2-1"), client.runs.log(run.id, after="2-1")):
        items = [item async for item in stream]
        assert isinstance(items[0], Reset)
        assert [item.seq for item in items[1:] if isinstance(item, Event)] == [1, 2, 3, 4, 5, 6]


async def test_an_expired_log_is_told(client: Client, run: Run) -> None:
    """A log that is gone is an error, not an empty stream."""
    await write(client, run.id, "a")
    await client.request("POST", f"/v1/runs/{run.id}/purge", body={"keep_record": True})
    with pytest.raises(LogExpired):
        await anext(client.runs.events(run.id))


async def test_a_reader_that_may_not_is_told(gateway: RunningGateway, client: Client, run: Run) -> None:
    """An unknown run, a wrong key and a bad cursor end the loop with their error."""
    with pytest.raises(NotFound):
        await anext(client.runs.events("0" * 26))
    with pytest.raises(BadRequest):
        await anext(client.runs.events(run.id, after="x"))
    async with Client(gateway.url, key="gwk_wrong") as stranger:
        with pytest.raises(Unauthenticated):
            await anext(stranger.runs.events(run.id))


async def test_patience_ends(gateway: RunningGateway, run: Run) -> None:
    """A gateway that does not answer is given up after the time that was allowed."""
    async with lay_proxy(gateway.port) as proxy, Client(proxy.url, key=gateway.key, backoff=SOON) as client:
        proxy.refuse()
        with pytest.raises(ConnectionLost):
            await anext(client.runs.events(run.id, patience_s=0.3))


async def test_what_is_no_gateway_is_told() -> None:
    """An answer that is no event stream, or no JSON, is an error at once, not a reason to try again."""
    elsewhere = await asyncio.start_server(_serve_page, "127.0.0.1", 0)
    port = elsewhere.sockets[0].getsockname()[1]
    try:
        async with asyncio.timeout(10), Client(f"http://127.0.0.1:{port}") as client:
            with pytest.raises(ProtocolError):
                await anext(client.runs.events("0" * 26))
            with pytest.raises(ProtocolError):
                await client.runs.get("0" * 26)
    finally:
        elsewhere.close()
    with pytest.raises(ValueError, match="looks like"):
        Client("127.0.0.1:8000")


async def _serve_page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer as some other web server would."""
    await reader.readuntil(b"\r\n\r\n")
    page = b"<h1>Welcome</h1>"
    head = f"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {len(page)}\r\n\r\n"
    writer.write(head.encode() + page)
    writer.close()


async def test_pages_of_a_log_give_the_same_events(client: Client, run: Run) -> None:
    """The log read page by page is the log that streams."""
    await write(client, run.id, *range(1500 // 2))
    streamed = [item.seq async for item in client.runs.events(run.id) if isinstance(item, Event)]
    paged = [item async for item in client.runs.log(run.id)]
    assert [item.seq for item in paged if isinstance(item, Event)] == streamed
    tail = [item async for item in client.runs.log(run.id, after=streamed[-2])]
    assert [item.seq for item in tail if isinstance(item, Event)] == streamed[-1:]


async def test_the_feed_tells_every_change_of_status(client: Client) -> None:
    """Whoever keeps a list of runs hears of each change, and can resume."""
    async with asyncio.timeout(10):
        run = await client.runs.create("feeder")
        items: list[FeedItem] = []
        feed = client.feed(after="0")
        async with aclosing(feed):
            await write(client, run.id, "a", end=False)
            await write(client, run.id, "b")
            async for item in feed:
                if item.run_id == run.id:
                    items.append(item)
                if item.run_id == run.id and item.data["status"] == "completed":
                    break
    assert [item.data["status"] for item in items] == ["queued", "running", "completed"]
