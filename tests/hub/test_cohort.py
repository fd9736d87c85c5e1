"""Passes over readers: each log has its turn, and a reader that asks for pauses gets larger writes after them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest

from gateway.hub.channel import ChannelLimits
from gateway.hub.cohort import PUSH_SLICE, Pushing
from gateway.hub.outlet import Message
from gateway.store.link import Link
from gateway.store.log import Entry
from tests.hub.clients import Client, Plain
from tests.hub.following import follow
from tests.hub.logs import Log, forget
from tests.support.running import RunningStore, wait_until

pytestmark = pytest.mark.anyio

ROOMY = ChannelLimits(ring_entries=1000, ring_bytes=1 << 20, chunk_bytes=1 << 16)
LINGER_S = 0.15


def sizes(client: Client) -> list[int]:
    """Return how many events each message had."""
    return [len(message["entries"]) for message in client.messages if "entries" in message]


async def test_the_first_event_is_never_held_back(store: RunningStore, log: Log) -> None:
    """After a silence an event goes at once; those that follow within the pause go together at its end."""
    async with follow(store.url, log, ROOMY) as following:
        client = Client()
        await following.open(client, linger_s=LINGER_S, direct=True)
        assert client.seqs == [1]
        following.channel.hear(await following.append("first"))
        await following.pushing.flush()
        assert client.seqs == [1, 2]
        began = asyncio.get_running_loop().time()
        for text in "abc":
            following.channel.hear(await following.append(text))
            await following.pushing.flush()
        assert client.seqs == [1, 2]
        await wait_until(lambda: following.pushing.wanted)
        await following.pushing.flush()
        assert client.seqs == [1, 2, 3, 4, 5]
        assert sizes(client) == [1, 1, 3]
        assert asyncio.get_running_loop().time() - began < 2 * LINGER_S


async def test_a_reader_that_asks_for_pauses_makes_nobody_else_wait(store: RunningStore, log: Log) -> None:
    """Readers of one log go at their own pace."""
    async with follow(store.url, log, ROOMY) as following:
        patient, prompt = Client(), Client()
        await following.open(patient, linger_s=60, direct=True)
        await following.open(prompt, direct=True)
        for text in "abc":
            following.channel.hear(await following.append(text))
            await following.pushing.flush()
        assert sizes(prompt) == [1, 1, 1, 1]
        assert patient.seqs == [1, 2]
        # Its time would come after the test's.
        for reader in following.channel.readers:
            reader.outlet.close()


async def test_a_log_with_many_readers_does_not_keep_another_waiting(store: RunningStore, link: Link, log: Log) -> None:
    """A pass over thousands of readers of one log is interrupted for the readers of others."""
    other = await Log(link).create()
    pushing = Pushing()
    async with (
        follow(store.url, log, ROOMY, pushing=pushing) as crowded,
        follow(store.url, other, ROOMY, pushing=pushing) as lonely,
    ):
        crowd = [Client() for _ in range(4 * PUSH_SLICE)]
        for client in crowd:
            await crowded.open(client, direct=True)
        single = Client()
        await lonely.open(single, direct=True)
        crowded.channel.hear(await crowded.append("a"))
        lonely.channel.hear(await lonely.append("b"))
        flushing = asyncio.create_task(pushing.flush())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert single.seqs == [1, 2]
        assert crowd[-1].seqs == [1]
        await flushing
        assert all(client.seqs == [1, 2] for client in crowd)
    await forget(link, other)


async def test_logs_with_a_reader_each_are_pushed_to_in_turn(store: RunningStore, link: Link) -> None:
    """Each gets what its log has, in one write, however often it was woken."""
    pushing = Pushing()
    logs = [await Log(link).create() for _ in range(4)]
    async with AsyncExitStack() as stack:
        followings = [await stack.enter_async_context(follow(store.url, log, ROOMY, pushing=pushing)) for log in logs]
        clients = [Client() for _ in logs]
        for following, client in zip(followings, clients, strict=True):
            await following.open(client, direct=True)
        for text in "abc":
            for following in reversed(followings):
                following.channel.hear(await following.append(text))
        await pushing.flush()
        assert not pushing.wanted
        assert [sizes(client) for client in clients] == [[1, 3]] * len(logs)
        followings[0].channel.hear(await followings[0].append("d"))
        assert pushing.wanted
        await pushing.flush()
        assert clients[0].seqs == [1, 2, 3, 4, 5]
    for log in logs:
        await forget(link, log)


async def test_a_reader_that_fails_leaves_the_others_of_its_turn_alone(store: RunningStore, link: Link) -> None:
    """What cannot be encoded ends one connection; logs that wait behind it are pushed to, then and later."""
    pushing, broken = Pushing(), Client()

    class Choking(Plain):
        def encode(self, entries: Sequence[Entry]) -> list[Message]:
            if entries[-1].seq > 1:
                raise RuntimeError("cannot be shown")
            return super().encode(entries)

    logs = [await Log(link).create() for _ in range(2)]
    async with (
        follow(store.url, logs[0], ROOMY, pushing=pushing) as first,
        follow(store.url, logs[1], ROOMY, pushing=pushing) as second,
    ):
        client = Client()
        outlet = await first.open(broken, Choking(), direct=True)
        await second.open(client, direct=True)
        for text in "ab":
            first.channel.hear(await first.append(text))
            second.channel.hear(await second.append(text))
            await pushing.flush()
        assert outlet.closed
        assert broken.hung_up
        assert client.seqs == [1, 2, 3]
    for log in logs:
        await forget(link, log)


async def test_an_event_that_comes_during_a_pass_reaches_those_it_had_been_at(store: RunningStore, log: Log) -> None:
    """Whoever the pass has yet to reach gets both events in one write, the others the second in the next pass."""
    async with follow(store.url, log, ROOMY) as following:
        crowd = [Client() for _ in range(2 * PUSH_SLICE)]
        for client in crowd:
            await following.open(client, direct=True)
        following.channel.hear(await following.append("a"))
        second = await following.append("b")
        flushing = asyncio.create_task(following.pushing.flush())
        await asyncio.sleep(0)
        following.channel.hear(second)
        await flushing
        assert all(client.seqs == [1, 2, 3] for client in crowd)
        assert sizes(crowd[0]) == [1, 1, 1]
        assert sizes(crowd[-1]) == [1, 2]


async def test_a_connection_that_takes_no_more_is_left_to_a_task(store: RunningStore, log: Log) -> None:
    """Bytes that are refused are sent by a task, and nothing overtakes them."""
    async with follow(store.url, log, ROOMY) as following:
        slow, quick = Client(), Client()
        outlet = await following.open(slow, Plain(), direct=True)
        await following.open(quick, Plain(), direct=True)
        slow.stop_reading()
        for text in "abc":
            await following.grow(text)
        assert outlet.busy
        assert slow.most_waiting == 1
        assert quick.seqs == [1, 2, 3, 4]
        assert slow.seqs == [1]
        slow.read_on()
        await following.settle()
        assert slow.seqs == quick.seqs
