"""The door's short way: what it stores, answers and refuses is what the long one does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import cast

import pytest
from redis.exceptions import ResponseError
from ulid import ULID

from gateway.domain.lifecycle import Status
from gateway.errors import (
    Fenced,
    GatewayError,
    IllegalTransition,
    LogFull,
    NotFound,
    SeqConflict,
    StoreUnavailable,
    TooManyWriters,
)
from gateway.store import keys
from gateway.store.link import Link, NodeLink
from gateway.store.log import LogName, LogReader, Notice, parse_notice
from gateway.store.plain import GROUP_APPENDS, GROUP_BYTES
from gateway.store.runs import Appended, Dedupe, Limits, TooEarly
from gateway.store.slots import SLOTS
from gateway.store.subscription import Subscription
from gateway.store.valkey import find_server
from tests.support.clusters import ServerProcess, find_port
from tests.support.links import BEGIN_MS, Door, connect, line, make_spec
from tests.support.running import RunningStore, wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def link(store: RunningStore, anyio_backend: object) -> AsyncIterator[Link]:
    """A connection for all tests of the module."""
    async with connect(store.url) as link:
        yield link


async def open_door(link: Link, *, held: bool = True, status: Status = Status.RUNNING, log_events: int = 100) -> Door:
    """Return the door of a new run."""
    door = Door(link, make_spec(f"t{ULID()}"), Limits(log_events=log_events, notice_bytes=1_000))
    await door.create(status, held=held)
    return door


async def open_doors(link: Link, count: int) -> list[Door]:
    """Return the doors of new runs of one store, as a gateway has it."""
    doors = [await open_door(link) for _ in range(count)]
    for door in doors:
        door.runs = doors[0].runs
    return doors


async def read_record(link: Link, door: Door) -> dict[bytes, bytes]:
    """Return the record's fields, without the tag, which is random."""
    reply = await link.call("HGETALL", keys.record(door.spec.id))
    fields = dict(zip(reply[::2], reply[1::2], strict=True))
    return {name: value for name, value in fields.items() if name not in (b"head_tag", b"spec", b"tenant")}


def without_tag(appended: Appended) -> tuple[object, ...]:
    """Return an answer without what is random."""
    return tuple(getattr(appended, name) for name in appended.__struct_fields__ if name != "head_tag")


@pytest.mark.parametrize("count", [1, 3, 40])
async def test_both_ways_leave_the_same_record_and_answer(link: Link, count: int) -> None:
    """Field by field, after one append and after the next; the stored lines are the same too."""
    short, long = await open_door(link), await open_door(link)
    for at_ms in (BEGIN_MS, BEGIN_MS + 5):
        events = [line(data=f'{{"a":{number}}}') for number in range(count)]
        first = await short.append_plain(*events, at_ms=at_ms)
        second = await long.append(*events, guard=long.guard(held=True), at_ms=at_ms, by_holder=True, is_output=True)
        assert without_tag(first) == without_tag(second)
        assert await read_record(link, short) == await read_record(link, long)
    logs = [
        (await LogReader(link).read(LogName.of_run(door.spec.id), 0, entries=1_000, payload_bytes=2**20))[1]
        for door in (short, long)
    ]
    assert [(entry.seq, entry.line) for entry in logs[0]] == [(entry.seq, entry.line) for entry in logs[1]]


async def test_the_head_is_the_last_entry(link: Link) -> None:
    """Its tag is in the record, in the answer and in the log."""
    door = await open_door(link)
    appended = await door.append_plain(line(), line())
    head, entries = await LogReader(link).read(LogName.of_run(door.spec.id), 0, entries=10, payload_bytes=10**6)
    assert (head.seq, head.tag) == (3, entries[-1].tag) == (appended.last_seq, appended.head_tag)
    assert len({entry.tag for entry in entries}) == 3


