"""A channel: notifications are hints, the log is the truth, and readers of it get each event once."""

from __future__ import annotations

import asyncio

import pytest

from gateway.domain.cursor import Cursor
from gateway.hub.channel import ChannelLimits
from gateway.hub.outlet import Message
from gateway.hub.reader import Reader
from gateway.store.link import Link
from tests.hub.clients import Client, Plain
from tests.hub.following import SMALL, Following, follow
from tests.hub.logs import Log, forget
from tests.support.running import RunningStore

pytestmark = pytest.mark.anyio

ROOMY = ChannelLimits(ring_entries=1000, ring_bytes=1 << 20, chunk_bytes=1 << 16)
LONG = "x" * 300


async def read_on(following: Following, client: Client) -> None:
    """Check that a client has exactly what the log has."""
    await following.settle()
    head, entries = await following.log.read()
    assert client.at.seq == head.seq
    assert {e.seq: e.tag for e in entries} == client.held


async def test_a_notification_that_continues_the_ring_needs_no_read(store: RunningStore, log: Log) -> None:
    """The event goes from the notification to the reader."""
    async with follow(store.url, log, ROOMY) as following:
        client = Client()
        await following.open(client)
        hint = await following.append("a")
        await log.remove()
        following.channel.hear(hint)
        await following.settle()
        assert client.seqs == [1, 2]


async def test_a_lost_notification_costs_a_read(store: RunningStore, log: Log) -> None:
    """The next one shows that something is missing; all of it comes, in order."""
    async with follow(store.url, log) as following:
        client = Client()
        await following.open(client)
        await following.append("lost")
        await following.grow("heard")
        assert client.seqs == [1, 2, 3]
        await read_on(following, client)


async def test_the_last_notification_may_be_lost_too(store: RunningStore, log: Log) -> None:
    """The sweep finds what no later notification tells of."""
    async with follow(store.url, log) as following:
        client = Client()
        await following.open(client)
        await following.append("lost")
        await following.settle()
        assert client.seqs == [1]
        await following.sweep()
        assert client.seqs == [1, 2]


async def test_late_and_repeated_notifications_change_nothing(store: RunningStore, log: Log) -> None:
    """What a reader has is not sent again, whoever tells of it and when."""
    async with follow(store.url, log) as following:
        client = Client()
        await following.open(client)
        hints = [await following.append(text) for text in "abc"]
        for hint in (*hints, *reversed(hints), *hints):
            following.channel.hear(hint)
        await following.settle()
        assert client.seqs == [1, 2, 3, 4]
        await read_on(following, client)


async def test_reordered_notifications_keep_the_order_of_the_log(store: RunningStore, log: Log) -> None:
    """Seq decides, not arrival."""
    async with follow(store.url, log) as following:
        client = Client()
        await following.open(client)
        hints = [await following.append(text) for text in "abcd"]
        for hint in (hints[2], hints[0], hints[3], hints[1]):
            following.channel.hear(hint)
        await read_on(following, client)


async def test_a_notification_older_than_the_ring_changes_nothing(store: RunningStore, log: Log) -> None:
    """A hint may be as late as it likes."""
    async with follow(store.url, log) as following:
        client = Client()
        await following.open(client)
        old = await following.append("old")
        following.channel.hear(old)
        for _ in range(SMALL.ring_entries + 4):
            await following.grow("new")
        following.channel.hear(old)
        await read_on(following, client)


