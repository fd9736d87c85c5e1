"""Time: what must happen later happens once, soon after it is due, whichever process is there to see it.

No gateway runs beside those of a test: processes over one store are meant to have the same settings.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import pytest

from gateway.domain.lifecycle import ENDINGS
from tests.support.native import accepted, act, ask, get_log, get_run, get_types, refused
from tests.support.running import LOG, RunningGateway, RunningStore, run_gateway, wait_until

pytestmark = pytest.mark.anyio

LATE_S = 5.0
"""How late a timer may be on a busy machine."""


async def wait_status(api: RunningGateway, run_id: str, *statuses: str) -> dict[str, Any]:
    """Return the run once it stands in one of these statuses."""
    found: dict[str, Any] = {}

    async def there() -> bool:
        found.update(await get_run(api, run_id))
        return found["status"] in statuses

    await wait_until(there)
    return found


def seconds_between(earlier: str, later: str) -> float:
    """Return how long after one API time another is."""
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


async def listed(api: RunningGateway, **params: Any) -> list[str]:
    """Return the ids on the first page of a list."""
    return [run["id"] for run in accepted(await api.client.get("/v1/runs", params=params))["data"]]


async def test_a_delayed_run_is_queued_when_its_time_comes(gateway: RunningGateway) -> None:
    """Not before, and within a moment of it; then it waits for its start."""
    run = await gateway.create_run(delay_s=0.3)
    assert (run["status"], run["expires_at"]) == ("delayed", None)
    queued = await wait_status(gateway, run["id"], "queued")
    event = (await get_log(gateway, run["id"]))[-1]
    assert event["type"] == "run.queued"
    assert 0 <= seconds_between(run["scheduled_at"], event["created_at"]) < LATE_S
    assert (queued["scheduled_at"], seconds_between(event["created_at"], queued["expires_at"])) == (None, 600)
    accepted(await gateway.append(run["id"], LOG))


async def test_a_rescheduled_run_keeps_its_new_time(gateway: RunningGateway) -> None:
    """Earlier or later than the old one: the old one does nothing any more."""
    later, sooner = await gateway.create_run(delay_s=0.2), await gateway.create_run(delay_s=3600)
    now_ms = gateway.gateway.clock.now_ms()

    def at(offset_ms: int) -> str:
        return datetime.fromtimestamp((now_ms + offset_ms) / 1000).astimezone().isoformat()

    accepted(await act(gateway, later["id"], "reschedule", scheduled_at=at(3_600_000)))
    accepted(await act(gateway, sooner["id"], "reschedule", scheduled_at=at(400)))
    await wait_status(gateway, sooner["id"], "queued")
    assert (await get_run(gateway, later["id"]))["status"] == "delayed"


async def test_a_run_that_nobody_starts_expires(store: RunningStore) -> None:
    """After the start timeout, counted from when it was queued; one that was started does not."""
    async with run_gateway(store.url, start_timeout_s=0.8) as api:
        started, delayed, run = await api.create_run(), await api.create_run(delay_s=0.2), await api.create_run()
        accepted(await api.append(started["id"], LOG))
        expired = await wait_status(api, run["id"], "expired")
        assert 0 <= seconds_between(run["expires_at"], expired["ended_at"]) < LATE_S
        assert (await get_types(api, run["id"]))[-1] == "run.expired"
        ended = await wait_status(api, delayed["id"], "expired")
        assert seconds_between(delayed["scheduled_at"], ended["ended_at"]) >= 0.8
        assert (await get_run(api, started["id"]))["status"] == "running"
        refused(await api.append(run["id"], LOG), 409, "invalid_state")


async def test_a_restarted_run_that_nobody_starts_expires_too(store: RunningStore) -> None:
    """A second attempt waits no longer than the first."""
    async with run_gateway(store.url, start_timeout_s=0.8) as api:
        run = await api.run_in("completed")
        restarted = accepted(await act(api, run["id"], "restart"))
        assert seconds_between(restarted["updated_at"], restarted["expires_at"]) == pytest.approx(0.8)
        await wait_status(api, run["id"], "expired")


async def test_an_unconfirmed_cancel_ends_with_its_grace(store: RunningStore) -> None:
    """The gateway then cancels in the holder's place, and closes what was asked."""
    async with run_gateway(store.url, cancel_grace_s=0.3) as api:
        run = await api.run_in("waiting_for_input")
        cancelling = accepted(await act(api, run["id"], "cancel", reason="enough"))
        cancelled = await wait_status(api, run["id"], "cancelled")
        assert 0 <= seconds_between(cancelling["cancel_deadline_at"], cancelled["ended_at"]) < LATE_S
        types = await get_types(api, run["id"])
        assert types[-3:] == ["run.cancel_requested", "run.input_closed", "run.cancelled"]
        assert (await get_log(api, run["id"]))[-1]["data"]["actor"]["kind"] == "system"