@pytest.mark.parametrize(
    ("changes", "error", "facts"),
    [
        ({"tenant": "other"}, NotFound, {}),
        ({"statuses": frozenset({Status.QUEUED})}, IllegalTransition, {"current_status": "running"}),
        ({"expected_seq": 5}, SeqConflict, {"head_seq": 1}),
        ({"attempt": 2}, Fenced, {"attempt": 1}),
        ({"lease": "x"}, Fenced, {"attempt": 1}),
    ],
)
async def test_both_ways_refuse_in_the_same_words(
    link: Link, changes: dict[str, object], error: type[GatewayError], facts: dict[str, object]
) -> None:
    """Another tenant, a status, a seq, an attempt, a lease: the same error with the same facts, and nothing written."""
    door = await open_door(link)
    guard = door.guard(held=True, **changes)
    ways: list[Callable[[], Awaitable[Appended]]] = [
        lambda: door.append_plain(guard=guard),
        lambda: door.append(guard=guard, by_holder=True),
    ]
    told = []
    for way in ways:
        with pytest.raises(error) as refused:
            await way()
        assert refused.value.facts.items() >= facts.items()
        told.append((refused.value.detail, refused.value.facts))
    assert told[0] == told[1]
    assert (await door.runs.load(door.spec.id, door.spec.tenant)).head_seq == 1


async def test_a_run_that_nobody_holds_takes_nothing(link: Link) -> None:
    """Whoever starts it by an append has to decide on what it is."""
    door = await open_door(link, held=False, status=Status.QUEUED)
    with pytest.raises(IllegalTransition):
        await door.append_plain()
    with pytest.raises(NotFound):
        await Door(link, make_spec("nobody")).append_plain()


async def test_a_log_takes_no_more_than_it_may(link: Link) -> None:
    """An append that would go beyond is refused whole."""
    door = await open_door(link, log_events=3)
    await door.append_plain(line())
    with pytest.raises(LogFull) as full:
        await door.append_plain(line(), line())
    assert full.value.facts["head_seq"] == 2
    assert (await door.append_plain(line())).last_seq == 3


async def test_time_in_a_log_does_not_go_back(link: Link) -> None:
    """The writer learns of the time to write at."""
    door = await open_door(link)
    await door.append_plain(at_ms=BEGIN_MS + 10)
    with pytest.raises(TooEarly) as early:
        await door.append_plain(at_ms=BEGIN_MS + 9)
    assert early.value.updated_ms == BEGIN_MS + 10


async def test_many_appends_of_both_ways_leave_no_hole(link: Link) -> None:
    """Every acknowledged seq is there once."""
    door = await open_door(link, log_events=1_000)
    ways: list[Callable[..., Awaitable[Appended]]] = [door.append_plain, door.append]
    answers = await asyncio.gather(*(ways[n % 2](*[line()] * (1 + n % 3)) for n in range(100)))
    claimed = sorted(seq for a in answers for seq in range(a.first_seq, a.last_seq + 1))
    assert claimed == list(range(2, 2 + len(claimed)))


async def test_readers_are_told_of_both_ways_alike(link: Link, store: RunningStore) -> None:
    """A notification continues the one before, whichever way either was written; a large one only rings."""
    door = await open_door(link)
    heard: list[Notice] = []
    subscription = Subscription(store.url, "test-plain", timeout_s=5, on_restored=lambda: None)
    running = asyncio.create_task(subscription.run())
    await subscription.subscribe(keys.events_channel(door.spec.id), lambda payload: heard.append(parse_notice(payload)))
    await door.append_plain(line(), line())
    await door.append(line())
    await door.append_plain(line())
    await door.append_plain(line(data='"%s"' % ("x" * 2_000)))
    await wait_until(lambda: len(heard) == 4)
    running.cancel()
    await asyncio.wait([running])
    assert [notice.last_seq for notice in heard] == [3, 4, 5, 6]
    assert [len(notice.entries) for notice in heard] == [2, 1, 1, 0]
    assert [notice.before_tag for notice in heard[1:3]] == [notice.last_tag for notice in heard[:2]]
    assert {notice.status for notice in heard} == {"running"}


def numbered(first: int, last: int | None = None, *, body: str = "a") -> Dedupe:
    """Return how a writer's append is recognised."""
    return Dedupe(fingerprint=body, writer="w", first_number=first, last_number=last or first)


