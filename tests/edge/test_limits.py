"""What a key may ask for in a second, and what bodies may take in memory."""

from __future__ import annotations

import asyncio

import pytest

from gateway.edge.buckets import MOST_NAMES, Buckets
from gateway.edge.ledger import Ledger
from gateway.edge.limits import Limits, Rates, Visit
from gateway.edge.turns import Turns
from gateway.errors import Overloaded, TooManyRequests

pytestmark = pytest.mark.anyio


class Clock:
    """Time that passes when a test says so."""

    now_s = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


def test_a_second_s_worth_may_be_taken_at_once() -> None:
    """A burst up to the rate passes; what is beyond it waits for as long as it takes to gain one."""
    clock = Clock()
    buckets = Buckets(5, clock)
    for _ in range(5):
        assert buckets.wait_s("a") == 0
        buckets.take("a")
    assert buckets.wait_s("a") == pytest.approx(0.2)
    assert buckets.wait_s("b") == 0
    clock.now_s += 0.2
    assert buckets.wait_s("a") == pytest.approx(0, abs=1e-9)


def test_more_than_is_there_is_owed() -> None:
    """One large body passes, and the next waits until it is paid."""
    clock = Clock()
    buckets = Buckets(1_000, clock)
    buckets.take("a", 10_000)
    assert buckets.wait_s("a") == pytest.approx(9, abs=0.01)


@pytest.mark.parametrize("rate_s", [0.2, 1, 2.5, 20, 1_000])
@pytest.mark.parametrize("taken", [0, 1, 3])
def test_there_is_room_for_as_many_as_would_pass_one_by_one(rate_s: float, taken: int) -> None:
    """Neither one more nor one less, at once and a while later."""
    clock = Clock()
    for pause_s in (0.0, 0.3, 10.0):
        buckets = Buckets(rate_s, clock)
        buckets.take("a", taken)
        clock.now_s += pause_s
        room, passed = buckets.room("a"), 0
        while buckets.wait_s("a") == 0:
            buckets.take("a")
            passed += 1
        assert room == passed
        assert buckets.room("a") == 0


def test_without_a_rate_everything_passes() -> None:
    """0 is no limit, and costs no memory."""
    buckets = Buckets(0)
    for _ in range(1_000):
        buckets.take("a", 1e12)
    assert buckets.room("a") > 1e12
    assert buckets.wait_s("a") == 0


def test_full_buckets_are_forgotten() -> None:
    """Keys that come and go do not fill the memory."""
    clock = Clock()
    buckets = Buckets(1, clock)
    for number in range(MOST_NAMES):
        buckets.take(str(number))
    clock.now_s += 2
    buckets.take("one more")
    assert len(buckets._full_s) == 1


def limits(rates: Rates) -> Limits:
    """Return limits of which only the rates bind."""
    return Limits(rates, Turns(100, waiting=100, wait_s=1), bodies_bytes=1_000)


async def admit(limits: Limits, tenant: str, key_id: str, size: int = 0, *, operator: bool = False) -> None:
    """Make a request, and end it."""
    visit = Visit(limits)
    try:
        await visit.admit(tenant, key_id, size, operator=operator)
    finally:
        visit.end()


async def test_each_key_has_its_own_rate() -> None:
    """One that asks too much is told which limit and when to come back; others are not."""
    rated = limits(Rates(key_requests_s=2))
    for _ in range(2):
        await admit(rated, "t", "busy")
    with pytest.raises(TooManyRequests) as refused:
        await admit(rated, "t", "busy")
    assert refused.value.facts == {"limit": "key_requests_s", "retry_after_s": 1}
    await admit(rated, "t", "calm")


async def test_an_operator_is_not_shut_out_by_its_tenant() -> None:
    """While a tenant is over its rate, a key that may administer it goes on working."""
    rated = limits(Rates(tenant_requests_s=1))
    await admit(rated, "t", "a")
    with pytest.raises(TooManyRequests):
        await admit(rated, "t", "b")
    await admit(rated, "t", "operator", operator=True)
    await admit(rated, "other", "c")


async def test_bytes_are_counted_by_key() -> None:
    """A key that sends much waits before it may send again, whatever the number of its requests."""
    rated = limits(Rates(key_bytes_s=100))
    await admit(rated, "t", "a", 1_000)
    with pytest.raises(TooManyRequests) as refused:
        await admit(rated, "t", "a", 1)
    assert refused.value.facts == {"limit": "key_bytes_s", "retry_after_s": 10}


async def test_a_request_that_is_tried_again_inside_counts_once() -> None:
    """A stream that is held while the store is away does not use up its key's rate."""
    rated = limits(Rates(key_requests_s=1))
    visit = Visit(rated)
    for _ in range(5):
        await visit.admit("t", "a", 0, operator=False)
    visit.end()


async def test_bodies_wait_for_room() -> None:
    """What would be too much at once comes one after the other."""
    ledger = Ledger(1_000)
    await ledger.take("a", 700)
    second = asyncio.create_task(ledger.take("b", 700))
    await asyncio.sleep(0)
    assert not second.done()
    ledger.give_back("a", 700)
    async with asyncio.timeout(5):
        await second


async def test_a_tenant_cannot_fill_the_room_of_another() -> None:
    """Slow bodies of one tenant leave a quarter for the others."""
    ledger = Ledger(1_000)
    await ledger.take("slow", 700)
    waiting = asyncio.create_task(ledger.take("slow", 200))
    await asyncio.sleep(0)
    await asyncio.wait_for(ledger.take("other", 250), 5)
    assert not waiting.done()
    ledger.give_back("slow", 700)
    await asyncio.wait_for(waiting, 5)


async def test_a_body_that_finds_no_room_is_refused_for_now() -> None:
    """Nothing was written, and it is told when to come back; what it had asked for is not kept."""
    ledger = Ledger(1_000, wait_s=0.01)
    await ledger.take("a", 1_000)
    with pytest.raises(Overloaded) as refused:
        await ledger.take("b", 1)
    assert refused.value.facts == {"limit": "bodies_bytes", "outcome": "not_written", "retry_after_s": 1}
    ledger.give_back("a", 1_000)
    await ledger.take("b", 1_000)


async def test_a_cancelled_wait_leaves_no_debt() -> None:
    """A client that leaves while it waits, or just as there is room, holds nothing."""
    ledger = Ledger(1_000)
    await ledger.take("a", 1_000)
    tasks = [asyncio.create_task(ledger.take("b", 500)) for _ in range(2)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.wait([tasks[0]])
    ledger.give_back("a", 1_000)
    tasks[1].cancel()
    await asyncio.wait([tasks[1]])
    await ledger.take("c", 1_000)
