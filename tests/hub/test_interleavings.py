"""Whatever happens, in whatever order: readers have each event once, in order, or were told why not."""

from __future__ import annotations

import anyio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.hub.outlet import Outlet
from tests.hub.clients import Client
from tests.hub.following import Following, follow
from tests.hub.logs import Log, Saved, forget, open_link
from tests.support.running import RunningStore

CLIENTS = 3

Step = tuple[str, int, int]

steps = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 5), st.sampled_from([10, 10, 300, 1500])),
    st.tuples(st.just("hear"), st.just(0), st.just(0)),
    st.tuples(st.sampled_from(["hear_any", "lose"]), st.integers(0, 30), st.just(0)),
    st.tuples(st.sampled_from(["connect", "cut", "stop", "go"]), st.integers(0, CLIENTS - 1), st.just(0)),
    st.tuples(st.sampled_from(["settle", "sweep", "save", "end", "restart"]), st.just(0), st.just(0)),
    st.tuples(st.just("trim"), st.integers(1, 40), st.just(0)),
    st.tuples(st.just("roll_back"), st.integers(0, 5), st.just(0)),
)


class World:
    """A log, the channel that follows it, and clients that come and go."""

    def __init__(self, following: Following) -> None:
        self.following = following
        self.log = following.log
        self.clients = [Client() for _ in range(CLIENTS)]
        self.outlets: list[Outlet | None] = [None] * CLIENTS
        self.reading = [True] * CLIENTS
        self.saved: list[Saved] = []
        self.heard = 0
        self.ended = False

    async def take(self, step: Step) -> None:
        """Do one thing; one that is not possible now is left out."""
        name, number, size = step
        await getattr(self, name)(number, size)

    async def append(self, count: int, size: int) -> None:
        if not self.ended:
            await self.following.append(*["x" * size] * count)

    async def hear(self, _: int, __: int) -> None:
        if self.heard < len(self.following.hints):
            self.following.channel.hear(self.following.hints[self.heard])
            self.heard += 1

    async def hear_any(self, number: int, _: int) -> None:
        if self.following.hints:
            self.following.channel.hear(self.following.hints[number % len(self.following.hints)])

    async def lose(self, _: int, __: int) -> None:
        self.heard = min(self.heard + 1, len(self.following.hints))

    async def connect(self, number: int, _: int) -> None:
        outlet = self.outlets[number]
        if outlet is None or outlet.closed:
            before = self.clients[number]
            assert not before.violations
            client = self.clients[number] = Client(before.at, before.held)
            if not self.reading[number]:
                client.stop_reading()
            # One by `send`, one that takes bytes at once, one of those with pauses between.
            self.outlets[number] = await self.following.open(
                client, finish=True, direct=number > 0, linger_s=0.002 if number == 2 else 0
            )

    async def cut(self, number: int, _: int) -> None:
        outlet, before = self.outlets[number], self.clients[number]
        if outlet is not None:
            outlet.close()
            # What it had not taken yet is lost with the connection.
            self.clients[number] = Client(before.at, before.held)
            before.read_on()
            self.outlets[number] = None

    async def stop(self, number: int, _: int) -> None:
        self.reading[number] = False
        self.clients[number].stop_reading()

    async def go(self, number: int, _: int) -> None:
        self.reading[number] = True
        self.clients[number].read_on()

    async def settle(self, _: int, __: int) -> None:
        await self.following.settle()

    async def sweep(self, _: int, __: int) -> None:
        await self.following.sweep()
        for number, outlet in enumerate(self.outlets):
            if outlet is not None and not outlet.closed and self.reading[number]:
                await self.check(self.clients[number])

    async def save(self, _: int, __: int) -> None:
        self.saved.append(await self.log.save())

    async def roll_back(self, number: int, _: int) -> None:
        if self.saved:
            await self.log.restore(self.saved[number % len(self.saved)])
            head, _entries = await self.log.read()
            self.ended = head.status == "completed"

    async def end(self, _: int, __: int) -> None:
        if not self.ended:
            await self.log.end()
            await self.following.published()
            self.ended = True

    async def restart(self, _: int, __: int) -> None:
        if self.ended:
            await self.log.restart()
            await self.following.published()
            self.ended = False

    async def trim(self, number: int, _: int) -> None:
        if self.ended:
            await self.log.trim(number)

    async def finish(self) -> None:
        """Let everybody catch up, whatever state they are in, and look at what they have."""
        for number in range(CLIENTS):
            await self.go(number, 0)
        await self.sweep(0, 0)
        for number in range(CLIENTS):
            await self.connect(number, 0)
        await self.following.settle()
        for client in self.clients:
            await self.check(client)

    async def check(self, client: Client) -> None:
        """Check that a client has all of the log, and nothing else of what the log has."""
        head, entries = await self.log.read()
        assert not client.violations
        assert client.at.seq == head.seq
        assert client.at.tag in (None, head.tag)
        for entry in entries:
            assert client.held.get(entry.seq, entry.tag) == entry.tag
        assert max(client.held, default=0) <= head.seq


async def play(url: str, story: list[Step]) -> None:
    """Play a story from a new run on, then let everybody catch up."""
    async with open_link(url) as link:
        log = await Log(link, notice_bytes=1200).create()
        try:
            async with follow(url, log) as following:
                world = World(following)
                for step in story:
                    await world.take(step)
                await world.finish()
        finally:
            await forget(link, log)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(story=st.lists(steps, min_size=5, max_size=60))
def test_no_interleaving_loses_or_repeats_an_event(store: RunningStore, story: list[Step]) -> None:
    """Appends, connections, cuts, slow readers, lost and late notifications, rollbacks, ends and trims, mixed."""
    anyio.run(play, store.url, story, backend_options={"use_uvloop": True})
