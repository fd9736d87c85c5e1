"""Schedules as the tests play them: put, and made due without waiting for the minute."""

from __future__ import annotations

from typing import Any

import httpx
from msgspec.structs import replace

from gateway.domain.schedules import Schedule
from gateway.store import keys
from gateway.store.link import Link
from gateway.store.schedules import ScheduleStore
from gateway.store.timers import TimerStore
from tests.support.native import accepted

EVERY_MINUTE = {"agent_id": "tester", "cron": "* * * * *", "queue": "ticks"}


async def put_schedule(client: httpx.AsyncClient, schedule_id: str, **about: Any) -> dict[str, Any]:
    """Make or change a schedule of every minute and return it."""
    answer = await client.put(f"/v1/schedules/{schedule_id}", json={**EVERY_MINUTE, **about})
    assert answer.status_code in (200, 201), answer.text
    schedule: dict[str, Any] = answer.json()
    return schedule


async def get_schedule(client: httpx.AsyncClient, schedule_id: str) -> dict[str, Any]:
    """Return a schedule."""
    return accepted(await client.get(f"/v1/schedules/{schedule_id}"))


async def get_runs(client: httpx.AsyncClient, schedule_id: str) -> list[dict[str, Any]]:
    """Return the runs of a schedule, newest first."""
    params: dict[str, Any] = {"schedule_id": schedule_id, "limit": 100}
    data: list[dict[str, Any]] = accepted(await client.get("/v1/runs", params=params))["data"]
    return data


async def load(link: Link, tenant: str, schedule_id: str) -> Schedule:
    """Return a schedule as the store has it."""
    found = await ScheduleStore(link, link).get(tenant, schedule_id)
    assert found is not None
    return found


async def make_due(link: Link, tenant: str, schedule_id: str, *, for_ms: int = 0) -> int:
    """Have a schedule's next tick be one that passed `for_ms` ago or longer, and return when that was."""
    store, timers = ScheduleStore(link, link), TimerStore(link)
    seconds, _micros = await link.call("TIME")
    now_ms = int(seconds) * 1000
    schedule = await load(link, tenant, schedule_id)
    due_ms = schedule.definition.timetable().latest_ms(0, now_ms - for_ms)
    assert due_ms is not None
    while await store.put(replace(schedule, next_ms=due_ms), schedule) is None:
        schedule = await load(link, tenant, schedule_id)
    await timers.arm(keys.schedule_timer(tenant, schedule_id), due_ms)
    return due_ms