STORY: list[tuple[Dedupe, int | None]] = [
    (numbered(2), None),
    (numbered(1), None),
    (numbered(1), None),
    (numbered(1, body="b"), None),
    (numbered(3), None),
    (numbered(2), None),
    (numbered(1), None),
    (numbered(2), 1),
    (numbered(2), 2),
    (numbered(3, 5), None),
    (numbered(3, 5), None),
    (numbered(4), None),
    (numbered(6), 1),
    (numbered(1), 2),
]
"""A writer's numbers, and the attempt that it names: skipped, next, again, again with another body, old, of another."""


async def test_a_writer_is_recognised_by_both_ways_alike(link: Link) -> None:
    """Step by step the same answer or refusal, and the same position; after a new attempt, too."""
    short, long = await open_door(link), await open_door(link)
    by_long_way: Callable[..., Awaitable[Appended]] = partial(long.append, by_holder=True, is_output=True)
    for attempt in (1, 2):
        for door in (short, long):
            await door.append(guard=door.guard(), changes={"attempt": attempt})
        for dedupe, named in STORY:
            told: list[object] = []
            for door, way in ((short, short.append_plain), (long, by_long_way)):
                guard = door.guard(held=True, attempt=named)
                try:
                    told.append(without_tag(await way(guard=guard, dedupe=dedupe)))
                except GatewayError as error:
                    told.append((type(error), error.detail, sorted(error.facts.items())))
            assert told[0] == told[1], (attempt, dedupe, named)
        positions = [await link.call("HGETALL", keys.writers(door.spec.id)) for door in (short, long)]
        assert positions[0] == positions[1] != []


async def test_a_run_takes_only_so_many_writers(link: Link) -> None:
    """One more is refused by both ways, those that it has go on."""
    door = Door(link, make_spec(f"t{ULID()}"), Limits(writers=2))
    await door.create()
    for name in ("v", "w"):
        await door.append_plain(dedupe=Dedupe(fingerprint="a", writer=name, first_number=1, last_number=1))
    for way in (door.append_plain, door.append):
        with pytest.raises(TooManyWriters):
            await way(dedupe=Dedupe(fingerprint="a", writer="x", first_number=1, last_number=1))
    await door.append_plain(dedupe=numbered(2))


async def test_appends_of_one_turn_share_a_call_and_are_judged_by_themselves(link: Link) -> None:
    """Two runs, a refusal, a writer's number and its repeat: one script is run, and each caller gets its own answer."""
    first, second, other = await open_doors(link, 3)
    await other.append_plain()
    await link.call("CONFIG", "RESETSTAT")
    answers = await asyncio.gather(
        first.append_plain(line(data='{"a":1}'), line()),
        second.append_plain(dedupe=numbered(1)),
        first.append_plain(guard=first.guard(attempt=2)),
        second.append_plain(dedupe=numbered(1)),
        first.append_plain(),
        return_exceptions=True,
    )
    called = await link.call("INFO", "commandstats")
    seqs = [(a.first_seq, a.last_seq, a.duplicate) if isinstance(a, Appended) else type(a) for a in answers]
    assert seqs == [(2, 3, False), (2, 2, False), Fenced, (2, 2, True), (4, 4, False)]
    assert b"cmdstat_evalsha:calls=1," in called


async def test_a_group_ends_where_it_is_large(link: Link) -> None:
    """More appends than one call takes, and such that fill one alone, are all there in the order of their calls."""
    door = await open_door(link, log_events=1_000)
    large = line(data=f'"{"x" * GROUP_BYTES}"')
    lines = [line()] * (2 * GROUP_APPENDS + 1) + [large, large, line()]
    answers = await asyncio.gather(*(door.append_plain(each) for each in lines))
    assert [answer.first_seq for answer in answers] == list(range(2, 2 + len(lines)))


