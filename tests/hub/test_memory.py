"""The memory of all rings together, and of what readers have not taken."""

from __future__ import annotations

import pytest

from gateway.hub.channel import ChannelLimits
from gateway.hub.memory import RingMemory
from gateway.hub.outlet import Message, Outlet
from gateway.hub.pressure import relieve
from tests.hub.clients import Client
from tests.hub.following import follow
from tests.hub.logs import Log
from tests.support.running import RunningStore

pytestmark = pytest.mark.anyio

ROOMY = ChannelLimits(ring_entries=1000, ring_bytes=1 << 20, chunk_bytes=1 << 16)


class Shelf:
    """Something that is kept until it has to be given up."""

    gave_up = 0

    def give_up(self) -> None:
        """Note it."""
        self.gave_up += 1


def test_those_untouched_for_longest_make_room() -> None:
    """What all keep stays under the ceiling; the one that grows is the last to give up."""
    memory, shelves = RingMemory(100), [Shelf() for _ in range(5)]
    for shelf in shelves:
        memory.note(shelf, 30)
        assert memory.total_bytes <= 100
    assert [shelf.gave_up for shelf in shelves] == [1, 1, 0, 0, 0]
    memory.note(shelves[2], 31)
    memory.note(shelves[0], 30)
    assert [shelf.gave_up for shelf in shelves] == [1, 1, 0, 1, 0]
    for shelf in shelves:
        memory.note(shelf, 0)
    assert memory.total_bytes == 0


async def test_a_ring_that_gave_up_costs_reads_and_no_event(store: RunningStore, log: Log) -> None:
    """Readers at the head go on at once, one that comes from the beginning has all of it from the log."""
    async with follow(store.url, log, ROOMY) as following:
        reader = Client()
        await following.open(reader)
        await following.grow(*["x"] * 20)
        await following.settle()
        following.channel.give_up()
        assert following.channel.ring.size_bytes == 0
        late = Client()
        await following.open(late)
        await following.grow("after")
        await following.settle()
        assert sorted(reader.held) == sorted(late.held) == list(range(1, 23))
        assert not reader.violations + late.violations


async def test_the_fullest_are_let_go_until_the_rest_fits() -> None:
    """Slow readers may hold so much together; those that hold least stay."""
    hung_up: list[int] = []

    async def send(_message: Message) -> None:
        """Take everything."""

    def outlet(size: int) -> Outlet:
        return Outlet(send, lambda coro: coro.close(), hang_up=lambda: hung_up.append(size), transport="test")

    unsent = {outlet(size): size for size in (10, 50, 20, 40)}
    assert relieve(unsent, 120) == 0
    assert relieve(unsent, 40) == 2
    assert hung_up == [50, 40]
