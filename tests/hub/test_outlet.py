"""An outlet: frames in order through one connection, whatever it takes, and at most a chunk held for it."""

from __future__ import annotations

import asyncio
import time

import pytest

from gateway.hub.channel import ChannelLimits
from gateway.hub.cohort import PUSH_SLICE
from gateway.hub.outlet import FAREWELL_S, Message, Outlet
from gateway.store.link import Link
from tests.hub.clients import Client, Plain
from tests.hub.following import SMALL, Following, follow
from tests.hub.logs import Log, forget
from tests.support.running import RunningStore, wait_until

pytestmark = pytest.mark.anyio


def note(number: int) -> Message:
    """Return a message that belongs to no reader."""
    return {"note": number}


async def test_a_send_that_does_not_suspend_costs_no_task(store: RunningStore, log: Log) -> None:
    """The pusher's own task carries a frame to every connection that takes it at once."""
    async with follow(store.url, log) as following:
        tasks: list[asyncio.Task[object] | None] = []
        client = Client()

        async def send(message: Message) -> None:
            tasks.append(asyncio.current_task())
            await client.send(message)

        outlet = Outlet(send, following.spawn, hang_up=client.hang_up, transport="test")
        outlet.add(await following.reader(outlet, Plain(), client.at))
        await following.settle()
        tasks.clear()
        following.channel.hear(await following.append("a"))
        await following.pushing.flush()
        assert tasks == [asyncio.current_task()]
        assert client.seqs == [1, 2]


async def test_a_send_that_suspends_is_finished_by_a_task(store: RunningStore, log: Log) -> None:
    """The pusher goes on at once; the slow connection gets its frame, and all that came meanwhile, in order."""
    async with follow(store.url, log) as following:
        slow, quick = Client(), Client()
        await following.open(slow)
        await following.open(quick)
        await following.settle()
        slow.stop_reading()
        for text in "abcdef":
            await following.grow(text)
        assert quick.seqs == [1, 2, 3, 4, 5, 6, 7]
        assert slow.seqs == [1]
        slow.read_on()
        await following.settle()
        assert slow.seqs == quick.seqs


async def test_a_slow_connection_is_held_one_chunk(store: RunningStore, log: Log) -> None:
    """Whatever it lags, one send waits, and the rest stays in the log."""
    async with follow(store.url, log) as following:
        slow = Client()
        await following.open(slow)
        await following.settle()
        slow.stop_reading()
        for _ in range(100):
            await following.grow("a" * 100)
        assert slow.waiting == slow.most_waiting == 1
        slow.read_on()
        await following.settle()
        assert slow.seqs == list(range(1, 102))
        sizes = [sum(len(e.line) for e in m["entries"]) for m in slow.messages if "entries" in m]
        assert max(sizes) < 2 * SMALL.chunk_bytes


async def test_a_send_that_suspends_again_and_again_is_carried_on(store: RunningStore, log: Log) -> None:
    """A send may wait for several things one after another, as one does with locks and buffers."""
    async with follow(store.url, log) as following:
        client = Client()

        async def send(message: Message) -> None:
            await asyncio.sleep(0)
            async with asyncio.Lock():
                await asyncio.sleep(0.001)
            await client.send(message)
            await asyncio.sleep(0)

        outlet = Outlet(send, following.spawn, hang_up=client.hang_up, transport="test")
        outlet.add(await following.reader(outlet, Plain(), client.at))
        for text in "abc":
            await following.grow(text)
        await wait_until(lambda: client.seqs == [1, 2, 3, 4])


async def test_what_belongs_to_no_reader_comes_in_order(store: RunningStore, log: Log) -> None:
    """What is said while the connection is busy waits its turn, and none is lost."""
    async with follow(store.url, log) as following:
        client = Client()
        outlet = await following.open(client)
        await following.settle()
        client.stop_reading()
        for number in range(5):
            outlet.say([note(number)])
        drained = asyncio.create_task(outlet.drained())
        await following.settle()
        assert not drained.done()
        client.read_on()
        await following.settle()
        await asyncio.wait_for(drained, 1)
        assert [m for m in client.messages if "note" in m] == [note(number) for number in range(5)]


async def test_a_connection_that_breaks_is_hung_up_and_hurts_nobody(store: RunningStore, log: Log) -> None:
    """A send that fails, at once or later, ends this connection only."""
    async with follow(store.url, log) as following:
        good, broken, late = Client(), Client(), Client()

        async def fail(message: Message) -> None:
            raise OSError("gone")

        async def fail_later(message: Message) -> None:
            await asyncio.sleep(0.001)
            raise OSError("gone")

        outlets = [
            Outlet(send, following.spawn, hang_up=client.hang_up, transport="test")
            for client, send in ((broken, fail), (late, fail_later), (good, good.send))
        ]
        for outlet in outlets:
            outlet.add(await following.reader(outlet, Plain(), good.at))
        await following.grow("a")
        await wait_until(lambda: late.hung_up and broken.hung_up)
        assert good.seqs == [1, 2]
        assert [outlet.closed for outlet in outlets] == [True, True, False]
        assert len(following.channel.readers) == 1


