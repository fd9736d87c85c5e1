"""The pub/sub connection: confirmed, shared by all channels, and found again after a loss."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.errors import StoreUnavailable
from gateway.store.link import Link
from gateway.store.subscription import Subscription
from tests.hub.logs import open_link
from tests.support.running import RunningStore, wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def link(store: RunningStore, anyio_backend: object) -> AsyncIterator[Link]:
    """A connection to publish with."""
    async with open_link(store.url) as link:
        yield link


@asynccontextmanager
async def listen(
    url: str, *, timeout_s: float = 5, on_restored: Callable[[], None] = lambda: None
) -> AsyncIterator[tuple[Subscription, str]]:
    """Run a subscription; yields it and the name of its connection."""
    name = f"listener-{secrets.token_hex(4)}"
    subscription = Subscription(url, name, timeout_s=timeout_s, on_restored=on_restored)
    running = asyncio.create_task(subscription.run())
    try:
        yield subscription, name
    finally:
        running.cancel()
        async with asyncio.timeout(5):
            await asyncio.wait([running])


async def kill(link: Link, name: str) -> None:
    """Kill a connection by its name."""
    clients = (await link.call("CLIENT", "LIST")).decode().splitlines()
    for line in clients:
        if f"name={name} " in line:
            await link.call("CLIENT", "KILL", "ID", line.split()[0].removeprefix("id="))


def channel() -> str:
    """Return a channel that nobody else uses."""
    return f"test:{secrets.token_hex(6)}"


async def test_nothing_that_is_published_after_the_confirmation_is_missed(store: RunningStore, link: Link) -> None:
    """Once `subscribe` returned, every message comes."""
    async with listen(store.url) as (subscription, _):
        heard: list[bytes] = []
        names = [channel() for _ in range(20)]
        await asyncio.gather(*(subscription.subscribe(name, heard.append) for name in names))
        await link.call_many([("SPUBLISH", name, name) for name in names])
        await wait_until(lambda: len(heard) == len(names))
        assert heard == [name.encode() for name in names]


async def test_hundreds_may_subscribe_at_once(store: RunningStore, link: Link) -> None:
    """None of them is forgotten, however many come in one moment."""
    async with listen(store.url) as (subscription, _):
        names = [channel() for _ in range(500)]
        async with asyncio.timeout(10):
            await asyncio.gather(*(subscription.subscribe(name, lambda _payload: None) for name in names))
        counts = await link.call("PUBSUB", "SHARDNUMSUB", *names)
        assert counts[1::2] == [1] * len(names)


async def test_who_unsubscribed_hears_nothing(store: RunningStore, link: Link) -> None:
    """And may come back."""
    async with listen(store.url) as (subscription, _):
        heard: list[bytes] = []
        name = channel()
        await subscription.subscribe(name, heard.append)
        subscription.unsubscribe(name)
        await wait_until(lambda: _counts(link, name, 0))
        await link.call("SPUBLISH", name, "unheard")
        await subscription.subscribe(name, heard.append)
        await link.call("SPUBLISH", name, "heard")
        await wait_until(lambda: heard == [b"heard"])


async def _counts(link: Link, name: str, wanted: int) -> bool:
    return bool((await link.call("PUBSUB", "SHARDNUMSUB", name))[1] == wanted)


async def test_a_killed_connection_is_made_anew_with_all_its_channels(store: RunningStore, link: Link) -> None:
    """Whoever needs to know is told once every channel is confirmed again."""
    restored: list[int] = []
    async with listen(store.url, on_restored=lambda: restored.append(1)) as (subscription, name):
        heard: list[bytes] = []
        names = [channel() for _ in range(50)]
        for each in names:
            await subscription.subscribe(each, heard.append)
        for round_number in range(1, 4):
            before = len(restored)
            await kill(link, name)
            await wait_until(lambda before=before: len(restored) > before)
            counts = await link.call("PUBSUB", "SHARDNUMSUB", *names)
            assert counts[1::2] == [1] * len(names)
            await link.call("SPUBLISH", names[-1], str(round_number))
            await wait_until(lambda n=round_number: heard[-1:] == [str(n).encode()])


async def test_who_subscribes_while_the_store_is_away_is_served_when_it_is_back(
    store: RunningStore, link: Link
) -> None:
    """The confirmation comes late, but it comes."""
    async with listen(store.url) as (subscription, name):
        await subscription.subscribe(channel(), lambda _payload: None)
        await kill(link, name)
        await wait_until(lambda: subscription._connection is None)
        heard: list[bytes] = []
        wanted = channel()
        await subscription.subscribe(wanted, heard.append)
        await link.call("SPUBLISH", wanted, "x")
        await wait_until(lambda: heard == [b"x"])


async def test_a_handler_that_fails_is_its_own_trouble(store: RunningStore, link: Link) -> None:
    """The others go on hearing on the same connection."""

    def fail(_payload: bytes) -> None:
        raise ValueError("bug")

    restored: list[int] = []
    async with listen(store.url, on_restored=lambda: restored.append(1)) as (subscription, _):
        heard: list[bytes] = []
        bad, good = channel(), channel()
        await subscription.subscribe(bad, fail)
        await subscription.subscribe(good, heard.append)
        before = len(restored)
        await link.call_many([("SPUBLISH", bad, "x"), ("SPUBLISH", good, "y")])
        await wait_until(lambda: heard == [b"y"])
        assert len(restored) == before


async def test_no_confirmation_in_time_is_told_and_leaves_nothing(anyio_backend: object) -> None:
    """A store that cannot be reached is not waited for without end."""
    async with listen("unix:///nonexistent/store.sock", timeout_s=0.05) as (subscription, _):
        for _ in range(3):
            with pytest.raises(StoreUnavailable) as caught:
                await subscription.subscribe("x", lambda _payload: None)
            assert caught.value.facts["outcome"] == "not_written"
        assert subscription._waiting == {}


async def test_a_subscription_ends_when_it_is_told_to(store: RunningStore) -> None:
    """Also when it is just writing: a cancellation must not be lost in there."""
    for _ in range(100):
        async with listen(store.url) as (subscription, _):
            await subscription.subscribe("test:end", lambda _payload: None)
            subscription.unsubscribe("test:end")
            await asyncio.sleep(0)
