"""Reading logs: ranges with the head of the same moment, and what an append publishes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.errors import NotFound, StoreUnavailable
from gateway.store.link import Link
from gateway.store.log import Entry, LogName, LogReader, Notice, new_tags, parse_notice
from tests.hub.logs import Log, forget, open_link
from tests.support.running import RunningStore

pytestmark = pytest.mark.anyio

EVERYTHING = 1 << 30


@pytest.fixture
async def link(store: RunningStore, anyio_backend: object) -> AsyncIterator[Link]:
    """A connection to the store."""
    async with open_link(store.url) as link:
        yield link


@pytest.fixture
async def log(link: Link) -> AsyncIterator[Log]:
    """A log of ten events, of which the fifth is long."""
    log = await Log(link).create(*"bcd", "long" * 100, *"fghij")
    yield log
    await forget(link, log)


async def read(log: Log, seq: int, *, entries: int = 1000, payload_bytes: int = EVERYTHING) -> list[int]:
    """Return the seqs that a range read finds."""
    head, found = await log.reader.read(log.name, seq, entries=entries, payload_bytes=payload_bytes)
    assert (head.seq, head.first_seq, head.status) == (10, 1, "running")
    return [entry.seq for entry in found]


async def test_a_range_begins_with_the_seq_that_was_asked_for(log: Log) -> None:
    """The first entry verifies a cursor, the rest follows it."""
    assert await read(log, 1) == list(range(1, 11))
    assert await read(log, 7) == [7, 8, 9, 10]
    assert await read(log, 10) == [10]
    assert await read(log, 11) == []
    assert await read(log, 0) == list(range(1, 11))


async def test_a_range_is_bounded_in_entries(log: Log) -> None:
    """No more than asked for."""
    assert await read(log, 3, entries=2) == [3, 4]
    assert await read(log, 3, entries=0) == []


async def test_a_range_is_bounded_in_bytes_after_its_first_entry(log: Log) -> None:
    """A reader that stands at a large event still gets the next one."""
    assert await read(log, 5, payload_bytes=1) == [5, 6]
    assert await read(log, 1, payload_bytes=1) == [1, 2]
    assert await read(log, 1, payload_bytes=300) == [1, 2, 3, 4]


async def test_the_newest_entries_come_in_the_logs_order(log: Log) -> None:
    """As many as fit, up to the head, the newest of all whatever its size."""
    head, found = await log.reader.read_newest(log.name, entries=3, payload_bytes=EVERYTHING)
    assert [entry.seq for entry in found] == [8, 9, 10]
    assert (head.seq, head.tag) == (found[-1].seq, found[-1].tag)
    _, found = await log.reader.read_newest(log.name, entries=100, payload_bytes=EVERYTHING)
    assert [entry.seq for entry in found] == list(range(1, 11))
    _, found = await log.reader.read_newest(log.name, entries=100, payload_bytes=700)
    assert [entry.seq for entry in found] == [6, 7, 8, 9, 10]
    _, found = await log.reader.read_newest(log.name, entries=100, payload_bytes=0)
    assert [entry.seq for entry in found] == [10]


async def test_many_entries_are_read_in_one_call(link: Link, log: Log) -> None:
    """More than the script takes from the stream at a time."""
    await log.append(*["x"] * 500)
    _, found = await log.reader.read(log.name, 1, entries=1000, payload_bytes=EVERYTHING)
    assert [entry.seq for entry in found] == list(range(1, 511))
    _, found = await log.reader.read_newest(log.name, entries=300, payload_bytes=EVERYTHING)
    assert [entry.seq for entry in found] == list(range(211, 511))


async def test_a_trimmed_log_says_where_it_begins(log: Log) -> None:
    """The head stays, the range begins at the first entry that is left."""
    await log.end()
    await log.trim(6)
    head, found = await log.reader.read(log.name, 2, entries=1000, payload_bytes=EVERYTHING)
    assert (head.seq, head.first_seq, head.status) == (11, 7, "completed")
    assert [entry.seq for entry in found] == list(range(7, 12))
    await log.trim(100)
    head, found = await log.reader.read_newest(log.name, entries=10, payload_bytes=EVERYTHING)
    assert (head.seq, head.first_seq, found) == (11, 12, [])


async def test_those_who_look_in_one_turn_share_a_read(link: Link, log: Log) -> None:
    """At the same place of the same log; another place is another read, and so is a later look."""
    other = await Log(link).create()
    await log.reader.look(log.name, 0)
    await link.call("CONFIG", "RESETSTAT")
    places = [(log.name, 4), (log.name, 4), (log.name, 11), (other.name, 4), (log.name, 4)]
    found = await asyncio.gather(*(log.reader.look(*place) for place in places))
    called = await link.call("INFO", "commandstats")
    assert b"cmdstat_evalsha:calls=3," in called
    assert [[entry.seq for entry in entries] for _, entries in found] == [[4], [4], [], [], [4]]
    assert [head.seq for head, _ in found] == [10, 10, 10, 1, 10]
    await log.append("k")
    head, _ = await log.reader.look(log.name, 4)
    assert head.seq == 11
    await forget(link, other)


async def test_who_gives_up_a_shared_look_takes_nobody_with_it(log: Log) -> None:
    """The others get what they asked for."""

    async def look() -> int:
        return (await log.reader.look(log.name, 4))[0].seq

    looks = [asyncio.create_task(look()) for _ in range(3)]
    await asyncio.sleep(0)
    looks[0].cancel()
    assert await asyncio.gather(*looks[1:]) == [10, 10]
    assert looks[0].cancelled()


async def test_all_who_share_a_look_are_told_what_went_wrong(store: RunningStore) -> None:
    """That there is no such run, that the store has not answered."""
    missing = LogName.of_run("01ARZ3NDEKTSV4RRFFQ69G5FAV")
    async with open_link(store.url) as link:
        reader = LogReader(link)
        told = await asyncio.gather(*(reader.look(missing, 0) for _ in range(3)), return_exceptions=True)
        assert [type(each) for each in told] == [NotFound] * 3
    looks = [reader.look(missing, 0) for _ in range(3)]
    told = await asyncio.gather(*looks, return_exceptions=True)
    assert [type(each) for each in told] == [StoreUnavailable] * 3


async def test_heads_of_several_logs_come_at_once(link: Link, log: Log) -> None:
    """One that does not exist is None."""
    other = await Log(link).create()
    missing = LogName.of_run("01ARZ3NDEKTSV4RRFFQ69G5FAV")
    heads = await log.reader.heads([log.name, missing, other.name])
    assert [head and head.seq for head in heads] == [10, None, 1]
    assert heads[0] == (await log.read())[0]
    await forget(link, other)


async def test_a_log_that_does_not_exist_is_told(link: Link) -> None:
    """Both ways to read it say so."""
    name = LogName.of_run("01ARZ3NDEKTSV4RRFFQ69G5FAV")
    with pytest.raises(NotFound):
        await LogReader(link).read(name, 0, entries=1, payload_bytes=1)
    with pytest.raises(NotFound):
        await LogReader(link).read_newest(name, entries=1, payload_bytes=1)


def test_a_notification_is_read_as_it_was_published() -> None:
    """Seq, tag and bytes of each event, and the tag of the one before them."""
    assert parse_notice(b"7 running 66 71 3 72 2\nabcde") == Notice(
        8, 72, "running", 66, [Entry(7, 71, b"abc"), Entry(8, 72, b"de")]
    )
    assert parse_notice(b"9 completed 0 91 0\n") == Notice(9, 91, "completed", 0, [])


def test_tags_are_random_and_never_zero() -> None:
    """Zero stands for no tag at all."""
    tags = new_tags(10_000)
    assert len(set(tags)) > 9_990
    assert all(0 < tag < 2**32 for tag in tags)
