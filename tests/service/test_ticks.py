"""Ticks of schedules: exactly one run each, whatever is lost, by however many processes they are fired."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.domain.schedules import Begun
from gateway.domain.times import format_time
from gateway.store import keys
from gateway.store.link import Link
from gateway.store.schedules import ScheduleStore
from tests.support.choke import open_choke
from tests.support.links import connect
from tests.support.native import accepted
from tests.support.running import RunningGateway, RunningStore, run_gateway, wait_until
from tests.support.schedules import get_runs, get_schedule, load, make_due, put_schedule

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def link(store: RunningStore, anyio_backend: object) -> AsyncIterator[Link]:
    """A connection of the test's own."""
    async with connect(store.url) as link:
        yield link


async def wait_settled(api: RunningGateway, link: Link, schedule_id: str, tick_ms: int) -> None:
    """Wait until a tick, or a later one, has its run and nothing is under way."""

    async def is_settled() -> bool:
        schedule = await load(link, api.tenant, schedule_id)
        return schedule.begun is None and (schedule.last_tick_ms or 0) >= tick_ms

    await wait_until(is_settled, timeout_s=30)


async def check_one_run_a_tick(api: RunningGateway, schedule_id: str, tick_ms: int) -> None:
    """Check that a tick has one run, no tick has two, and every list shows it where its record says it is."""
    runs = await get_runs(api.client, schedule_id)
    ticks = [run["tick_at"] for run in runs]
    assert ticks.count(format_time(tick_ms)) == 1, ticks
    assert len(set(ticks)) == len(ticks)
    queued = accepted(await api.client.get("/v1/runs", params={"schedule_id": schedule_id, "status": "queued"}))["data"]
    assert [run["id"] for run in queued] == [run["id"] for run in runs]