async def test_a_doorbell_has_the_log_read(store: RunningStore, link: Link) -> None:
    """Events too large for a notification are announced by it, and read once."""
    log = await Log(link, notice_bytes=200).create()
    async with follow(store.url, log) as following:
        client = Client()
        await following.open(client)
        hint = await following.append(LONG)
        assert hint.endswith(b" 0\n")
        assert len(hint) < 64
        following.channel.hear(hint)
        await following.settle()
        await following.grow("small again")
        assert client.seqs == [1, 2, 3]
        following.channel.hear(hint)
        await read_on(following, client)
    await forget(link, log)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\n",
        b"garbage",
        b"2 running",
        b"2 running 0\n",
        b"2 running 0 1\n",
        b"x running 0 1 0\n",
        b"2 \xff\xff 0 1 0\n",
        b"2 running 0 7 400\nshort",
        b"2 running 0 7 x\nshort",
        b"2 running 0 7 2 8 400\nshort",
        b"2 running 0 7 5 8 2\nlonger",
    ],
)
async def test_garbage_is_a_doorbell(store: RunningStore, log: Log, payload: bytes) -> None:
    """Whatever comes over the store's channel, the log decides, and nothing breaks."""
    async with follow(store.url, log) as following:
        client = Client()
        await following.open(client)
        await following.append("lost")
        following.channel.hear(payload)
        await following.settle()
        assert client.seqs == [1, 2]


async def test_notifications_that_come_before_the_ring_is_filled_are_not_lost(store: RunningStore, log: Log) -> None:
    """An event may land after the first read and be announced before its answer is there; it is delivered."""
    async with follow(store.url, log) as following:
        channel, before = following.channel, await log.save()
        hint, after = await following.append("early"), await log.save()
        await log.restore(before)
        channel.primed = False
        channel.hear(hint)
        # The store answers in this order: the channel's read, the restoration, whatever is asked after the read.
        following.spawn(channel.prime())
        await asyncio.sleep(0)
        following.spawn(log.restore(after))
        await following.settle()
        assert channel.ring.head_seq == 2


async def test_a_rollback_is_told_and_the_new_log_follows(store: RunningStore, log: Log) -> None:
    """Readers learn through where their events still hold, then get exactly the new ones."""
    async with follow(store.url, log) as following:
        client = Client()
        await following.open(client)
        await following.grow("a", "b")
        saved = await log.save()
        await following.grow("c", "d")
        await log.restore(saved)
        await following.grow("e")
        assert client.controls == [
            {"control": "stream.reset", "reason": "rolled_back", "valid_through": 3, "head_seq": 4}
        ]
        assert client.seqs == [1, 2, 3, 4, 5, 4]
        await read_on(following, client)


async def test_a_rollback_is_seen_when_the_new_log_has_overtaken_the_old(store: RunningStore, log: Log) -> None:
    """A notification that fits by number is checked by tag: its event may follow others than the reader has."""
    async with follow(store.url, log) as following:
        client = Client()
        await following.open(client)
        await following.grow("a")
        saved = await log.save()
        await following.grow("b", "c")
        await log.restore(saved)
        await following.append("lost", "lost")
        await following.grow("heard")
        assert client.told == ["stream.reset"]
        assert client.controls[0]["valid_through"] == 2
        await read_on(following, client)


async def test_a_rollback_without_a_new_event_is_found_by_the_sweep(store: RunningStore, log: Log) -> None:
    """A log that only got shorter is told to live readers, too."""
    async with follow(store.url, log) as following:
        client = Client()
        await following.open(client)
        saved = await log.save()
        await following.grow("a", "b")
        await log.restore(saved)
        await following.sweep()
        assert client.controls == [
            {"control": "stream.reset", "reason": "rolled_back", "valid_through": 1, "head_seq": 1}
        ]
        await following.grow("c")
        await read_on(following, client)


async def test_a_rollback_below_the_ring_voids_everything(store: RunningStore, log: Log) -> None:
    """Where the ring remembers no event that the log still has, nothing a reader has can be vouched for."""
    async with follow(store.url, log) as following:
        saved = await log.save()
        client = Client()
        await following.open(client)
        for _ in range(SMALL.ring_entries + 4):
            await following.grow("a")
        await log.restore(saved)
        await following.grow("new")
        assert client.told == ["stream.reset"]
        assert client.controls[0]["valid_through"] == 0
        await read_on(following, client)


