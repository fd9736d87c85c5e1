"""The gateway or its store dies in mid-append, again and again."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.scenarios.claims import check_dense, check_written
from tests.scenarios.crowd import Crowd, gather
from tests.support.processes import GatewayProcess, serving
from tests.support.proxy import Cut, Fate, Proxy, lay_proxy
from tests.support.transcripts import read_log
from tests.support.writers import Writer, create_run

pytestmark = pytest.mark.anyio

KILLS = 3
EVENTS_BETWEEN = 150
LOST_ANSWERS = 60

Kill = Callable[[GatewayProcess], Awaitable[None]]

both_ways = pytest.mark.parametrize("keyed", [False, True], ids=["writer_seq", "idempotency_key"])


async def kill_gateway(gateway: GatewayProcess) -> None:
    """Kill the gateway and start it again."""
    await gateway.kill()
    await gateway.start()


async def kill_store(gateway: GatewayProcess) -> None:
    """Kill the store, and wait until the gateway has started another."""
    await gateway.kill_store()


async def withstand(gateway: GatewayProcess, *, keyed: bool, kills: int, kill: Kill) -> Crowd:
    """Kill under a crowd, which then checks everything."""
    choice = random.Random(7)
    async with gather(gateway, keyed=keyed) as crowd:
        for _ in range(kills):
            await crowd.grows(choice.randint(1, EVENTS_BETWEEN))
            await kill(gateway)
        await crowd.grows(EVENTS_BETWEEN)
    return crowd


@both_ways
async def test_a_killed_gateway_loses_nothing_it_acknowledged(data_dir: Path, keyed: bool) -> None:
    """After kill -9 in mid-append the log is dense, no acknowledged event is missing and none is there twice."""
    async with serving(data_dir) as gateway:
        crowd = await withstand(gateway, keyed=keyed, kills=KILLS, kill=kill_gateway)
        assert crowd.repeats >= KILLS


@both_ways
async def test_a_killed_store_loses_nothing_that_was_acknowledged(data_dir: Path, keyed: bool) -> None:
    """After kill -9 of the store the gateway starts it again, and log, writers and readers go on unharmed."""
    async with serving(data_dir) as gateway:
        pid = gateway.pid
        crowd = await withstand(gateway, keyed=keyed, kills=KILLS, kill=kill_store)
        assert [reader.attempts for reader in crowd.bare] == [1, 1]
        assert gateway.pid == pid
        assert gateway.log.count("the embedded store is back") == KILLS


@both_ways
async def test_an_append_whose_answer_is_lost_is_stored_once(data_dir: Path, keyed: bool) -> None:
    """A writer that cannot know whether its append arrived repeats it, and is told where it stands."""

    def lose_answers(proxy: Proxy) -> Fate | None:
        return Fate(Cut.RESET, choice.randrange(1, 1_500)) if proxy.cuts.total() < LOST_ANSWERS else None

    choice = random.Random(5)
    async with (
        serving(data_dir) as gateway,
        lay_proxy(gateway.port, choose=lose_answers) as proxy,
        gateway.client(base_url=proxy.url) as client,
        gateway.client() as direct,
    ):
        writer = Writer(client, await create_run(direct), "w", keyed=keyed)
        while proxy.cuts.total() < LOST_ANSWERS:
            await writer.append(3)
        log = await read_log(direct, writer.run_id)
    check_dense(log)
    check_written(log, writer)
    assert writer.duplicates > 0
    print(f"{len(log)} events, {writer.repeats} appends repeated, {writer.duplicates} of them stored already")


@pytest.mark.soak
@pytest.mark.timeout(1800)
@both_ways
@pytest.mark.parametrize(("kill", "kills"), [(kill_gateway, 100), (kill_store, 30)])
async def test_many_kills(data_dir: Path, keyed: bool, kill: Kill, kills: int) -> None:
    """The same, many times in a row; a store that keeps dying is started again later each time."""
    async with serving(data_dir) as gateway:
        await withstand(gateway, keyed=keyed, kills=kills, kill=kill)
