"""Whose turn it is: a bounded number at once, every tenant in its turn, nobody for ever."""

from __future__ import annotations

import asyncio

import pytest

from gateway.edge.turns import Turn, Turns
from gateway.errors import TooManyRequests

pytestmark = pytest.mark.anyio

LONG_S = 30.0


def make_turns(at_once: int, *, waiting: int = 1_000, wait_s: float = LONG_S) -> Turns:
    """Return turns in which nobody is impatient."""
    return Turns(at_once, waiting=waiting, wait_s=wait_s)


async def fill(turns: Turns, tenant: str, count: int) -> list[Turn]:
    """Take turns that are there."""
    async with asyncio.timeout(1):
        return [await turns.enter(tenant) for _ in range(count)]


async def queue_up(turns: Turns, tenant: str, count: int, order: list[str]) -> list[asyncio.Task[Turn]]:
    """Have requests of a tenant wait; `order` is told of each that gets its turn."""

    async def enter() -> Turn:
        turn = await turns.enter(tenant)
        order.append(tenant)
        return turn

    tasks = [asyncio.create_task(enter()) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


async def test_a_flood_of_one_tenant_leaves_turns_for_another() -> None:
    """However many requests a tenant sends, a quarter of the turns is not for it."""
    turns, order = make_turns(8), list[str]()
    await fill(turns, "flood", 6)
    waiting = await queue_up(turns, "flood", 100, order)
    await fill(turns, "other", 2)
    assert order == []
    for task in waiting:
        task.cancel()


async def test_tenants_that_wait_take_turns() -> None:
    """Of what comes free each tenant gets one before any gets its next, whoever has more waiting."""
    turns, order = make_turns(4), list[str]()
    held = [*await fill(turns, "flood", 3), *await fill(turns, "third", 1)]
    tasks = await queue_up(turns, "flood", 50, order)
    tasks += await queue_up(turns, "other", 2, order)
    tasks += await queue_up(turns, "third", 2, order)
    for turn in held:
        turns.leave(turn)
    await asyncio.sleep(0)
    assert sorted(order[:3]) == ["flood", "other", "third"]
    assert len(order) == 4
    for task in tasks:
        task.cancel()


async def test_a_tenant_is_refused_only_beyond_its_own_line() -> None:
    """A full line says no at once, and says when to come back; another tenant's line is another."""
    turns, order = make_turns(1, waiting=2), list[str]()
    await fill(turns, "flood", 1)
    tasks = await queue_up(turns, "flood", 2, order)
    with pytest.raises(TooManyRequests) as refused:
        await turns.enter("flood")
    assert refused.value.facts == {"limit": "requests_waiting", "retry_after_s": 1}
    tasks += await queue_up(turns, "other", 1, order)
    assert not tasks[-1].done()
    for task in tasks:
        task.cancel()


async def test_a_turn_that_waits_itself_is_given_on() -> None:
    """Claims that wait for work, and bodies that do not come, keep nobody from being served."""
    turns = make_turns(2)
    await fill(turns, "slow", 1)
    async with asyncio.timeout(LONG_S):
        # Nobody leaves: the turns are taken from those that keep them.
        for _ in range(6):
            await turns.enter("slow")


async def test_whoever_waits_in_vain_is_told_so() -> None:
    """A wait has an end, and leaves the line as it was."""
    turns, order = make_turns(1, wait_s=0.01), list[str]()
    (turn,) = await fill(turns, "a", 1)
    with pytest.raises(TooManyRequests):
        await turns.enter("a")
    turns.leave(turn)
    assert await queue_up(turns, "a", 1, order)
    assert order == ["a"]


async def test_a_client_that_leaves_the_line_takes_no_turn_along() -> None:
    """A request that is cancelled while its turn is being given to it gives it back."""
    turns, order = make_turns(1), list[str]()
    (turn,) = await fill(turns, "a", 1)
    first, *_ = tasks = await queue_up(turns, "a", 3, order)
    turns.leave(turn)
    first.cancel()
    async with asyncio.timeout(1):
        await asyncio.wait([first])
        await tasks[1]
    assert order == ["a"]
    tasks[2].cancel()


async def test_nothing_is_lost_however_requests_come_and_go() -> None:
    """After any number of turns, waits and cancels all turns are free again."""
    turns = make_turns(3)

    async def visit(tenant: str, number: int) -> None:
        turn = await turns.enter(tenant)
        await asyncio.sleep(0.0001 * (number % 5))
        turns.leave(turn)

    tasks = [asyncio.create_task(visit(f"t{number % 4}", number)) for number in range(300)]
    for number, task in enumerate(tasks):
        if number % 7 == 0:
            task.cancel()
        if number % 20 == 0:
            await asyncio.sleep(0)
    async with asyncio.timeout(LONG_S):
        await asyncio.wait(tasks)
    assert not [task for task in tasks if not task.cancelled() and task.exception()]
    await fill(turns, "a", 2)
    await fill(turns, "b", 1)