async def test_a_rollback_of_a_log_that_is_long_beyond_the_ring(store: RunningStore, log: Log) -> None:
    """The ring is filled again from the log's end, and readers that begin anew read the log."""
    async with follow(store.url, log) as following:
        for _ in range(40):
            await following.grow("a")
        saved = await log.save()
        client = Client()
        await following.open(client)
        for _ in range(SMALL.ring_entries + 4):
            await following.grow("b")
        await log.restore(saved)
        await following.grow("new")
        assert client.told == ["stream.reset"]
        await read_on(following, client)


async def test_a_rollback_leaves_readers_alone_that_are_not_touched(store: RunningStore, log: Log) -> None:
    """A reader that was behind the point of agreement is told nothing and misses nothing."""
    async with follow(store.url, log) as following:
        await following.grow("a", "b")
        saved = await log.save()
        await following.grow("c")
        slow, quick = Client(), Client()
        slow.stop_reading()
        await following.open(slow)
        await following.open(quick)
        await following.settle()
        await log.restore(saved)
        await following.grow("d")
        slow.read_on()
        await read_on(following, slow)
        assert quick.told == ["stream.reset"]
        await read_on(following, quick)


async def test_a_reader_below_the_ring_sees_for_itself_after_a_rollback(store: RunningStore, log: Log) -> None:
    """Of a reader that lags behind the ring nothing is known: its own cursor is compared with the log."""
    async with follow(store.url, log) as following:
        await following.grow("a")
        safe, stale = await log.save(), Client()
        await following.grow("b", "c")
        await following.open(stale)
        await following.settle()
        assert stale.at.seq == 4
        stale.stop_reading()
        keeps = Client(Cursor(2, (await log.tags())[2]), held={s: t for s, t in (await log.tags()).items() if s < 3})
        keeps.stop_reading()
        await following.open(keeps)
        for _ in range(SMALL.ring_entries + 8):
            await following.grow("d" * 200)
        await log.restore(safe)
        await following.grow("new")
        stale.read_on()
        keeps.read_on()
        await read_on(following, stale)
        await read_on(following, keeps)
        assert stale.told == ["stream.reset"]


async def test_rollbacks_may_follow_one_another(store: RunningStore, log: Log) -> None:
    """However often the log goes back, the reader ends with what the log has."""
    async with follow(store.url, log) as following:
        client = Client()
        await following.open(client)
        saved = [await log.save()]
        for text in "abcd":
            await following.grow(text)
            saved.append(await log.save())
        for place in (3, 2, 4, 0):
            await log.restore(saved[place])
            await following.grow("again")
            await read_on(following, client)


async def test_a_rollback_past_the_end_is_no_end(store: RunningStore, log: Log) -> None:
    """A run whose end was lost goes on for whoever is connected."""
    async with follow(store.url, log) as following:
        saved = await log.save()
        client = Client()
        client.stop_reading()
        await following.open(client)
        await log.end()
        following.channel.hear(await following.published())
        await following.settle()
        await log.restore(saved)
        await following.grow("goes on")
        client.read_on()
        await following.settle()
        assert "stream.end" not in client.told
        await read_on(following, client)


async def test_a_log_that_is_removed_sends_its_readers_away(store: RunningStore, log: Log) -> None:
    """A run that does not exist any more is not waited for."""
    async with follow(store.url, log) as following:
        client = Client()
        await following.open(client)
        await following.settle()
        await log.remove()
        await following.sweep()
        assert following.channel.gone
        assert client.told == ["stream.closed"]
        assert client.hung_up


async def test_the_end_comes_after_the_last_event_and_finishes(store: RunningStore, log: Log) -> None:
    """A reader that has all of an ended log is told so once, and its connection ends in order."""
    async with follow(store.url, log) as following:
        client = Client()
        outlet = await following.open(client, finish=True)
        await following.grow("a")
        await log.end()
        await following.sweep()
        assert client.seqs == [1, 2, 3]
        assert client.messages[-2:] == [{"control": "stream.end", "status": "completed"}, {"finish": True}]
        assert outlet.closed
        assert not client.hung_up