async def test_a_cancel_is_not_turned_into_another_end(store: RunningStore) -> None:
    """A timeout or a question's deadline within the grace waits for it; the run ends as cancelled."""
    async with run_gateway(store.url, cancel_grace_s=1) as api:
        run = await api.create_run(timeout_s=0.7)
        await ask(api, run["id"], timeout_s=0.6, on_timeout="fail")
        accepted(await act(api, run["id"], "cancel"))
        await wait_status(api, run["id"], "cancelled", "failed", "timed_out")
        assert [kind for kind in await get_types(api, run["id"]) if kind in ENDINGS] == ["run.cancelled"]


async def test_a_run_that_takes_too_long_times_out(gateway: RunningGateway) -> None:
    """Counted from its start, not from its creation; the error says so."""
    run, waiting = await gateway.create_run(timeout_s=0.3), await gateway.create_run(timeout_s=0.3)
    await asyncio.sleep(0.1)
    accepted(await gateway.append(run["id"], LOG))
    await ask(gateway, waiting["id"])
    ended = await wait_status(gateway, run["id"], "timed_out")
    assert ended["error"]["code"] == "run_timeout"
    assert 0.3 <= seconds_between(ended["started_at"], ended["ended_at"]) < 0.3 + LATE_S
    await wait_status(gateway, waiting["id"], "timed_out")
    assert (await get_types(gateway, waiting["id"]))[-2:] == ["run.input_closed", "run.timed_out"]


async def test_a_pause_stops_the_clock_of_a_run(gateway: RunningGateway) -> None:
    """A paused run does not time out, and has the rest of its time when it goes on."""
    run, clock = await gateway.create_run(timeout_s=1), await gateway.create_run(timeout_s=1.1)
    accepted(await gateway.append(run["id"], LOG))
    accepted(await act(gateway, run["id"], "pause"))
    accepted(await gateway.append(clock["id"], LOG))
    await wait_status(gateway, clock["id"], "timed_out")
    assert (await get_run(gateway, run["id"]))["status"] == "paused"
    resumed = accepted(await act(gateway, run["id"], "resume"))
    ended = await wait_status(gateway, run["id"], "timed_out")
    assert 0.1 <= seconds_between(resumed["updated_at"], ended["ended_at"]) <= 1 + LATE_S


async def test_a_silent_holder_is_taken_for_dead(gateway: RunningGateway) -> None:
    """One that appends, or sends empty batches, lives; one that is paused may be silent."""
    silent, beating, paused = [await gateway.create_run(heartbeat_s=1.5) for _ in range(3)]
    for run in (silent, beating, paused):
        accepted(await gateway.append(run["id"], LOG))
    accepted(await act(gateway, paused["id"], "pause"))

    async def beat() -> None:
        while True:
            accepted(await gateway.append(beating["id"]))
            await asyncio.sleep(0.2)

    heart = asyncio.create_task(beat())
    crashed = await wait_status(gateway, silent["id"], "crashed")
    assert crashed["error"]["code"] == "heartbeat_lost"
    assert 1.5 <= seconds_between(crashed["started_at"], crashed["ended_at"]) < 1.5 + LATE_S
    assert (await get_run(gateway, beating["id"]))["status"] == "running"
    heart.cancel()
    assert (await get_run(gateway, paused["id"]))["status"] == "paused"
    accepted(await act(gateway, paused["id"], "resume"))
    await wait_status(gateway, beating["id"], "crashed")
    await wait_status(gateway, paused["id"], "crashed")


