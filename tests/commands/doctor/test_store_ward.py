"""What the doctor says of stores: real ones, set up well and badly, and the readings that no test can have at will."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.commands.doctor.finding import Finding, has_problem
from gateway.commands.doctor.store_ward import judge_store
from gateway.store.condition import StoreCondition, read_condition
from gateway.store.link import Link, NodeLink
from tests.support.running import RunningStore

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def a_store(**options: str) -> AsyncIterator[RunningStore]:
    """Run a store with these options beside or instead of the usual ones."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        running = RunningStore(Path(folder), environ=None, **options)
        await asyncio.to_thread(running.start)
        try:
            yield running
        finally:
            await asyncio.to_thread(running.stop)


@asynccontextmanager
async def linked(url: str) -> AsyncIterator[Link]:
    """Give a link to a store."""
    link = NodeLink(url, "test")
    task = asyncio.create_task(link.run())
    try:
        yield link
    finally:
        task.cancel()
        await asyncio.wait([task])


async def examine(url: str) -> dict[str, Finding]:
    """Return what is found, by the name of the check; of several the worst is the last."""
    async with linked(url) as link:
        return by_check(await read_condition(link))


def by_check(condition: StoreCondition) -> dict[str, Finding]:
    """Judge a store that is not embedded."""
    return {finding.check: finding for finding in judge_store(condition, embedded=False)}


async def test_a_store_that_keeps_what_it_acknowledges_has_no_problem(store: RunningStore) -> None:
    """The suite's own store is set up as the operations page says."""
    found = await examine(store.url)
    assert not has_problem(found.values()), found
    assert (found["persistence"].level, found["eviction"].level, found["rights"].level) == ("good",) * 3
    assert "at every write" in found["persistence"].said


async def test_a_store_that_forgets_and_evicts_is_told_in_words() -> None:
    """No append-only file, no snapshots, and logs thrown away when it is full: three sentences with their cures."""
    async with a_store(appendonly="no", maxmemory="64mb", **{"maxmemory-policy": "allkeys-lru"}, timeout="60") as bad:
        found = await examine(bad.url)
    assert found["persistence"].level == "problem"
    assert found["persistence"].said.endswith("loses every run.")
    assert "`appendonly yes`" in found["persistence"].cure
    assert (found["eviction"].level, found["eviction"].cure) == ("problem", "Set `maxmemory-policy noeviction`.")
    assert "allkeys-lru" in found["eviction"].said
    assert "60 s" in found["clients"].said


async def test_snapshots_alone_are_not_enough() -> None:
    """What came after the latest one would be lost; the rule of the snapshots is told."""
    async with a_store(appendonly="no", save="900 1") as snapshots:
        found = await examine(snapshots.url)
    assert found["persistence"].level == "problem"
    assert "since the latest snapshot" in found["persistence"].said
    assert "`save 900 1`" in found["persistence"].said


async def test_a_flush_every_second_is_told_with_what_it_can_lose() -> None:
    """It is a choice, not a fault; one that leaves it to the system is warned of."""
    async with a_store(appendfsync="everysec") as store:
        assert (await examine(store.url))["persistence"].level == "note"
    async with a_store(appendfsync="no") as store:
        assert (await examine(store.url))["persistence"].level == "warning"


async def test_a_replica_is_no_store_to_write_to(store: RunningStore) -> None:
    """It would refuse every write; whether it has its primary is told too."""
    async with a_store(replicaof="127.0.0.1 1") as replica:
        found = await examine(replica.url)
    assert found["replication"].level == "problem"
    assert "down" in found["replication"].said


async def test_a_user_that_may_not_write_is_found_without_writing() -> None:
    """Scripts and notifications are tried in a form that changes nothing; the commands and a cure are told."""
    async with a_store(user="weak on >pass ~* &* +@all -eval -evalsha -config") as store:
        found = await examine(store.url.replace("unix://", "unix://weak:pass@"))
    assert (found["rights"].level, "use eval, evalsha:" in found["rights"].said) == ("problem", True)


async def test_a_hosted_store_that_hides_its_configuration_is_no_problem() -> None:
    """What only CONFIG tells is told as not checked; everything else is."""
    async with a_store(user="hosted on >pass ~* &* +@all -config") as store:
        found = await examine(store.url.replace("unix://", "unix://hosted:pass@"))
    assert not has_problem(found.values()), found
    assert "CONFIG may not be asked" in found["configuration"].said
    assert "may not be asked" in found["persistence"].said


@pytest.mark.parametrize(
    ("info", "check", "level", "word"),
    [
        ({"redis_version": "6.2.7"}, "version", "problem", "Redis 6.2.7 is too old"),
        ({"redis_version": "7.0.0"}, "version", "good", "Redis 7.0.0"),
        ({"redis_version": "7.2.4", "valkey_version": "7.2.5"}, "version", "problem", "Valkey 7.2.5 is too old"),
        ({}, "version", "warning", "does not say"),
        ({"loading": "1"}, "loading", "problem", "loading its data"),
        ({"aof_enabled": "1", "aof_last_write_status": "err"}, "disk", "problem", "append-only file failed"),
        ({"aof_last_bgrewrite_status": "err"}, "disk", "warning", "only grows"),
        ({"latest_fork_usec": "900000"}, "fork", "warning", "900 ms"),
        ({"maxmemory_policy": "volatile-lru"}, "eviction", "warning", "volatile-lru"),
        ({"maxmemory_policy": "volatile-lru", "evicted_keys": "3"}, "eviction", "problem", "3 keys"),
        ({"used_memory": "990", "maxmemory": "1000"}, "memory", "problem", "99%"),
        ({"used_memory": "800", "total_system_memory": "1000"}, "memory", "warning", "80%"),
        (
            {"slave0": "ip=x,state=online,lag=0", "slave1": "ip=y,state=online,lag=40"},
            "replication",
            "warning",
            "1 of 2",
        ),
        ({"slave0": "ip=x,state=online,lag=1"}, "replication", "good", "1 replicas follow"),
    ],
)
def test_each_reading_has_its_sentence(info: dict[str, str], check: str, level: str, word: str) -> None:
    """What a store says of itself becomes one level and one sentence."""
    condition = StoreCondition(
        info=info, config={}, clock_ahead_ms=0, round_trips_ms=(0.1, 0.2), refused=(), cluster_state=None
    )
    found = by_check(condition)[check]
    assert found.level == level
    assert word in found.said


@pytest.mark.parametrize(
    ("ahead_ms", "level"), [(5.0, "good"), (-3_000.0, "warning"), (-90_000.0, "problem"), (90_000.0, "problem")]
)
def test_a_clock_that_is_off_is_told_with_its_direction(ahead_ms: float, level: str) -> None:
    """Times in logs are the store's: a store far from everybody else writes times that nobody believes."""
    condition = StoreCondition(
        info={}, config=None, clock_ahead_ms=ahead_ms, round_trips_ms=(9.0, 9.0), refused=(), cluster_state="fail"
    )
    found = by_check(condition)
    assert found["clock"].level == level
    assert ("ahead of" if ahead_ms > 0 else "behind") in found["clock"].said
    assert found["latency"].level == "warning"
    assert found["cluster"].level == "problem"