async def test_an_end_is_no_end_for_a_channel_that_is_not_there_yet(store: RunningStore, log: Log) -> None:
    """While a long hole is being filled nobody is told of the end before the events that precede it."""
    async with follow(store.url, log) as following:
        client = Client()
        await following.open(client, finish=True)
        await following.settle()
        for _ in range(10):
            await following.append(*["a" * 100] * 40)
        await log.end()
        await following.sweep()
        assert client.seqs == list(range(1, 403))
        assert client.told == ["stream.end"]


async def test_a_reader_that_is_ahead_of_the_channel_brings_it_on(store: RunningStore, log: Log) -> None:
    """A client may have seen, elsewhere, what this process was not told of yet; it waits for what follows."""
    async with follow(store.url, log) as following:
        await following.append("unheard")
        client = Client(await following.head())
        await following.open(client)
        await following.settle()
        assert following.channel.ring.head_seq == 2
        await following.grow("a")
        assert client.seqs == [3]


async def test_a_reader_of_the_new_log_gets_nothing_of_the_old(store: RunningStore, log: Log) -> None:
    """A channel that has not noticed a rollback does not mix what it remembers into what a reader has."""
    async with follow(store.url, log) as following:
        await following.grow("a")
        saved = await log.save()
        await following.grow("b", "c", "d")
        await log.restore(saved)
        await following.append("B")
        old = following.channel.ring.tag_at(4)
        client = Client(await following.head(), await log.tags())
        await following.open(client)
        await following.settle()
        assert old not in [entry.tag for message in client.messages for entry in message.get("entries", ())]
        await read_on(following, client)


async def test_a_reader_just_before_the_ring_sees_for_itself_after_a_rollback(store: RunningStore, log: Log) -> None:
    """The ring that is filled anew cannot vouch for the event before its first."""
    async with follow(store.url, log) as following:
        await following.grow(*["a"] * 9)
        saved = await log.save()
        await following.grow("lost")
        client = Client()
        await following.open(client)
        await following.settle()
        assert client.at.seq == 11
        client.stop_reading()
        for _ in range(SMALL.ring_entries + 9):
            await following.grow("lost")
        (reader,) = following.channel.readers
        await log.restore(saved)
        await following.append(*["new"] * 18)
        await following.sweep()
        assert following.channel.ring.first_seq == reader.seq + 1
        client.read_on()
        await read_on(following, client)
        assert client.told == ["stream.reset"]


async def test_what_was_read_before_a_rollback_is_not_sent_after_it(store: RunningStore, log: Log) -> None:
    """A read of the log that was under way is thrown away: it may be of the old log."""
    async with follow(store.url, log) as following:
        for _ in range(SMALL.ring_entries + 9):
            await following.grow("a")
        client = Client()
        outlet = await following.open(client)
        outlet.close()
        reader = await following.reader(outlet, Plain(), client.at)
        head, _ = await log.read()
        reading = asyncio.create_task(_take(reader))
        await asyncio.sleep(0)
        reader.roll_back(head, 2, 2)
        assert await reading == []
        assert await _take(reader) != []


async def _take(reader: Reader) -> list[Message]:
    return list(await reader.next_messages())


async def test_a_reader_forgets_a_tag_that_was_refused(store: RunningStore, log: Log) -> None:
    """What it would come back with must not be refused again."""
    async with follow(store.url, log) as following:
        await log.end()
        await log.trim(2)
        outlet = await following.open(Client())
        reader = await following.reader(outlet, Plain(), Cursor(2, 1))
        assert (reader.seq, reader.tag) == (2, None)


async def test_trimmed_events_are_a_gap_to_a_reader_that_lags(store: RunningStore, log: Log) -> None:
    """What was removed before a slow reader came to it is announced, and the rest follows."""
    async with follow(store.url, log) as following:
        for _ in range(30):
            await following.grow("a" * 100)
        client = Client()
        client.stop_reading()
        await following.open(client)
        await following.settle()
        await log.end()
        await following.sweep()
        await log.trim(20)
        client.read_on()
        await following.settle()
        assert "stream.gap" in client.told
        assert client.at.seq == 32
        assert client.told[-1] == "stream.end"


