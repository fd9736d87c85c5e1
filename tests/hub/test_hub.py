"""The hub: what is written to the store reaches every reader, whatever happens to the notifications."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.cursor import START
from gateway.errors import NotFound, StoreUnavailable
from gateway.hub.channel import Channel
from gateway.hub.hub import Hub
from gateway.hub.outlet import Outlet
from gateway.hub.reader import Reader
from gateway.hub.tail import Tail
from gateway.store.clock import StoreClock
from gateway.store.link import Link
from gateway.store.log import LogName, LogReader
from gateway.store.subscription import Subscription
from tests.hub.clients import Client, Plain
from tests.hub.following import SMALL
from tests.hub.logs import Log, open_link
from tests.hub.relay import lay_relay
from tests.support.running import RunningStore, wait_until

pytestmark = pytest.mark.anyio


class World:
    """A hub over the real store, and its connection for notifications."""

    def __init__(self, hub: Hub, tail: Tail, link: Link, process_id: str) -> None:
        self.hub = hub
        self.tail = tail
        self.link = link
        self._process_id = process_id

    async def connect(self, log: Log, client: Client) -> tuple[Channel, Outlet]:
        """Have a client read a log from its beginning."""
        channel = await self.hub.acquire(log.name)
        outlet = self.hub.open_outlet(
            client.send, hang_up=client.hang_up, transport="test", ping=[{"ping": True}], finish=[{"finish": True}]
        )
        outlet.add(Reader(channel, outlet, Plain(), after=START))
        return channel, outlet

    async def tail_ids(self) -> list[str]:
        """Return the store's ids of the connections for notifications: one, or none for a moment."""
        clients = (await self.link.call("CLIENT", "LIST", "TYPE", "pubsub")).decode()
        name = f"name=gateway-tail-{self._process_id} "
        return [line.split()[0].removeprefix("id=") for line in clients.splitlines() if name in line]

    async def kill_tail(self) -> None:
        """Kill the connection for notifications."""
        for number in await self.tail_ids():
            await self.link.call("CLIENT", "KILL", "ID", number)

    async def listeners(self, log: Log) -> int:
        """Return how many connections hear a log's notifications."""
        _, count = await self.link.call("PUBSUB", "SHARDNUMSUB", log.name.channel)
        return int(count)


@asynccontextmanager
async def open_world(
    url: str, tail_url: str | None = None, *, probe_s: float = 60, **settings: Any
) -> AsyncIterator[World]:
    """Run a hub; it sweeps and pings but once a minute unless told otherwise."""
    process_id = secrets.token_hex(4)
    async with open_link(url) as link:
        tail = Tail(tail_url or url, link, StoreClock(), process_id=process_id, probe_s=probe_s)
        hub = Hub(tail, LogReader(link), SMALL, **{"keepalive_s": 60, "sweep_s": 60, **settings})
        running = [asyncio.create_task(tail.run()), asyncio.create_task(hub.run())]
        await asyncio.sleep(0)
        try:
            yield World(hub, tail, link, process_id)
        finally:
            for task in running:
                task.cancel()
            await asyncio.wait(running)


async def test_events_are_delivered_as_they_are_stored(store: RunningStore, log: Log) -> None:
    """Appends of any size and grouping arrive in order, each once."""
    async with open_world(store.url) as world:
        clients = [Client() for _ in range(3)]
        for client in clients:
            await world.connect(log, client)
        await log.append("a")
        await log.append("b", "c")
        await log.append("x" * 100_000)
        await log.append(*["y" * 1000] * 90)
        await log.append("z")
        await wait_until(lambda: all(client.at.seq == 96 for client in clients))
        for client in clients:
            assert client.seqs == list(range(1, 97))
            assert client.held == await log.tags()


async def test_a_notification_connection_that_is_killed_loses_nothing(store: RunningStore, log: Log) -> None:
    """What was published while nobody heard it is found when the connection is back, without a sweep."""
    async with open_world(store.url) as world:
        client = Client()
        await world.connect(log, client)
        for _ in range(5):
            await log.append("before")
            await world.kill_tail()
            head = await log.append("after", "after")
            await wait_until(lambda head=head: client.at.seq == head)
            await wait_until(lambda: _is(world.listeners(log), 1))
        assert client.seqs == list(range(1, 17))


async def test_a_rollback_while_nobody_heard_is_told(store: RunningStore, log: Log) -> None:
    """A store that comes back older, and has new events by then, is seen through by tags."""
    async with open_world(store.url) as world:
        client = Client()
        await world.connect(log, client)
        await log.append("a")
        saved = await log.save()
        await log.append("b", "c", "d")
        await wait_until(lambda: client.at.seq == 5)
        await world.kill_tail()
        await log.restore(saved)
        await log.append("B", "C")
        await wait_until(lambda: client.at.seq == 4)
        assert client.told == ["stream.reset"]
        assert client.controls[0]["valid_through"] == 2
        assert client.held == await log.tags()


async def test_a_sweep_finds_what_nobody_told_of(store: RunningStore, log: Log) -> None:
    """A log that changed without any notification is noticed by comparing heads."""
    async with open_world(store.url, sweep_s=0.05) as world:
        client = Client()
        await world.connect(log, client)
        await log.append("a")
        saved = await log.save()
        await log.append("b")
        await wait_until(lambda: client.at.seq == 3)
        await log.restore(saved)
        await wait_until(lambda: client.told == ["stream.reset"])
        await log.append("c")
        await wait_until(lambda: client.held == {1: client.held[1], 2: client.held[2], 3: client.at.tag})
        assert client.held == await log.tags()


