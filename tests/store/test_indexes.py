"""Indexes: an entry too many is dropped by who reads it; one too few would be a lost run, and never happens."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ulid import ULID

from gateway.domain.lifecycle import ALL, Status
from gateway.domain.run import Question, Run, RunSpec, RunState
from gateway.errors import IdempotencyMismatch
from gateway.store import keys
from gateway.store.indexes import MOVING, IndexStore, Position
from gateway.store.link import Link
from gateway.store.log import LogName, LogReader
from gateway.store.runs import Dedupe
from tests.support.links import BEGIN_MS, connect, make_spec
from tests.support.running import RunningStore, wait_until

pytestmark = pytest.mark.anyio

STATUSES = [Status.QUEUED, Status.RUNNING, Status.PAUSED, Status.COMPLETED]
FEED = (b'"type":"run.status","data":{"previous":', b"}}")


@pytest.fixture(scope="module")
async def link(store: RunningStore, anyio_backend: object) -> AsyncIterator[Link]:
    """A connection for all tests of the module."""
    async with connect(store.url) as link:
        yield link


class Shelf:
    """The indexes of a tenant of its own."""

    def __init__(self, link: Link, *, feed_entries: int = 1000) -> None:
        self.link = link
        self.tenant = f"t{ULID()}"
        self.indexes = IndexStore(link, link, feed_entries=feed_entries)

    async def reserve(self, dedupe: Dedupe | None = None, **about: Any) -> RunSpec:
        """Reserve a run and return what it is to be created with."""
        spec = make_spec(self.tenant, **about)
        reserved = await self.indexes.reserve(spec, dedupe or Dedupe())
        return msgspec.structs.replace(spec, id=reserved.run_id, created_us=reserved.created_us)

    async def apply(self, spec: RunSpec, status: Status, rev: int, *, change_id: str = "", **more: Any) -> None:
        """Bring the indexes to a revision of a run."""
        questions = (Question("q", "?", 0),) if more.pop("asks", False) else ()
        state = RunState(status=status, open=questions)
        run = Run(spec=spec, state=state, rev=rev, head_seq=1, head_tag=1, first_seq=1, updated_ms=BEGIN_MS)
        await self.indexes.apply(run, change_id, feed_event=FEED, **more)

    async def read(self, *names: str, moving: bool = False) -> list[list[str]]:
        """Return the run ids of some indexes and, last, those in change."""
        slice_ = await self.indexes.read(self.tenant, names, None, 100, moving=moving)
        assert slice_ is not None
        return [[p.run_id for p in page] for page in (*slice_.pages, slice_.moving)]

    async def by_status(self, status: Status) -> list[str]:
        """Return the run ids of a status index."""
        return (await self.read(keys.status_index(self.tenant, status)))[0]

    async def feed(self) -> list[dict[str, Any]]:
        """Return the feed's events."""
        name = LogName.of_feed(self.tenant)
        _, entries = await LogReader(self.link).read(name, 0, entries=10_000, payload_bytes=2**24)
        return [json.loads(entry.line) for entry in entries]


async def test_creation_times_are_unique_whatever_the_rush(link: Link) -> None:
    """A hundred reservations at once have a hundred times, in the order of the list."""
    shelf = Shelf(link)
    specs = await asyncio.gather(*(shelf.reserve() for _ in range(100)))
    assert len({spec.created_us for spec in specs}) == 100
    newest_first = sorted(specs, key=lambda spec: -spec.created_us)
    assert (await shelf.read(keys.all_runs(shelf.tenant)))[0] == [spec.id for spec in newest_first]


async def test_a_reservation_enters_every_index_before_there_is_a_run(link: Link) -> None:
    """A crash after it leaves entries that a reader drops, and a note that the reconciler takes out."""
    shelf = Shelf(link)
    about: dict[str, Any] = {
        "tags": {"a": "b"},
        "batch_id": "x",
        "parent_run_id": "p",
        "root_run_id": "r",
        "thread_id": "th",
    }
    spec = await shelf.reserve(**about)
    tenant = shelf.tenant
    names = [keys.all_runs(tenant), keys.index(tenant, "agent", "tester"), keys.index(tenant, "thread", "th")]
    names += [keys.index(tenant, "trigger", "manual"), keys.index(tenant, "tag", "a:b")]
    names += [keys.index(tenant, name, about[name]) for name in ("batch_id", "parent_run_id", "root_run_id")]
    assert await shelf.read(*names, moving=True) == [[spec.id]] * (len(names) + 1)