async def test_an_event_larger_than_a_chunk_does_not_stop_a_reader(store: RunningStore, log: Log) -> None:
    """A reader that stands at a large event, behind the ring, still gets what follows it."""
    async with follow(store.url, log) as following:
        await following.grow("L" * (4 * SMALL.chunk_bytes))
        after = Cursor(2, (await log.tags())[2])
        for _ in range(SMALL.ring_entries + 4):
            await following.grow("a")
        client = Client(after)
        await following.open(client)
        await following.settle()
        assert client.seqs == list(range(3, 3 + SMALL.ring_entries + 4))


async def test_an_event_as_large_as_the_ring_does_not_stop_the_channel(store: RunningStore, link: Link) -> None:
    """A channel that stands at such an event repairs itself like any other."""
    log = await Log(link, notice_bytes=100).create()
    async with follow(store.url, log) as following:
        client = Client()
        await following.open(client)
        for _ in range(3):
            await following.grow("L" * (2 * SMALL.ring_bytes))
        assert client.seqs == [1, 2, 3, 4]
    await forget(link, log)


async def test_a_channel_fills_its_ring_from_the_logs_end(store: RunningStore, log: Log) -> None:
    """Whoever joins late finds the newest events in memory, as many as fit."""
    for _ in range(10):
        await log.append(*["a" * 200] * 10)
    async with follow(store.url, log) as following:
        ring = following.channel.ring
        assert ring.head_seq == 101
        assert 1 < ring.head_seq - ring.first_seq + 1 <= SMALL.ring_entries
        client = Client(Cursor(100))
        await following.open(client)
        await following.settle()
        assert client.seqs == [101]


async def test_readers_share_what_is_encoded(store: RunningStore, log: Log) -> None:
    """A thousand readers of one form cost one encoding of an event."""
    encoded: list[int] = []

    class Counting(Plain):
        def encode(self, entries: object) -> list[dict[str, object]]:
            encoded.append(1)
            return super().encode(entries)  # type: ignore[arg-type]

    async with follow(store.url, log, ROOMY) as following:
        clients = [Client() for _ in range(50)]
        for client in clients:
            await following.open(client, Counting())
        await following.settle()
        encoded.clear()
        await following.grow("a")
        assert len(encoded) == 1
        assert all(client.seqs == [1, 2] for client in clients)


async def test_what_a_single_reader_gets_is_not_kept_encoded(store: RunningStore, log: Log) -> None:
    """Nobody else would ask for it; from the second reader on it is kept, for as long as there are two."""
    async with follow(store.url, log, ROOMY) as following:
        first, second = Client(), Client()
        await following.open(first)
        await following.grow("a")
        assert following.channel._chunks.size_bytes == 0
        other = await following.open(second)
        await following.grow("b")
        assert following.channel._chunks.size_bytes > 0
        other.close()
        await following.grow("c")
        assert following.channel._chunks.size_bytes == 0
        assert first.seqs == [1, 2, 3, 4]
        assert second.seqs == [1, 2, 3]


async def test_what_is_kept_encoded_is_bounded(store: RunningStore, log: Log) -> None:
    """Readers that come back at every place of a log, each with its own filter, do not fill the memory."""
    async with follow(store.url, log) as following:
        await following.grow(*["a" * 100] * 12)
        for number in range(200):
            client = Client(Cursor(number % 10))
            outlet = await following.open(client, Plain(key=number))
            await following.settle()
            outlet.close()
        assert following.channel._chunks.size_bytes <= SMALL.ring_bytes


async def test_waiting_for_a_change_ends_with_it_or_in_time(store: RunningStore, log: Log) -> None:
    """Whoever waits for a run is woken by its next event, and leaves nothing behind."""
    async with follow(store.url, log) as following:
        channel = following.channel
        assert not await channel.changed(0.01)
        assert not channel._waiting
        hint = await following.append("a")
        following.spawn(_hear_soon(following, hint))
        assert await channel.changed(5)


async def _hear_soon(following: Following, hint: bytes) -> None:
    following.channel.hear(hint)