async def test_a_sweep_finds_a_rollback_that_late_hints_cover_up(store: RunningStore, log: Log) -> None:
    """A channel that hears only what it cannot use counts as silent."""
    async with open_world(store.url, sweep_s=0.05) as world:
        client = Client()
        channel, _ = await world.connect(log, client)
        saved = await log.save()
        for _ in range(SMALL.ring_entries + 10):
            await log.append("a")
        await wait_until(lambda: channel.ring.head_seq == SMALL.ring_entries + 11)
        await log.restore(saved)
        for number in range(3):
            await log.append("new")
            await wait_until(lambda number=number: client.at.seq == number + 2 and client.told == ["stream.reset"])
        assert client.held == await log.tags()


async def test_garbage_on_the_stores_channel_hurts_nobody(store: RunningStore, log: Log) -> None:
    """Whoever can publish can at most make the gateway read."""
    async with open_world(store.url) as world:
        client = Client()
        await world.connect(log, client)
        for payload in (b"", b"\xff\xfe", b"1 2 3", b"99 running 0 1 0\n"):
            await world.link.call("SPUBLISH", log.name.channel, payload)
        await log.append("a")
        await wait_until(lambda: client.seqs == [1, 2])


async def test_a_log_is_followed_once_however_many_ask(store: RunningStore, log: Log) -> None:
    """A hundred readers who come at once share one channel and one subscription."""
    async with open_world(store.url) as world:
        channels = await asyncio.gather(*(world.hub.acquire(log.name) for _ in range(100)))
        assert len(set(channels)) == 1
        assert await world.listeners(log) == 1


async def test_a_log_that_nobody_reads_is_left(store: RunningStore, log: Log) -> None:
    """A while after its last reader the channel is unsubscribed; a reader who comes in time keeps it."""
    async with open_world(store.url, idle_s=0.15) as world:
        first = await world.hub.acquire(log.name)
        world.hub.release(first)
        assert await world.hub.acquire(log.name) is first
        await asyncio.sleep(0.2)
        assert await world.listeners(log) == 1
        world.hub.release(first)
        await wait_until(lambda: _is(world.listeners(log), 0))
        await log.append("unheard")
        client = Client()
        second, _ = await world.connect(log, client)
        assert second is not first
        await log.append("heard")
        await wait_until(lambda: client.seqs == [1, 2, 3])


async def _is(answer: Awaitable[object], wanted: object) -> bool:
    return bool(await answer == wanted)


async def _is_not(answer: Awaitable[object], unwanted: object) -> bool:
    return bool(await answer != unwanted)


async def test_a_log_that_does_not_exist_is_not_followed(store: RunningStore) -> None:
    """Asking for it again and again leaves nothing behind."""
    async with open_world(store.url, idle_s=0.01) as world:
        name = LogName.of_run("01ARZ3NDEKTSV4RRFFQ69G5FAV")
        for _ in range(3):
            with pytest.raises(NotFound):
                await world.hub.acquire(name)
        await wait_until(lambda: not world.hub._followed)


async def test_who_stops_waiting_for_a_log_does_not_spoil_it(store: RunningStore, log: Log) -> None:
    """A request that is given up while the channel is made ready leaves the others theirs."""
    async with open_world(store.url) as world:
        asking = [asyncio.create_task(world.hub.acquire(log.name)) for _ in range(3)]
        await asyncio.sleep(0)
        asking[0].cancel()
        channels = await asyncio.gather(*asking[1:])
        assert len(set(channels)) == 1
        assert channels[0].primed


async def test_quiet_connections_are_kept_alive(store: RunningStore, log: Log) -> None:
    """A connection on which nothing happens gets a sign of life again and again."""
    async with open_world(store.url, keepalive_s=0.05) as world:
        client = Client()
        await world.connect(log, client)
        await wait_until(lambda: client.messages.count({"ping": True}) >= 3)
        assert client.seqs == [1]


async def test_a_deaf_connection_is_noticed_and_made_anew(store: RunningStore, log: Log, short_path: Path) -> None:
    """Probes through the store's publish path prove that notifications arrive; when they do not, readiness is red."""
    async with (
        lay_relay(store.url, short_path) as relay,
        open_world(store.url, relay.url, probe_s=0.05) as world,
    ):
        client = Client()
        await world.connect(log, client)
        assert world.tail.healthy
        relay.deafen()
        await log.append("unheard")
        await wait_until(lambda: not world.tail.healthy)
        await wait_until(lambda: world.tail.healthy)
        await wait_until(lambda: client.seqs == [1, 2])
        await log.append("heard")
        await wait_until(lambda: client.seqs == [1, 2, 3])


async def test_a_connection_that_stays_deaf_is_made_anew_again(store: RunningStore, log: Log, short_path: Path) -> None:
    """One new connection is not the last attempt."""
    async with (
        lay_relay(store.url, short_path) as relay,
        open_world(store.url, relay.url, probe_s=0.03) as world,
    ):
        client = Client()
        await world.connect(log, client)
        for _ in range(3):
            await wait_until(lambda: _is(world.listeners(log), 1))
            mine = await world.tail_ids()
            relay.deafen()
            await wait_until(lambda mine=mine: _is_not(world.tail_ids(), mine))
        await log.append("heard")
        await wait_until(lambda: client.seqs == [1, 2])


async def test_no_confirmation_means_that_the_store_is_away(store: RunningStore, log: Log, short_path: Path) -> None:
    """Nobody is given a log whose notifications might not come."""
    async with lay_relay(store.url, short_path) as relay, open_world(store.url, relay.url) as world:
        await world.hub.acquire((await Log(world.link).create()).name)
        relay.deafen()
        subscription = world.tail._subscription
        assert isinstance(subscription, Subscription)
        subscription._timeout_s = 0.05
        with pytest.raises(StoreUnavailable):
            await world.hub.acquire(log.name)
        assert not subscription._waiting