async def test_an_encoder_that_fails_ends_its_connection_only(store: RunningStore, log: Log) -> None:
    """A bug in one reader's form must not stop the others, nor leave its client waiting for ever."""

    class Broken(Plain):
        def encode(self, entries: object) -> list[Message]:
            raise ValueError("bug")

    async with follow(store.url, log) as following:
        good, bad, worse = Client(), Client(), Client()
        await following.open(bad, Broken("bad"))
        await following.open(good)
        outlet = await following.open(worse, Broken("bad"), after=await following.head())
        assert not outlet.closed
        await following.grow("a")
        await following.settle()
        assert good.seqs == [1, 2]
        assert bad.hung_up
        assert worse.hung_up


async def test_one_connection_carries_many_logs(store: RunningStore, link: Link, log: Log) -> None:
    """Each reader of a connection keeps its own order, one of them ending while another goes on."""
    other = await Log(link).create()
    async with follow(store.url, log) as following, follow(store.url, other) as second:
        client, beside = Client(), Client()

        async def send(message: Message) -> None:
            mine = message.get("log") == "second"
            await (beside if mine else client).send(message)

        class Marked(Plain):
            def encode(self, entries: object) -> list[Message]:
                return [message | {"log": "second"} for message in super().encode(entries)]  # type: ignore[arg-type]

        left: list[object] = []
        outlet = Outlet(
            send,
            following.spawn,
            hang_up=client.hang_up,
            transport="test",
            finish=[{"finish": True}],
            on_leave=left.append,
        )
        outlet.add(await following.reader(outlet, Plain(), client.at))
        outlet.add(await second.reader(outlet, Marked("second"), beside.at))
        await following.grow("a")
        await second.grow("b")
        await log.end()
        await following.sweep()
        assert client.seqs == [1, 2, 3]
        assert len(left) == 1
        await second.grow("c")
        await other.end()
        await second.sweep()
        await following.settle()
        assert beside.seqs == [1, 2, 3, 4]
        assert client.messages[-1] == {"finish": True}
        assert outlet.closed
    await forget(link, other)


async def test_a_reader_that_is_removed_gets_nothing_more(store: RunningStore, log: Log) -> None:
    """Who unsubscribed is not pushed to, not even by a pass that had begun."""
    async with follow(store.url, log) as following:
        client = Client()
        outlet = await following.open(client)
        await following.settle()
        outlet.remove(outlet.readers[0])
        await following.grow("a")
        assert client.seqs == [1]
        assert not outlet.closed


async def test_a_dismissed_client_is_told_and_hung_up(store: RunningStore, log: Log) -> None:
    """The reason comes after everything that was sent before, and nothing comes after it."""
    async with follow(store.url, log) as following:
        client = Client()
        outlet = await following.open(client)
        await following.grow("a")
        outlet.dismiss("drain")
        outlet.dismiss("again")
        await following.grow("b")
        assert client.seqs == [1, 2]
        assert client.controls == [{"control": "stream.closed", "reason": "drain"}]
        assert client.hung_up


async def test_a_client_that_is_catching_up_is_told_why_it_is_dismissed(store: RunningStore, log: Log) -> None:
    """A long replay is interrupted between two frames, and the reason said."""
    async with follow(store.url, log) as following:
        for _ in range(50):
            await following.grow("a" * 200)
        client = Client()
        taken = asyncio.Event()

        async def send(message: Message) -> None:
            taken.set()
            await asyncio.sleep(0.002)
            await client.send(message)

        outlet = Outlet(
            send,
            following.spawn,
            hang_up=client.hang_up,
            transport="test",
            farewell=lambda reason: [{"control": "stream.closed", "reason": reason}],
        )
        outlet.add(await following.reader(outlet, Plain(), client.at))
        await taken.wait()
        outlet.dismiss("drain")
        await wait_until(lambda: client.hung_up)
        assert client.told == ["stream.closed"]
        assert client.at.seq < 51


async def test_a_dismissed_client_that_reads_nothing_is_hung_up_in_time(store: RunningStore, log: Log) -> None:
    """Whoever does not take the reason is hung up without it, and soon."""
    async with follow(store.url, log) as following:
        client = Client()
        outlet = await following.open(client)
        await following.settle()
        client.stop_reading()
        await following.grow("a")
        began_s = time.monotonic()
        outlet.dismiss("drain")
        await wait_until(lambda: client.hung_up)
        assert time.monotonic() - began_s < 4 * FAREWELL_S
        assert client.controls == []
        client.read_on()
        await following.settle()
        assert client.controls == []


