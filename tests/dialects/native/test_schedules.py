"""Schedules over the API: made, shown, changed, paused, triggered, removed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.domain.times import format_time, parse_time
from gateway.store.link import Link
from tests.support.links import connect
from tests.support.native import accepted, get_log, open_client, refused
from tests.support.running import COMPLETE, RunningGateway, RunningStore, wait_until
from tests.support.schedules import get_runs, get_schedule, make_due, put_schedule
from tests.support.work import claim_one, put_agent, write

pytestmark = pytest.mark.anyio

MINUTE_MS = 60_000


@pytest.fixture(scope="module")
async def link(store: RunningStore, anyio_backend: object) -> AsyncIterator[Link]:
    """A connection of the test's own."""
    async with connect(store.url) as link:
        yield link


async def wait_tick(api: RunningGateway, schedule_id: str, tick_ms: int) -> dict[str, Any]:
    """Wait until a tick was noted, and return the schedule."""
    tick_at = format_time(tick_ms)

    async def is_noted() -> bool:
        schedule = await get_schedule(api.client, schedule_id)
        return tick_at in (schedule["last_tick_at"], schedule["last_skipped_at"])

    await wait_until(is_noted)
    return await get_schedule(api.client, schedule_id)


async def test_a_schedule_is_made_and_shown(api: RunningGateway) -> None:
    """With its next tick in its time zone; the same again changes nothing."""
    body = {"agent_id": "reporter", "cron": "30 9 * * 1-5", "timezone": "Europe/Berlin", "input": {"a": 1}}
    answer = await api.client.put("/v1/schedules/made", json=body)
    made = accepted(answer, 201)
    assert (made["next_at"] is not None, made["last_run_id"], made["last_error"]) == (True, None, None)
    assert (made["enabled"], made["overlap"], made["input"]) == (True, "allow", {"a": 1})
    assert accepted(await api.client.put("/v1/schedules/made", json=body)) == made
    assert await get_schedule(api.client, "made") == made
    changed = accepted(await api.client.put("/v1/schedules/made", json={**body, "input": {"a": True}}))
    assert changed["input"] == {"a": True}
    assert changed["next_at"] == made["next_at"]
    assert changed["created_at"] == made["created_at"]


async def test_a_tick_creates_a_queued_run(api: RunningGateway, link: Link) -> None:
    """As the schedule says, for whoever claims it; the run names its schedule and its tick."""
    about = {"input": {"topic": "news"}, "title": "News", "tags": {"a": "b"}, "metadata": {"m": 1}, "priority": 3}
    await put_schedule(api.client, "news", concurrency_key="k", **about)
    tick_ms = await make_due(link, api.tenant, "news")
    claimed = await claim_one(api, "ticks")
    run = claimed["run"]
    assert {name: run[name] for name in about} == about
    assert (run["mode"], run["trigger"], run["schedule_id"]) == ("queued", "cron", "news")
    assert (run["tick_at"], run["concurrency_key"]) == (format_time(tick_ms), "k")
    assert run["created_by"] == {"kind": "system", "id": "gateway", "triggered_by": "schedule news"}
    assert run["idempotency_key"] is None
    created = (await get_log(api, run["id"]))[0]["data"]
    assert (created["schedule_id"], created["tick_at"]) == ("news", format_time(tick_ms))
    schedule = await wait_tick(api, "news", tick_ms)
    assert schedule["last_run_id"] == run["id"]
    assert parse_time(schedule["next_at"]) > tick_ms
    accepted(await write(api, claimed, COMPLETE))
    assert [listed["id"] for listed in await get_runs(api.client, "news")] == [run["id"]]


async def test_of_missed_ticks_the_last_is_made_up_for(api: RunningGateway, link: Link) -> None:
    """One run, not a flood; then it goes on."""
    await put_schedule(api.client, "missed", queue="missed")
    missed_ms = await make_due(link, api.tenant, "missed", for_ms=500 * MINUTE_MS)
    claimed = await claim_one(api, "missed")
    tick_ms = parse_time(claimed["run"]["tick_at"])
    assert tick_ms > missed_ms + 400 * MINUTE_MS
    schedule = await wait_tick(api, "missed", tick_ms)
    assert parse_time(schedule["next_at"]) == tick_ms + MINUTE_MS
    assert len(await get_runs(api.client, "missed")) == 1