async def test_a_key_reserves_one_id(link: Link) -> None:
    """Whoever comes second is told which, and enters nothing until it asks for that one."""
    shelf = Shelf(link)
    dedupe = Dedupe(fingerprint="body", idempotency="key", lifetime_ms=60_000)
    first = await shelf.reserve(dedupe)
    second = make_spec(shelf.tenant, tags={"only": "second"})
    reserved = await shelf.indexes.reserve(second, dedupe)
    assert (reserved.run_id, reserved.created_us) == (first.id, first.created_us)
    assert (await shelf.read(keys.index(shelf.tenant, "tag", "only:second")))[0] == []
    again = await shelf.indexes.reserve(first, dedupe)
    assert (again.run_id, again.created_us) == (first.id, first.created_us)
    with pytest.raises(IdempotencyMismatch):
        await shelf.indexes.reserve(second, msgspec.structs.replace(dedupe, fingerprint="other"))
    assert await shelf.indexes.find_reserved(shelf.tenant, "key", "body") == first.id
    assert await shelf.indexes.find_reserved(shelf.tenant, "unknown", "body") is None
    with pytest.raises(IdempotencyMismatch):
        await shelf.indexes.find_reserved(shelf.tenant, "key", "other")
    left_ms = await link.call("PTTL", keys.tenant_idempotency(shelf.tenant, "key"))
    assert 50_000 < left_ms <= 60_000


async def test_an_older_revision_changes_nothing(link: Link) -> None:
    """Changes may be applied in any order, each once; the newest stands."""
    shelf = Shelf(link)
    spec = await shelf.reserve()
    await shelf.apply(spec, Status.RUNNING, 2)
    await shelf.apply(spec, Status.QUEUED, 1)
    await shelf.apply(spec, Status.RUNNING, 2)
    assert await shelf.by_status(Status.RUNNING) == [spec.id]
    assert await shelf.by_status(Status.QUEUED) == []
    assert [event["data"]["previous"] for event in await shelf.feed()] == [None]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(statuses=st.lists(st.sampled_from(STATUSES), min_size=1, max_size=6), seed=st.integers(0, 2**32))
async def test_any_order_of_changes_ends_the_same(link: Link, statuses: list[Status], seed: int) -> None:
    """The run is in the index of its last revision and in no other; the feed ends with that status."""
    shelf = Shelf(link)
    spec = await shelf.reserve()
    changes = list(enumerate(statuses, 1)) * 2
    random.Random(seed).shuffle(changes)
    for rev, status in changes:
        await shelf.apply(spec, status, rev, asks=status is Status.PAUSED)
    found = await shelf.read(*(keys.status_index(shelf.tenant, status) for status in ALL), keys.asking(shelf.tenant))
    expected = [[spec.id] if status is statuses[-1] else [] for status in ALL]
    assert found[:-1] == [*expected, [spec.id] if statuses[-1] is Status.PAUSED else []]
    feed = await shelf.feed()
    assert [event["seq"] for event in feed] == list(range(1, len(feed) + 1))
    told = [event["data"]["previous"] for event in feed[1:]]
    assert len(told) == len(feed) - 1
    assert all(a != b for a, b in itertools.pairwise(told))


async def test_a_change_is_noted_until_it_is_applied(link: Link) -> None:
    """A status list reads the note together with the index; each change has a note of its own."""
    shelf = Shelf(link)
    spec = await shelf.reserve()
    for member in await link.call("ZRANGE", keys.moving(shelf.tenant), 0, -1):
        await shelf.indexes.abandon_change(shelf.tenant, *member.decode().split(" "))
    first = await shelf.indexes.begin_change(shelf.tenant, spec.id, 1_000)
    second = await shelf.indexes.begin_change(shelf.tenant, spec.id, 2_000)
    assert (await shelf.read(moving=True))[-1] == [spec.id, spec.id]
    await shelf.apply(spec, Status.RUNNING, 1, change_id=second)
    assert (await shelf.read(moving=True))[-1] == [spec.id]
    await shelf.apply(spec, Status.RUNNING, 1, change_id=first)
    assert (await shelf.read(moving=True))[-1] == []