@pytest.mark.parametrize("executed", [False, True], ids=["lost", "answer lost"])
async def test_a_tick_that_is_cut_makes_one_run(store: RunningStore, link: Link, executed: bool) -> None:
    """At whatever step the store was lost, and whoever goes on: the same process, or another one."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        async with open_choke(store.url, Path(folder)) as choke, run_gateway(choke.url) as api:
            for step in range(40):
                schedule_id = f"cut{step}"
                await put_schedule(api.client, schedule_id, enabled=False)
                schedule = await load(link, api.tenant, schedule_id)
                # Looked at by hand, so that no other look comes between.
                look = api.gateway._timers._lookers["schedule"]
                definition = replace(schedule.definition, enabled=True)
                due = replace(schedule, definition=definition, next_ms=schedule.created_ms // 60_000 * 60_000)
                assert await ScheduleStore(link, link).put(due, schedule)
                await wait_until(lambda: api.gateway.why_not_ready() == [])
                choke.arm(
                    step,
                    executed=executed,
                    counts=lambda command: api.tenant.encode() in b" ".join(command) or command[0] == b"ZADD",
                )
                (failure,) = await asyncio.gather(look.look(f"{api.tenant}:{schedule_id}"), return_exceptions=True)
                cut = choke.sprung
                assert cut or not isinstance(failure, BaseException)
                choke.disarm()
                await wait_until(lambda: api.gateway.why_not_ready() == [])
                await look.look(f"{api.tenant}:{schedule_id}")
                tick_ms = (await load(link, api.tenant, schedule_id)).last_tick_ms
                assert tick_ms is not None
                await check_one_run_a_tick(api, schedule_id, tick_ms)
                if not cut:
                    break
            assert step > 6
            assert not cut


async def test_many_processes_make_one_run_of_a_tick(store: RunningStore, link: Link) -> None:
    """All at once."""
    async with (
        run_gateway(store.url) as first,
        run_gateway(store.url, tenant=first.tenant) as second,
        run_gateway(store.url, tenant=first.tenant) as third,
    ):
        gateways = (first, second, third)
        for number in range(10):
            schedule_id = f"many{number}"
            await put_schedule(first.client, schedule_id)
            tick_ms = await make_due(link, first.tenant, schedule_id)
            name = f"{first.tenant}:{schedule_id}"
            looks = [api.gateway._timers._lookers["schedule"].look(name) for api in gateways for _ in range(3)]
            await asyncio.gather(*looks)
            await wait_settled(first, link, schedule_id, tick_ms)
            last_ms = (await load(link, first.tenant, schedule_id)).last_tick_ms
            assert last_ms is not None
            await check_one_run_a_tick(first, schedule_id, last_ms)


async def test_a_tick_that_was_begun_is_finished_by_the_timer(gateway: RunningGateway, link: Link) -> None:
    """Its process died once the note was written; the definition may have changed since."""
    api = gateway
    await put_schedule(api.client, "begun", cron="0 0 1 1 *")
    schedule = await load(link, api.tenant, "begun")
    begun = Begun(1_767_225_600_000, "01M8CQY3NEBWS0BHKWHPNEY9PQ")
    assert await ScheduleStore(link, link).put(replace(schedule, begun=begun), schedule)
    # A change keeps the tick that was begun, and has somebody look at once.
    await put_schedule(api.client, "begun", cron="0 0 1 1 *", title="changed")
    await wait_settled(api, link, "begun", begun.tick_ms)
    (run,) = await get_runs(api.client, "begun")
    assert (run["id"], run["title"], run["tick_at"]) == (begun.run_id, "changed", "2026-01-01T00:00:00.000Z")
    assert (await get_schedule(api.client, "begun"))["last_run_id"] == begun.run_id


async def test_a_tick_whose_run_is_there_makes_no_other(gateway: RunningGateway, link: Link) -> None:
    """Although nothing remembers it but the note: the key of its creation has run out long ago."""
    api = gateway
    await put_schedule(api.client, "there", cron="0 0 1 1 *")
    run = accepted(await api.client.post("/v1/schedules/there/trigger"), 201)
    schedule = await load(link, api.tenant, "there")
    begun = Begun(1_767_225_600_000, run["id"])
    assert await ScheduleStore(link, link).put(replace(schedule, begun=begun), schedule)
    await api.gateway._timers._lookers["schedule"].look(f"{api.tenant}:there")
    assert [listed["id"] for listed in await get_runs(api.client, "there")] == [run["id"]]
    assert (await load(link, api.tenant, "there")).begun is None


async def test_a_tick_that_is_due_survives_a_change_of_something_else(gateway: RunningGateway, link: Link) -> None:
    """Only other times, or a pause, put it off."""
    api = gateway
    await put_schedule(api.client, "kept", enabled=False)
    schedule = await load(link, api.tenant, "kept")
    definition = replace(schedule.definition, enabled=True)
    assert await ScheduleStore(link, link).put(replace(schedule, definition=definition, next_ms=60_000), schedule)
    await put_schedule(api.client, "kept", title="changed")

    async def has_run() -> bool:
        return bool(await get_runs(api.client, "kept"))

    await wait_until(has_run)


async def test_a_time_zone_that_is_no_more_stops_its_schedule_with_a_word(gateway: RunningGateway, link: Link) -> None:
    """Until somebody changes it; nothing is tried over and over."""
    api = gateway
    await put_schedule(api.client, "gone", enabled=False)
    schedule = await load(link, api.tenant, "gone")
    definition = replace(schedule.definition, enabled=True, timezone="Old/Place")
    changed = await ScheduleStore(link, link).put(replace(schedule, definition=definition, next_ms=60_000), schedule)
    assert changed is not None
    assert await api.gateway._timers._lookers["schedule"].look(f"{api.tenant}:gone") is None
    shown = await get_schedule(api.client, "gone")
    assert (shown["next_at"], shown["last_error"]["code"]) == (None, "invalid_body")
    assert "Old/Place" in shown["last_error"]["detail"]
    # The zone is back: the same definition again sets it going.
    schedule = await load(link, api.tenant, "gone")
    assert await ScheduleStore(link, link).put(
        replace(schedule, definition=replace(definition, timezone="UTC")), schedule
    )
    again = await put_schedule(api.client, "gone", enabled=True)
    assert (again["next_at"] is not None, again["last_error"]) == (True, None)


async def test_a_removed_schedule_leaves_no_timer(gateway: RunningGateway, link: Link) -> None:
    """The next look finds nothing, and puts it away."""
    api = gateway
    await put_schedule(api.client, "leaving")
    accepted(await api.client.delete("/v1/schedules/leaving"))
    member = keys.schedule_timer(api.tenant, "leaving")
    await link.call("ZADD", keys.timers(keys.partition(member)), 1, member)

    async def is_away() -> bool:
        return await link.call("ZSCORE", keys.timers(keys.partition(member)), member) is None

    await wait_until(is_away)