async def test_a_tick_passes_while_the_last_run_goes_on(api: RunningGateway, link: Link) -> None:
    """Where overlap is skipped; the next one after its end makes a run again."""
    await put_schedule(api.client, "skipping", queue="skipping", overlap="skip")
    first = accepted(await api.client.post("/v1/schedules/skipping/trigger"), 201)
    tick_ms = await make_due(link, api.tenant, "skipping")
    schedule = await wait_tick(api, "skipping", tick_ms)
    assert schedule["last_skipped_at"] is not None
    assert schedule["last_run_id"] == first["id"]
    assert len(await get_runs(api.client, "skipping")) == 1
    accepted(await write(api, await claim_one(api, "skipping"), COMPLETE))
    await make_due(link, api.tenant, "skipping")
    claimed = await claim_one(api, "skipping")
    assert claimed["run"]["id"] != first["id"]


async def test_ticks_overlap_where_that_is_allowed(api: RunningGateway, link: Link) -> None:
    """By default."""
    await put_schedule(api.client, "overlapping", queue="overlapping")
    accepted(await api.client.post("/v1/schedules/overlapping/trigger"), 201)
    await wait_tick(api, "overlapping", await make_due(link, api.tenant, "overlapping"))
    assert len(await get_runs(api.client, "overlapping")) == 2


async def test_a_paused_schedule_does_not_tick(api: RunningGateway, link: Link) -> None:
    """A tick that was due is dropped with it; resumed, it goes on from now."""
    await put_schedule(api.client, "paused", enabled=False)
    assert (await get_schedule(api.client, "paused"))["next_at"] is None
    await make_due(link, api.tenant, "paused")
    await put_schedule(api.client, "paused", enabled=True, title="again")
    await put_schedule(api.client, "paused", enabled=False)
    resumed = await put_schedule(api.client, "paused", enabled=True)
    assert parse_time(resumed["next_at"]) > parse_time(resumed["updated_at"])


async def test_a_schedule_is_triggered_by_hand(api: RunningGateway) -> None:
    """Also while it is paused; once for one idempotency key, whatever changed meanwhile."""
    await put_schedule(api.client, "manual", enabled=False, input={"n": 1})
    path, headers = "/v1/schedules/manual/trigger", {"idempotency-key": "k"}
    body = {"triggered_by": "somebody"}
    run = accepted(await api.client.post(path, json=body, headers=headers), 201)
    assert (run["trigger"], run["schedule_id"], run["tick_at"]) == ("manual", "manual", None)
    assert (run["triggered_by"], run["created_by"]["kind"], run["status"]) == ("somebody", "key", "queued")
    await put_schedule(api.client, "manual", enabled=False, input={"n": 2})
    again = accepted(await api.client.post(path, json=body, headers=headers), 201)
    assert again["id"] == run["id"]
    other = accepted(await api.client.post(path), 201)
    assert other["input"] == {"n": 2}
    assert (await get_schedule(api.client, "manual"))["last_run_id"] == other["id"]
    accepted(await api.client.post(path, json=body, headers=headers), 201)
    assert (await get_schedule(api.client, "manual"))["last_run_id"] == other["id"]


async def test_a_removed_schedule_is_gone_and_its_runs_stay(api: RunningGateway) -> None:
    """It can be made anew."""
    await put_schedule(api.client, "removed")
    run = accepted(await api.client.post("/v1/schedules/removed/trigger"), 201)
    assert accepted(await api.client.delete("/v1/schedules/removed")) == {"id": "removed", "deleted": True}
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/trigger")):
        refused(await api.client.request(method, f"/v1/schedules/removed{path}"), 404, "not_found")
    accepted(await api.client.get(f"/v1/runs/{run['id']}"))
    assert (await put_schedule(api.client, "removed"))["last_run_id"] is None


async def test_a_tick_that_fails_is_told_and_the_next_one_comes(api: RunningGateway, link: Link) -> None:
    """The agent's preset has gone: no run, but the reason."""
    await put_agent(api, "preset", presets={"small": {}})
    await put_schedule(api.client, "failing", agent_id="preset", preset="small", queue="failing")
    await put_agent(api, "preset")
    tick_ms = await make_due(link, api.tenant, "failing")
    schedule = await wait_tick(api, "failing", tick_ms)
    assert schedule["last_error"]["code"] == "invalid_body"
    assert "small" in schedule["last_error"]["detail"]
    assert schedule["last_error"]["tick_at"] == format_time(tick_ms)
    assert schedule["last_run_id"] is None
    assert parse_time(schedule["next_at"]) > tick_ms
    await put_agent(api, "preset", presets={"small": {"model": "s"}})
    await make_due(link, api.tenant, "failing")
    claimed = await claim_one(api, "failing")
    assert claimed["preset"] == {"name": "small", "config": {"model": "s"}}
    await wait_until(lambda: _has_no_error(api))


