"""Queues: what one keeps follows records by revision, whatever order news comes in, and limits never lose a run."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from ulid import ULID

from gateway.domain.lifecycle import Status
from gateway.domain.run import SYSTEM, Run, RunSpec, RunState
from gateway.store import keys
from gateway.store.link import Link
from gateway.store.queue import QueueStore, Reserved
from tests.support.links import connect
from tests.support.running import RunningStore

pytestmark = pytest.mark.anyio

BEGIN_US = 1_800_000_000_000_000
TENANT = "queues"
_clock = itertools.count(1)


@pytest.fixture
async def link(store: RunningStore, anyio_backend: object) -> AsyncIterator[Link]:
    """A connection to the store."""
    async with connect(store.url) as link:
        yield link


def make_run(queue: str, **about: Any) -> Run:
    """Return a run that was just queued."""
    created_us = BEGIN_US + next(_clock)
    spec = RunSpec(
        id=str(ULID()),
        tenant=TENANT,
        agent_id=about.pop("agent_id", "a"),
        mode="queued",
        thread_id="t",
        created_us=created_us,
        actor=SYSTEM,
        queue=queue,
        **about,
    )
    state = RunState(status=Status.QUEUED, queued_ms=created_us // 1000, place_ms=created_us // 1000)
    return Run(spec=spec, state=state, rev=1, head_seq=2, head_tag=1, first_seq=1, updated_ms=0)


def moved(run: Run, status: Status, *, leased: bool = False, rev: int = 1) -> Run:
    """Return the run as a later revision says it stands."""
    return replace(run, state=replace(run.state, status=status, leased=leased), rev=run.rev + rev)


async def take(queues: QueueStore, queue: str, most: int = 100) -> list[str]:
    """Reserve what is next and return it."""
    return (await queues.reserve(TENANT, queue, most)).run_ids


async def test_news_that_comes_late_changes_nothing(link: Link) -> None:
    """A removal that is older than an entry, and an entry that is older than what stands there."""
    queues, queue = QueueStore(link), str(ULID())
    run = make_run(queue)
    claimed, again = moved(run, Status.DEQUEUED, leased=True), moved(run, Status.QUEUED, rev=3)
    await queues.sync(again)
    await queues.sync(claimed)
    await queues.sync(run)
    assert await take(queues, queue) == [run.id]
    assert await take(queues, queue) == []


async def test_a_reservation_that_led_to_nothing_shows_again(link: Link) -> None:
    """In its old place, with its permits given back."""
    queues, queue = QueueStore(link), str(ULID())
    first, second = [make_run(queue, concurrency_key="k") for _ in range(2)]
    for run in (first, second):
        await queues.sync(run)
    assert await take(queues, queue) == [first.id]
    assert await take(queues, queue) == []
    await link.call("ZADD", _part(queue, "hidden"), 1, first.id)
    assert await take(queues, queue) == [first.id]
    await queues.sync(moved(first, Status.DEQUEUED, leased=True))
    await queues.sync(moved(first, Status.COMPLETED, rev=2))
    assert await take(queues, queue) == [second.id]


async def test_a_permit_is_asked_after_when_it_has_not_been_heard_of(link: Link) -> None:
    """The queue names the run; what its record says then decides."""
    queues, queue = QueueStore(link), str(ULID())
    run = moved(make_run(queue, concurrency_key="k"), Status.RUNNING, leased=True)
    await queues.sync(run)
    assert (await queues.reserve(TENANT, queue, 1)).suspects == []
    await link.call("ZADD", _part(queue, "permits"), 1, run.id)
    assert (await queues.reserve(TENANT, queue, 1)).suspects == [run.id]
    assert (await queues.reserve(TENANT, queue, 1)).suspects == []


async def test_a_claim_of_one_agent_finds_it_behind_any_number_of_others(link: Link) -> None:
    """Each concurrency key is a lane of its own, and a thousand of them stand before."""
    queues, queue = QueueStore(link), str(ULID())
    others = [make_run(queue, concurrency_key=f"k{number}") for number in range(1_000)]
    mine = [make_run(queue, agent_id="mine", concurrency_key=key) for key in ("x", "x", None)]
    await asyncio.gather(*map(queues.sync, others))
    for run in mine:
        await queues.sync(run)
    reserved = await queues.reserve(TENANT, queue, 5, frozenset({"mine", "absent"}))
    assert reserved == Reserved([mine[0].id, mine[2].id], [])
    assert await take(queues, queue, 1_000) == [run.id for run in others]


def _part(queue: str, part: str) -> str:
    return dict(zip(keys.QUEUE_PARTS, keys.queue(TENANT, queue), strict=True))[part]


DEEDS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("ab"), st.sampled_from([None, "k", "l"]), st.sampled_from([0, 5])),
        st.tuples(st.sampled_from(["reserve", "reserve b", "claim"]), st.integers(0, 9)),
        st.tuples(st.sampled_from(["leave", "end", "requeue", "expire"]), st.integers(0, 9)),
        st.tuples(st.just("limit"), st.sampled_from([None, 1, 2])),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deeds=DEEDS)
async def test_no_run_is_lost_and_no_limit_broken(link: Link, deeds: list[Any]) -> None:
    """Whatever is added, reserved, claimed, cancelled, ended and queued again, under limits that change."""
    queues, queue = QueueStore(link), str(ULID())
    await queues.register(TENANT, queue)
    waiting: dict[str, Run] = {}
    reserved: dict[str, Run] = {}
    held: dict[str, Run] = {}
    limit: int | None = None

    def pick(runs: dict[str, Run], number: int) -> Run | None:
        return list(runs.values())[number % len(runs)] if runs else None

    for deed in deeds:
        match deed:
            case ("add", agent, key, priority):
                new = make_run(queue, agent_id=agent, concurrency_key=key, priority=priority)
                await queues.sync(new)
                waiting[new.id] = new
            case ("limit", most):
                limit = most
                await queues.limit(TENANT, "a", most)
            case ("reserve", _):
                for run_id in await take(queues, queue, 2):
                    reserved[run_id] = waiting.pop(run_id)
            case ("reserve b", _):
                got = (await queues.reserve(TENANT, queue, 2, frozenset({"b", "c"}))).run_ids
                assert all(waiting[run_id].spec.agent_id == "b" for run_id in got)
                for run_id in got:
                    reserved[run_id] = waiting.pop(run_id)
            case ("claim", number) if run := pick(reserved, number):
                del reserved[run.id]
                held[run.id] = moved(run, Status.DEQUEUED, leased=True)
                await queues.sync(held[run.id])
            case ("leave", number) if run := pick(waiting, number):
                del waiting[run.id]
                await queues.sync(moved(run, Status.CANCELLED))
            case ("end", number) if run := pick(held, number):
                del held[run.id]
                await queues.sync(moved(run, Status.COMPLETED))
            case ("requeue", number) if run := pick(held, number):
                del held[run.id]
                waiting[run.id] = moved(run, Status.QUEUED)
                await queues.sync(waiting[run.id])
            case ("expire", number) if run := pick(reserved, number):
                waiting[run.id] = reserved.pop(run.id)
                await link.call("ZADD", _part(queue, "hidden"), 1, run.id)
        busy = [*reserved.values(), *held.values()]
        keyed = [run.spec.concurrency_key for run in busy if run.spec.concurrency_key]
        assert len(keyed) == len(set(keyed)), "a concurrency key let two through"
    # Everybody gets their turn, in order, as the others end.
    for busy_run in [*reserved.values(), *held.values()]:
        await queues.sync(moved(busy_run, Status.COMPLETED, rev=5))
    while waiting:
        got = await take(queues, queue)
        assert got, f"nobody is ready, and {len(waiting)} wait"
        mine = [waiting[run_id] for run_id in got if waiting[run_id].spec.agent_id == "a"]
        assert limit is None or len(mine) <= limit
        for run_id in got:
            await queues.sync(moved(waiting.pop(run_id), Status.COMPLETED, rev=5))
    for part in ("entries", "lanes", "places", "ready", "parked", "hidden", "permits", "holders", "used", "offers"):
        assert await link.call("EXISTS", _part(queue, part)) == 0, part
