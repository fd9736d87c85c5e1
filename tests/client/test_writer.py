"""Writing a run's log: every event once, in order, whatever happens to the connection."""

from __future__ import annotations

import asyncio

import pytest

from gateway.client import (
    Client,
    ConnectionLost,
    Event,
    EventTooLarge,
    Fenced,
    InvalidBody,
    InvalidState,
    Pending,
    Run,
    Writer,
)
from gateway.client.writer import EVENT_BYTES
from tests.client.waits import SOON
from tests.support.proxy import Dooms, lay_proxy
from tests.support.running import RunningGateway

pytestmark = pytest.mark.anyio


async def say(writer: Writer, message: object) -> None:
    """Queue a log event."""
    await writer.append("log", {"level": "info", "message": str(message)})


async def say_for_ever(writer: Writer) -> None:
    """Queue events until that has to wait."""
    while True:
        await say(writer, "late")


async def messages(client: Client, run_id: str) -> list[str]:
    """Return the messages of a run's log events."""
    return [item.data["message"] async for item in client.runs.log(run_id, types=["log"]) if isinstance(item, Event)]


async def test_everything_queued_is_stored_in_order(client: Client, run: Run) -> None:
    """Leaving the block means that the gateway has it all, in few requests."""
    async with asyncio.timeout(20), client.runs.writer(run.id) as writer:
        for number in range(5000):
            await say(writer, number)
    assert await messages(client, run.id) == [str(number) for number in range(5000)]
    assert writer.waiting == 0


async def test_a_lost_answer_repeats_nothing(gateway: RunningGateway, client: Client, run: Run) -> None:
    """A batch whose answer was lost is sent again, and stored once."""
    total = 600
    dooms = Dooms(3, cuts=40, most_bytes=900, most_s=5, black_holes=0)
    async with (
        asyncio.timeout(60),
        lay_proxy(gateway.port, choose=dooms) as proxy,
        Client(proxy.url, key=gateway.key, backoff=SOON) as shaky,
        shaky.runs.writer(run.id) as writer,
    ):
        for number in range(total):
            await say(writer, number)
            if number % 5 == 0:
                await writer.flush()
    assert await messages(client, run.id) == [str(number) for number in range(total)]
    assert proxy.cuts.total() > 10


async def test_a_full_queue_holds_the_writer_up(gateway: RunningGateway, client: Client, run: Run) -> None:
    """While the gateway is away only so much is kept; the rest waits for its return."""
    async with (
        asyncio.timeout(20),
        lay_proxy(gateway.port) as proxy,
        Client(proxy.url, key=gateway.key, backoff=SOON) as cut_off,
    ):
        proxy.refuse()
        async with cut_off.runs.writer(run.id, queue_events=10) as writer:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(say_for_ever(writer), 0.2)
            held = writer.waiting
            await proxy.accept()
    # One batch is under way, and the queue is full behind it.
    assert 10 < held <= 20
    assert len(await messages(client, run.id)) == held


async def test_patience_with_an_absent_gateway_ends(gateway: RunningGateway, run: Run) -> None:
    """After the time that was allowed the writer says so."""
    async with lay_proxy(gateway.port) as proxy, Client(proxy.url, key=gateway.key, backoff=SOON) as client:
        proxy.refuse()
        with pytest.raises(ConnectionLost):
            async with client.runs.writer(run.id, repeat_s=0.2) as writer:
                await say(writer, "a")


async def test_a_run_that_is_over_takes_no_more(client: Client, run: Run) -> None:
    """Whoever writes after the end is told so."""

    async def write_on() -> None:
        async with client.runs.writer(run.id) as writer:
            await writer.append("run.completed", {"output": 1})
            await writer.flush()
            await say(writer, "late")

    with pytest.raises(InvalidState):
        await write_on()
    assert (await client.runs.get(run.id)).output == 1


async def test_a_superseded_attempt_writes_no_more(client: Client, run: Run) -> None:
    """After a restart the old writer is fenced, and nothing of it reaches the new attempt."""

    async def write_on() -> None:
        async with client.runs.writer(run.id) as writer:
            await say(writer, "old")
            await writer.flush()
            await client.runs.restart(run.id)
            await say(writer, "stale")

    with pytest.raises(Fenced):
        await write_on()
    assert await messages(client, run.id) == ["old"]


async def test_a_refused_event_is_told(client: Client, run: Run) -> None:
    """An event of no known type ends the writer with the gateway's own words."""
    with pytest.raises(InvalidBody, match="log"):
        async with client.runs.writer(run.id) as writer:
            await writer.append("lgo", {})


async def test_an_event_over_the_limit_is_refused_before_it_is_queued(client: Client, run: Run) -> None:
    """One event too large harms no other."""
    async with client.runs.writer(run.id) as writer:
        await say(writer, "small")
        with pytest.raises(EventTooLarge):
            await say(writer, "x" * EVENT_BYTES)
        await say(writer, "x" * (EVENT_BYTES - 200))
    assert len(await messages(client, run.id)) == 2


async def test_a_writer_hears_what_is_asked_of_it(client: Client, run: Run) -> None:
    """A cancel is named once, by the next append or heartbeat."""
    heard: asyncio.Queue[Pending] = asyncio.Queue()
    async with (
        asyncio.timeout(10),
        client.runs.writer(run.id, on_pending=heard.put_nowait, heartbeat_s=0.05) as writer,
    ):
        await say(writer, "a")
        await writer.flush()
        await client.runs.cancel(run.id)
        assert (await heard.get()).type == "cancel"
        await say(writer, "b")
        await writer.flush()
        await writer.append("run.cancelled", {"reason": "asked"})
    assert heard.empty()
    assert (await client.runs.get(run.id)).status == "cancelled"


async def test_a_block_that_fails_keeps_its_own_error(client: Client, run: Run) -> None:
    """What went wrong in the block is what its caller sees."""

    async def fail() -> None:
        async with client.runs.writer(run.id) as writer:
            await say(writer, "a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