async def _has_no_error(api: RunningGateway) -> bool:
    return (await get_schedule(api.client, "failing"))["last_error"] is None


@pytest.mark.parametrize(
    ("about", "path"),
    [
        ({"cron": "* * * *"}, "$.cron"),
        ({"cron": "61 * * * *"}, "$.cron"),
        ({"cron": "* * * * * *"}, "$.cron"),
        ({"cron": "@reboot"}, "$.cron"),
        ({"cron": "0 0 31 2 *"}, "$.cron"),
        ({"cron": 5}, "$.cron"),
        ({"timezone": "Mars/Olympus"}, "$.timezone"),
        ({"timezone": "../UTC"}, "$.timezone"),
        ({"overlap": "maybe"}, "$.overlap"),
        ({"preset": "none"}, "$.preset"),
        ({"priority": 5000}, "$.priority"),
        ({"tpyo": 1}, "$"),
    ],
    ids=str,
)
async def test_a_schedule_that_cannot_be_is_refused(api: RunningGateway, about: dict[str, Any], path: str) -> None:
    """With the place that is wrong; nothing is made."""
    body = {"agent_id": "tester", "cron": "* * * * *", **about}
    answer = await api.client.put("/v1/schedules/refused", json=body)
    assert refused(answer, 422, "invalid_body")["path"] == path
    refused(await api.client.get("/v1/schedules/refused"), 404, "not_found")


async def test_a_schedule_that_is_too_large_is_refused(api: RunningGateway) -> None:
    """Lists show schedules whole."""
    body = {"agent_id": "tester", "cron": "* * * * *"}
    answer = await api.client.put("/v1/schedules/large", json={**body, "input": "x" * 70_000})
    assert refused(answer, 413, "too_large")["limit_bytes"] == 65_536
    answer = await api.client.put("/v1/schedules/large", json={**body, "metadata": {"x": "x" * 20_000}})
    refused(answer, 413, "too_large")
    refused(await api.client.put("/v1/schedules/a%20b", json=body), 400, "bad_request")


async def test_schedules_are_listed_in_pages_by_id(api: RunningGateway) -> None:
    """Each once."""
    async with open_client(api, tenant="listing") as client:
        names = [f"s{number:02}" for number in range(7)]
        for name in reversed(names):
            await put_schedule(client, name, enabled=False)
        found: list[str] = []
        params: dict[str, Any] = {"limit": 3}
        while True:
            page = accepted(await client.get("/v1/schedules", params=params))
            found += [schedule["id"] for schedule in page["data"]]
            if not page["has_more"]:
                break
            params["cursor"] = page["next_cursor"]
        assert found == names
        refused(await client.get("/v1/schedules", params={"cursor": "a b"}), 400, "bad_request")


async def test_a_schedule_is_its_tenants_and_its_agents_alone(api: RunningGateway) -> None:
    """For others it is not there, and they cannot take its name."""
    await put_schedule(api.client, "mine", enabled=False)
    body = {"agent_id": "other", "cron": "* * * * *", "enabled": False}
    async with open_client(api, tenant="elsewhere") as stranger, open_client(api, agents=["other"]) as bound:
        for client in (stranger, bound):
            refused(await client.get("/v1/schedules/mine"), 404, "not_found")
            refused(await client.delete("/v1/schedules/mine"), 404, "not_found")
            refused(await client.post("/v1/schedules/mine/trigger"), 404, "not_found")
        refused(await bound.put("/v1/schedules/mine", json=body), 403, "forbidden")
        refused(await bound.put("/v1/schedules/new", json={**body, "agent_id": "tester"}), 403, "forbidden")
        accepted(await bound.put("/v1/schedules/theirs", json=body), 201)
        listed = accepted(await bound.get("/v1/schedules", params={"limit": 100}))["data"]
        assert [schedule["id"] for schedule in listed] == ["theirs"]
        accepted(await stranger.put("/v1/schedules/mine", json=body), 201)
    assert (await get_schedule(api.client, "mine"))["agent_id"] == "tester"