async def test_a_full_call_leaves_before_the_turn_ends(link: Link) -> None:
    """The store works while the rest of the turn is done."""
    door = await open_door(link)
    connection = cast(NodeLink, link).connection
    assert connection is not None
    guard, appends = door.guard(held=True), []
    for _ in range(GROUP_APPENDS):
        appending = door.runs.append_plain(door.spec.id, guard, Dedupe(), [line()], at_ms=BEGIN_MS, is_output=True)
        appends.append(appending)
    assert connection.take_unsent() == []
    assert [(await each).first_seq for each in appends] == list(range(2, 2 + len(appends)))


async def test_a_record_that_is_none_takes_no_other_append_with_it(link: Link) -> None:
    """Its own caller is told the store's error."""
    broken, sound = await open_doors(link, 2)
    await link.call("SET", keys.record(broken.spec.id), "no hash")
    told = await asyncio.gather(
        sound.append_plain(), broken.append_plain(), sound.append_plain(), return_exceptions=True
    )
    assert isinstance(told[1], ResponseError)
    assert str(told[1]).startswith("WRONGTYPE")
    assert [each.first_seq for each in told if isinstance(each, Appended)] == [2, 3]


async def test_a_group_gives_a_server_the_script_that_it_lost(link: Link) -> None:
    """No caller notices."""
    first, second = await open_doors(link, 2)
    for _ in range(2):
        await link.call("SCRIPT", "FLUSH")
        answers = await asyncio.gather(first.append_plain(), second.append_plain())
        assert len({answer.first_seq for answer in answers}) == 1


@asynccontextmanager
async def serve(folder: Path, **options: str) -> AsyncIterator[ServerProcess]:
    """Give a store's server of its own."""
    server = ServerProcess(await find_server(), folder, options)
    await server.start()
    try:
        yield server
    finally:
        server.stop()


async def test_all_callers_of_a_group_are_told_that_the_store_has_gone(tmp_path: Path) -> None:
    """Whether it was written is unknown; later appends are not part of what has failed."""
    async with serve(tmp_path) as server, connect(server.url) as link:
        first, second = await open_doors(link, 2)
        server.freeze()
        appends = [asyncio.create_task(door.append_plain()) for door in (first, second, first)]
        await asyncio.sleep(0)
        await wait_until(lambda: link.calls_open > 0)
        server.kill()
        told = await asyncio.gather(*appends, return_exceptions=True)
        assert [each.facts["outcome"] for each in told if isinstance(each, StoreUnavailable)] == ["unknown"] * 3
        with pytest.raises(StoreUnavailable) as refused:
            await first.append_plain()
        assert refused.value.facts["outcome"] == "not_written"
        await server.start()
        assert (await first.append_plain()).last_seq >= 2


async def test_a_server_that_wants_one_run_a_call_gets_that(tmp_path: Path) -> None:
    """A node that is a cluster by itself, or a proxy before one, refuses keys of several slots: nobody notices."""
    about = {"cluster-enabled": "yes", "cluster-port": str(find_port())}
    async with serve(tmp_path, **about) as server:
        await server.ask("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)

        async def works() -> bool:
            return b"cluster_state:ok" in cast(bytes, await server.ask("CLUSTER", "INFO"))

        await wait_until(works)
        async with connect(server.url) as link:
            doors = await open_doors(link, 4)
            for expected in (2, 3):
                answers = await asyncio.gather(*(door.append_plain() for door in doors))
                assert [answer.first_seq for answer in answers] == [expected] * 4


async def test_a_server_that_is_no_primary_any_more_refuses_all_and_is_left(tmp_path: Path) -> None:
    """Nothing is written, each caller is told so, and the link looks for the primary at once."""
    async with serve(tmp_path) as server, connect(server.url) as link:
        first, second = await open_doors(link, 2)
        await first.append_plain()
        await server.ask("REPLICAOF", "127.0.0.1", 1)
        told = await asyncio.gather(first.append_plain(), second.append_plain(), return_exceptions=True)
        assert [each.facts["outcome"] for each in told if isinstance(each, StoreUnavailable)] == ["not_written"] * 2
        await server.ask("REPLICAOF", "NO", "ONE")
        answers = await asyncio.gather(first.append_plain(), second.append_plain())
        assert [answer.first_seq for answer in answers] == [3, 2]