async def test_nobody_waits_for_what_is_said_after_the_end(store: RunningStore, log: Log) -> None:
    """A command that was under way when its connection was closed does not wait for its answer to be taken."""
    async with follow(store.url, log) as following:
        client = Client()
        outlet = await following.open(client)
        await following.settle()
        client.stop_reading()
        outlet.say([note(1)])
        outlet.close(hang_up=True)
        outlet.say([note(2)])
        await asyncio.wait_for(outlet.drained(), 1)
        client.read_on()
        await following.settle()
        assert note(2) not in client.messages


async def test_a_dismissed_client_is_told_of_a_rollback_first(store: RunningStore, log: Log) -> None:
    """It would come back with a position that holds, and keep events that do not."""
    async with follow(store.url, log) as following:
        client = Client()
        outlet = await following.open(client)
        saved = await log.save()
        await following.grow("a", "b")
        await log.restore(saved)
        hint = await following.append("c")
        following.channel.hear(hint)
        await following.channel.repair.check()
        outlet.dismiss("drain")
        await following.settle()
        assert client.told == ["stream.reset", "stream.closed"]


async def test_a_quiet_connection_gets_a_sign_of_life(store: RunningStore, log: Log) -> None:
    """After so much silence, and not before."""
    async with follow(store.url, log) as following:
        client = Client()
        outlet = await following.open(client)
        outlet.ping = [{"ping": True}]
        await following.settle()
        outlet.keep_alive(outlet.sent_s - 0.001)
        assert {"ping": True} not in client.messages
        outlet.keep_alive(outlet.sent_s)
        assert client.messages[-1] == {"ping": True}


async def test_a_busy_connection_gets_one_sign_of_life_when_it_reads_on(store: RunningStore, log: Log) -> None:
    """Pings do not pile up for a client that does not read."""
    async with follow(store.url, log) as following:
        client = Client()
        outlet = await following.open(client)
        outlet.ping = [{"ping": True}]
        await following.settle()
        client.stop_reading()
        await following.grow("a")
        for _ in range(10):
            outlet.keep_alive(outlet.sent_s)
        client.read_on()
        await following.settle()
        assert [m for m in client.messages if "ping" in m] == [{"ping": True}]
        assert client.seqs == [1, 2]


async def test_a_thousand_readers_give_others_their_turn(store: RunningStore, log: Log) -> None:
    """A pass over many readers lets the loop do other things in between."""
    limits = ChannelLimits(ring_entries=1000, ring_bytes=1 << 20, chunk_bytes=1 << 16)
    async with follow(store.url, log, limits) as following:
        clients = [Client() for _ in range(1000)]
        for client in clients:
            await following.open(client)
        await following.settle()
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        following.channel.hear(await following.append("a"))
        before = turns
        await following.pushing.flush()
        assert turns - before >= 3
        counting.cancel()
        assert all(client.seqs == [1, 2] for client in clients)


async def test_a_reader_that_leaves_during_a_pass_gets_nothing_of_it(store: RunningStore, log: Log) -> None:
    """A pass over many readers looks again at each: one may have left since the last turn of the loop."""
    limits = ChannelLimits(ring_entries=1000, ring_bytes=1 << 20, chunk_bytes=1 << 16)
    async with follow(store.url, log, limits) as following:
        clients = [Client() for _ in range(PUSH_SLICE + 2)]
        outlets = [await following.open(client) for client in clients]
        await following.settle()
        following.channel.hear(await following.append("a"))
        asyncio.get_running_loop().call_soon(lambda: outlets[-1].remove(outlets[-1].readers[0]))
        await following.pushing.flush()
        assert clients[-2].seqs == [1, 2]
        assert clients[-1].seqs == [1]


async def wake_up(following: Following, client: Client) -> None:
    """Have a client read on, and give it everything."""
    client.read_on()
    await following.settle()


async def test_a_rollback_while_a_send_waits_is_told_after_it(store: RunningStore, log: Log) -> None:
    """What is on its way arrives, then the reset, then the new log: nothing in between."""
    async with follow(store.url, log) as following:
        client = Client()
        await following.open(client)
        await following.grow("a")
        saved = await log.save()
        client.stop_reading()
        await following.grow("b")
        await log.restore(saved)
        await following.grow("c")
        await wake_up(following, client)
        assert client.told == ["stream.reset"]
        assert client.held == await log.tags()
        assert client.seqs == [1, 2, 3, 3]
