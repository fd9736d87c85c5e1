"""Schedules on real gateways that are killed: one run a tick."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.times import format_time
from tests.support.links import connect
from tests.support.processes import serving
from tests.support.running import RunningStore, wait_until
from tests.support.schedules import get_runs, load, make_due, put_schedule

pytestmark = pytest.mark.anyio

TENANT = "default"
SCHEDULES = 40


async def test_every_tick_makes_one_run_while_gateways_are_killed(store: RunningStore, data_dir: Path) -> None:
    """Two gateways over one store, a process of either killed every moment: each schedule's tick has its run, once."""
    settings: dict[str, Any] = {"redis_url": store.url}
    names = [f"killed{number}" for number in range(SCHEDULES)]
    async with (
        serving(data_dir, workers=2, **settings) as first,
        serving(data_dir.with_name("other"), workers=2, **settings) as second,
        connect(store.url) as link,
    ):
        async with first.client() as client:
            for name in names:
                await put_schedule(client, name, cron="@yearly")
        due: dict[str, int] = {}

        async def kill() -> None:
            victim = 0
            while len(due) < SCHEDULES:
                workers = (first, second)[victim % 2].serving_workers()
                if workers:
                    workers[0].kill()
                victim += 1
                await asyncio.sleep(0.15)
            assert victim > 5

        async def fall_due() -> None:
            for name in names:
                due[name] = await make_due(link, TENANT, name)
                await asyncio.sleep(0.05)

        await asyncio.gather(kill(), fall_due())

        async def all_settled() -> bool:
            schedules = [await load(link, TENANT, name) for name in names]
            return all(s.begun is None and (s.last_tick_ms or 0) >= due[s.id] for s in schedules)

        await wait_until(all_settled, timeout_s=60)
        await first.wait_ready()
        async with first.client() as client:
            for name in names:
                assert [run["tick_at"] for run in await get_runs(client, name)] == [format_time(due[name])], name
