"""The timer index: one entry a run, taken by one at a time, shown again when its taker dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from ulid import ULID

from gateway.store import keys
from gateway.store.link import Link
from gateway.store.timers import Taken, TimerStore
from tests.support.links import connect
from tests.support.running import RunningStore, wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def link(empty_store: RunningStore, anyio_backend: object) -> AsyncIterator[Link]:
    """A connection to a store that no gateway works on."""
    async with connect(empty_store.url) as link:
        yield link


def taken_ids(taken: list[Taken]) -> list[str]:
    """Return the runs that were taken."""
    return [timer.member for part in taken for timer in part.timers]


async def score(link: Link, run_id: str) -> int | None:
    """Return when a run is looked at next."""
    found = await link.call("ZSCORE", keys.timers(keys.partition(run_id)), run_id)
    return None if found is None else int(float(found))


async def test_what_is_due_is_taken_once(link: Link) -> None:
    """From all partitions, by whoever comes first; what is not due stays."""
    timers, other = TimerStore(link), TimerStore(link)
    due, later = [str(ULID()) for _ in range(50)], [str(ULID()) for _ in range(50)]
    for run_id in due:
        await timers.arm(run_id, 1)
    for run_id in later:
        await timers.arm(run_id, 2**50)
    first, second = await asyncio.gather(timers.take(most=100, hide_ms=60_000), other.take(most=100, hide_ms=60_000))
    assert sorted(taken_ids(first) + taken_ids(second)) == sorted(due)
    assert taken_ids(await timers.take(most=100, hide_ms=60_000)) == []


async def test_a_taken_run_shows_again_unless_it_is_settled(link: Link) -> None:
    """Its taker may have died."""
    timers = TimerStore(link)
    run_id = str(ULID())
    await timers.arm(run_id, 1)
    assert taken_ids(await timers.take(most=10, hide_ms=50)) == [run_id]
    again: list[str] = []

    async def shown() -> bool:
        again.extend(taken_ids(await timers.take(most=10, hide_ms=50)))
        return bool(again)

    await wait_until(shown)
    assert again == [run_id]


async def test_a_settled_run_is_looked_at_at_its_next_time(link: Link) -> None:
    """Or never again where nothing is due any more."""
    timers = TimerStore(link)
    run_id = str(ULID())
    for next_ms in (2**50, None):
        await link.call("ZADD", keys.timers(keys.partition(run_id)), 1, run_id)
        (part,) = [t for t in await timers.take(most=10, hide_ms=60_000) if t.timers]
        assert await timers.settle(run_id, part.hidden_until_ms, next_ms) is True
        assert await score(link, run_id) == next_ms


async def test_an_earlier_time_that_came_meanwhile_stands(link: Link) -> None:
    """Whoever settles what it took does not put it off."""
    timers = TimerStore(link)
    run_id = str(ULID())
    await timers.arm(run_id, 1)
    (part,) = [t for t in await timers.take(most=10, hide_ms=60_000) if t.timers]
    await timers.arm(run_id, 5)
    assert await timers.settle(run_id, part.hidden_until_ms, 2**50) is False
    assert await score(link, run_id) == 5


async def test_arming_never_puts_a_look_off(link: Link) -> None:
    """The earliest time stands; a look too early finds nothing and costs little."""
    timers = TimerStore(link)
    run_id = str(ULID())
    for at_ms, expected in ((100, 100), (200, 100), (50, 50)):
        await timers.arm(run_id, at_ms)
        assert await score(link, run_id) == expected


async def test_a_crowd_is_taken_in_portions(link: Link) -> None:
    """Each take is bounded, says that more is due and how late the oldest is."""
    timers = TimerStore(link)
    run_ids = [str(ULID()) for _ in range(200)]
    for run_id in run_ids:
        await timers.arm(run_id, 1)
    found: list[str] = []
    while True:
        taken = await timers.take(most=3, hide_ms=60_000)
        if not taken_ids(taken):
            break
        assert all(len(part.timers) <= 3 for part in taken)
        assert {timer.due_ms for part in taken for timer in part.timers} == {1}
        found += taken_ids(taken)
    assert sorted(found) == sorted(run_ids)


async def test_the_next_time_is_told(link: Link) -> None:
    """So that nobody has to ask all the time."""
    timers = TimerStore(link)
    run_id = str(ULID())
    await timers.arm(run_id, 2**50)
    taken = await timers.take(most=10, hide_ms=60_000)
    assert [part.next_due_ms for part in taken if part.next_due_ms is not None] == [2**50]
    assert all(part.timers == [] for part in taken)


async def test_what_is_armed_for_now_wakes_its_process(link: Link) -> None:
    """With the partitions to look at; a wait without one ends when its time is up."""
    timers = TimerStore(link)
    assert await timers.wait_rung(0.01) == frozenset()
    await timers.arm_now("hook:a", 1)
    await timers.arm_now("hook:b", 1)
    rung = await timers.wait_rung(10)
    assert rung == {keys.partition("hook:a"), keys.partition("hook:b")}
    assert sorted(taken_ids(await timers.take(most=10, hide_ms=60_000, partitions=rung))) == ["hook:a", "hook:b"]
    assert await timers.wait_rung(0.01) == frozenset()


async def test_a_timer_that_is_armed_while_it_is_hidden_is_not_put_away(link: Link) -> None:
    """Whoever took it may have looked before: for however late it was armed, it shows again."""
    timers, member = TimerStore(link), str(ULID())
    await timers.arm(member, 1)
    (taken,) = [t for t in await timers.take(most=1_000, hide_ms=15_000) if member in [x.member for x in t.timers]]
    await timers.arm(member, taken.now_ms + 3_600_000)
    assert not await timers.settle(member, taken.hidden_until_ms, None)
    score = float(await link.call("ZSCORE", keys.timers(keys.partition(member)), member))
    assert score < taken.hidden_until_ms