async def test_stuck_changes_are_those_that_began_long_ago(link: Link) -> None:
    """The reconciler finds them, the oldest first."""
    shelf = Shelf(link)
    spec = await shelf.reserve()
    for member in await link.call("ZRANGE", keys.moving(shelf.tenant), 0, -1):
        await shelf.indexes.abandon_change(shelf.tenant, *member.decode().split(" "))
    for at_ms in (3_000, 1_000, 2_000):
        await shelf.indexes.begin_change(shelf.tenant, spec.id, at_ms)
    assert len(await shelf.indexes.stuck_changes(shelf.tenant, 2_000)) == 2
    assert shelf.tenant in await shelf.indexes.tenants()


async def test_a_crowd_in_change_is_told(link: Link) -> None:
    """Rather than a part of them being read: the caller then looks at all runs."""
    shelf = Shelf(link)
    members = [word for n in range(MOVING + 1) for word in (n, f"run{n} c")]
    await link.call("ZADD", keys.moving(shelf.tenant), *members)
    assert await shelf.indexes.read(shelf.tenant, [], None, 10, moving=True) is None
    assert await shelf.indexes.read(shelf.tenant, [], None, 10, moving=False) is not None


async def test_a_page_goes_on_after_a_position(link: Link) -> None:
    """Each run once, newest first, from several indexes at one moment."""
    shelf = Shelf(link)
    specs = [await shelf.reserve(thread_id="even" if n % 2 == 0 else "odd") for n in range(10)]
    names = [keys.index(shelf.tenant, "thread", name) for name in ("even", "odd")]
    before, found = None, []
    while True:
        slice_ = await shelf.indexes.read(shelf.tenant, names, before, 2, moving=False)
        assert slice_ is not None
        page = sorted((p for part in slice_.pages for p in part), key=lambda p: -p.created_us)[:2]
        if not page:
            break
        found += [p.run_id for p in page]
        before = page[-1]
    assert found == [spec.id for spec in reversed(specs)]


async def test_a_removed_run_leaves_every_index(link: Link) -> None:
    """And the feed says so, once."""
    shelf = Shelf(link)
    spec = await shelf.reserve(tags={"a": "b"})
    await shelf.apply(spec, Status.COMPLETED, 3)
    await shelf.apply(spec, Status.COMPLETED, 3, gone=True)
    await shelf.apply(spec, Status.COMPLETED, 3, gone=True)
    left = await link.call("KEYS", f"gw:{{t:{shelf.tenant}}}:*")
    assert {key.decode().rpartition("}:")[2] for key in left} == {"clock", "moving", "feed", "feedlog"}
    assert [event["data"]["previous"] for event in await shelf.feed()] == [None, "completed"]


async def test_a_feed_is_trimmed_to_its_length(link: Link) -> None:
    """Its record says where it begins."""
    shelf = Shelf(link, feed_entries=10)
    await shelf.indexes.ensure_feed(shelf.tenant)
    spec = await shelf.reserve()
    for rev in range(1, 26):
        await shelf.apply(spec, (Status.RUNNING, Status.PAUSED)[rev % 2], rev)
    head, _ = await LogReader(link).read(LogName.of_feed(shelf.tenant), 0, entries=1, payload_bytes=1)
    assert (head.seq, head.first_seq) == (25, 16)
    assert [event["seq"] for event in await shelf.feed()] == list(range(16, 26))


async def test_an_entry_that_was_dropped_too_early_can_be_entered_again(link: Link) -> None:
    """At its old place."""
    shelf = Shelf(link)
    first, second = await shelf.reserve(), await shelf.reserve()
    name = keys.all_runs(shelf.tenant)
    await shelf.indexes.drop(name, [first.id])
    assert (await shelf.read(name))[0] == [second.id]
    await shelf.indexes.enter([name], Position(first.created_us, first.id))
    assert (await shelf.read(name))[0] == [second.id, first.id]


async def test_one_process_has_the_turn_until_it_is_gone(empty_store: RunningStore) -> None:
    """It keeps it as long as it asks again; another has it when it does not."""
    async with connect(empty_store.url) as link:
        indexes = IndexStore(link, link, feed_entries=10)
        assert await indexes.take_turn("first", 60_000)
        assert not await indexes.take_turn("second", 60_000)
        assert await indexes.take_turn("first", 1)

        async def is_second() -> bool:
            return await indexes.take_turn("second", 60_000)

        await wait_until(is_second)
        assert not await indexes.take_turn("first", 60_000)