async def test_a_holder_that_falls_silent_while_it_cancels_has_let_go(gateway: RunningGateway) -> None:
    """Nobody is left to wait for: the run is cancelled before its grace ends."""
    run = await gateway.create_run(heartbeat_s=1)
    accepted(await gateway.append(run["id"], LOG))
    cancelling = accepted(await act(gateway, run["id"], "cancel"))
    cancelled = await wait_status(gateway, run["id"], "cancelled")
    assert cancelled["ended_at"] < cancelling["cancel_deadline_at"]


async def test_two_gateways_fire_a_timer_once(store: RunningStore) -> None:
    """Both look; one acts: whatever was due is in the log exactly once."""
    settings: dict[str, Any] = {"cancel_grace_s": 0.3, "start_timeout_s": 1.5}
    async with run_gateway(store.url, **settings) as api, run_gateway(store.url, tenant=api.tenant, **settings):
        delayed = [(await api.create_run(delay_s=0.3))["id"] for _ in range(10)]
        cancelling = [(await api.run_in("cancelling"))["id"] for _ in range(10)]
        asking = [(await api.create_run())["id"] for _ in range(10)]
        for run_id in asking:
            for _ in range(2):
                await ask(api, run_id, timeout_s=0.3, on_timeout="default", default=1)
        for run_id in delayed:
            await wait_status(api, run_id, "expired")
            types = await get_types(api, run_id)
            assert types == ["run.created", "run.queued", "run.expired"]
        for run_id in cancelling:
            await wait_status(api, run_id, "cancelled")
            assert (await get_types(api, run_id)).count("run.cancelled") == 1
        for run_id in asking:
            await wait_status(api, run_id, "running")
            assert (await get_types(api, run_id)).count("run.input_received") == 2


async def test_what_fell_due_while_nobody_was_there_is_done_at_the_next_start(store: RunningStore) -> None:
    """Timers are the store's: a gateway that comes later finds them."""
    async with run_gateway(store.url) as first:
        delayed = await first.create_run(delay_s=0.2)
        timing = await first.create_run(timeout_s=0.2)
        accepted(await first.append(timing["id"], LOG))
        tenant = first.tenant
    await asyncio.sleep(0.3)
    async with run_gateway(store.url, tenant=tenant) as second:
        await wait_status(second, delayed["id"], "queued")
        await wait_status(second, timing["id"], "timed_out")


async def test_an_ended_run_loses_its_log_and_then_its_record(store: RunningStore) -> None:
    """After the log's retention 410 while the record is 200; after the record's it is 404 and on no list."""
    async with run_gateway(store.url, log_retention_s=1, record_retention_s=3) as api:
        running = await api.run_in("running")
        run = await api.run_in("completed")
        path = f"/v1/runs/{run['id']}"

        async def expired() -> bool:
            return (await api.client.get(f"{path}/events")).status_code == 410

        await wait_until(expired)
        assert (await get_run(api, run["id"]))["log_expired"] is True
        assert run["id"] in await listed(api, status="completed")

        async def gone() -> bool:
            return (await api.client.get(path)).status_code == 404

        await wait_until(gone)
        assert await listed(api) == [running["id"]]
        # An active run's log has no time.
        assert len(await get_log(api, running["id"])) == running["head_seq"]


async def test_a_restarted_run_outlives_its_old_end(store: RunningStore) -> None:
    """Retention counts from the end that stands."""
    async with run_gateway(store.url, log_retention_s=1, record_retention_s=1) as api:
        restarted, clock = await api.run_in("completed"), await api.run_in("completed")
        accepted(await act(api, restarted["id"], "restart"))

        async def clock_gone() -> bool:
            return (await api.client.get(f"/v1/runs/{clock['id']}")).status_code == 404

        await wait_until(clock_gone)
        assert (await get_run(api, restarted["id"]))["status"] == "queued"
        assert len(await get_log(api, restarted["id"])) == restarted["head_seq"] + 1
