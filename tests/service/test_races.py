"""Between any two steps of a change somebody else may act, or everything may stop: nothing is lost by it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from ulid import ULID

from gateway.domain.times import parse_time
from gateway.store import keys
from gateway.store.link import Link
from gateway.store.links import open_link
from gateway.store.timers import TimerStore
from tests.support.running import COMPLETE, LOG, RunningGateway, RunningStore, run_gateway, wait_until

pytestmark = pytest.mark.anyio

ASK = {"prompt": "Go on?", "timeout_s": 3600, "on_timeout": "fail"}


@pytest.fixture
async def link(store: RunningStore, anyio_backend: object) -> AsyncIterator[Link]:
    """A connection of the test's own."""
    link = open_link(store.url, "test-races")
    running = asyncio.create_task(link.run())
    yield link
    running.cancel()
    await asyncio.wait([running])


def timer_key(run_id: str) -> str:
    """Return the timer partition of a run."""
    return keys.timers(keys.partition(run_id))


async def due_ms(link: Link, run_id: str) -> int | None:
    """Return when a run is looked at next."""
    score = await link.call("ZSCORE", timer_key(run_id), run_id)
    return None if score is None else int(float(score))


async def listed(gateway: RunningGateway, status: str) -> list[str]:
    """Return the ids that the list of a status shows."""
    page = (await gateway.client.get("/v1/runs", params={"status": status, "limit": 100})).json()
    return [run["id"] for run in page["data"]]


async def test_a_timer_that_was_put_away_too_early_is_set_again(gateway: RunningGateway, link: Link) -> None:
    """Somebody looks between arming and writing, finds nothing, and removes the entry: the writer sets it again."""
    run = await gateway.create_run()
    await gateway.append(run["id"], LOG)
    await wait_until(lambda: _gone(link, run["id"]))
    await gateway.append(run["id"], ("run.waiting_for_input", ASK))
    await link.call("ZREM", timer_key(run["id"]), run["id"])
    # A look of whichever process settles by the record, and so does the next change.
    await gateway.client.post(f"/v1/runs/{run['id']}/pause")
    await gateway.client.post(f"/v1/runs/{run['id']}/cancel")
    due = await due_ms(link, run["id"])
    assert due is not None


async def _gone(link: Link, run_id: str) -> bool:
    await link.call("ZADD", timer_key(run_id), 0, run_id)
    return await due_ms(link, run_id) is None or await due_ms(link, run_id) != 0


async def test_a_change_while_a_timer_is_taken_keeps_its_time(gateway: RunningGateway, link: Link) -> None:
    """A later time does not enter a hidden timer; whoever settles it looks at the record once more."""
    timers = TimerStore(link)
    run = await gateway.create_run()
    await gateway.append(run["id"], LOG)
    hidden = 2**50
    await link.call("ZADD", timer_key(run["id"]), hidden, run["id"])
    await gateway.append(run["id"], ("run.waiting_for_input", ASK))
    due = await due_ms(link, run["id"])
    assert due is not None
    assert due < hidden, "a deadline enters a timer that stands far away"
    # As a taker that read the record before the question was asked would settle it.
    await timers.settle(run["id"], due, None)
    await timers.arm(run["id"], 0)
    await wait_until(lambda: _is_due_later(link, run["id"]))


async def _is_due_later(link: Link, run_id: str) -> bool:
    due = await due_ms(link, run_id)
    return due is not None and due > 10**12


async def test_more_notes_than_one_pass_takes_are_all_applied(store: RunningStore, link: Link) -> None:
    """After an outage every run whose status was changing is in its list again."""
    async with run_gateway(store.url) as gateway:
        runs = [await gateway.create_run() for _ in range(130)]
        for run in runs:
            await gateway.append(run["id"], LOG)
        tenant = gateway.tenant
        for run in runs:
            await link.call("ZREM", keys.status_index(tenant, "running"), run["id"])
            await link.call("HDEL", keys.applied(tenant), run["id"])
            await link.call("ZADD", keys.moving(tenant), 1, f"{run['id']} crash")

        async def all_there() -> bool:
            return int(await link.call("ZCARD", keys.status_index(tenant, "running"))) == 130

        await wait_until(all_there, timeout_s=20)
        assert int(await link.call("ZCARD", keys.moving(tenant))) == 0


async def test_a_purge_that_was_cut_short_is_finished(gateway: RunningGateway, link: Link) -> None:
    """The record is gone, its index entries and the note of it are there: the reconciler takes them out."""
    run = await gateway.run_in("completed")
    tenant = gateway.tenant
    await link.call("DEL", keys.record(run["id"]), keys.log(run["id"]))
    await link.call("ZADD", keys.moving(tenant), 1, f"{run['id']} purge")

    async def forgotten() -> bool:
        return await link.call("HGET", keys.applied(tenant), run["id"]) is None

    await wait_until(forgotten, timeout_s=20)
    assert await link.call("ZSCORE", keys.status_index(tenant, "completed"), run["id"]) is None
    assert await listed(gateway, "completed") == []


async def test_the_repeat_of_a_creation_does_not_bring_back_a_purged_run(gateway: RunningGateway) -> None:
    """The idempotency key remembers the run, and that it was removed."""
    body = {"agent_id": "a", "mode": "direct"}
    headers = {"idempotency-key": str(ULID())}
    run = (await gateway.client.post("/v1/runs", json=body, headers=headers)).json()
    await gateway.client.post(f"/v1/runs/{run['id']}/cancel")
    assert (await gateway.client.post(f"/v1/runs/{run['id']}/purge")).status_code == 200
    again = await gateway.client.post("/v1/runs", json=body, headers=headers)
    assert (again.status_code, again.json()["code"]) == (404, "not_found")


async def test_what_two_restarts_leave_behind_is_superseded(gateway: RunningGateway) -> None:
    """An attempt that never started abandons nothing; the one before it still does."""
    run = await gateway.create_run()
    await gateway.append(run["id"], ("message.delta", {"content": "old"}))
    for _ in range(2):
        await gateway.client.post(f"/v1/runs/{run['id']}/restart")
        await gateway.client.post(f"/v1/runs/{run['id']}/cancel")
    await gateway.client.post(f"/v1/runs/{run['id']}/restart")
    await gateway.append(run["id"], ("message.delta", {"content": "new"}), attempt=4)
    page: dict[str, Any] = (await gateway.client.get(f"/v1/runs/{run['id']}/events")).json()
    started = next(event for event in page["data"] if event["type"] == "run.attempt_started")
    first, last = started["data"]["supersedes"]
    old = next(event for event in page["data"] if event["type"] == "message.delta")
    assert first <= old["seq"] <= last
    messages = (await gateway.client.get(f"/v1/runs/{run['id']}/messages")).json()["data"]
    assert [(m["content"], m["superseded"]) for m in messages] == [("old", True), ("new", False)]


async def test_a_repeated_answer_names_the_question_it_answered(gateway: RunningGateway) -> None:
    """Also when another question has opened since."""
    run = await gateway.create_run()
    await gateway.append(run["id"], ("run.waiting_for_input", {"prompt": "1", "request_id": "q1"}))
    headers = {"idempotency-key": "one"}
    path = f"/v1/runs/{run['id']}/input"
    first = (await gateway.client.post(path, json={"content": 1}, headers=headers)).json()
    await gateway.append(run["id"], ("run.waiting_for_input", {"prompt": "2", "request_id": "q2"}))
    again = (await gateway.client.post(path, json={"content": 1}, headers=headers)).json()
    assert again == first
    assert again["request_id"] == "q1"


async def test_a_writer_that_missed_an_answer_is_told_again(gateway: RunningGateway) -> None:
    """A heartbeat does not count as having seen what is pending, and a repeat tells it once more."""
    run = await gateway.create_run()
    await gateway.append(run["id"], ("run.waiting_for_input", {"prompt": "1"}))
    answer = (await gateway.client.post(f"/v1/runs/{run['id']}/input", json={"content": 1})).json()
    pending = [{"type": "input", "seq": answer["seq"]}]
    assert (await gateway.append(run["id"])).json()["pending"] == pending
    first = (await gateway.append(run["id"], LOG, writer="w", writer_seq=1)).json()
    again = (await gateway.append(run["id"], LOG, writer="w", writer_seq=1)).json()
    assert first["pending"] == again["pending"] == pending
    assert (await gateway.append(run["id"], LOG, writer="w", writer_seq=2)).json()["pending"] == []


async def test_a_full_log_still_takes_its_end(store: RunningStore) -> None:
    """No amount of pausing and resuming uses up the room for the events that end a run."""
    async with run_gateway(store.url, log_events=30) as gateway:
        run = await gateway.create_run()
        await gateway.append(run["id"], LOG)
        statuses = [
            (await gateway.client.post(f"/v1/runs/{run['id']}/{action}")).status_code
            for _ in range(150)
            for action in ("pause", "resume")
        ]
        assert statuses[-1] == 409
        assert (await gateway.append(run["id"], LOG)).json()["code"] in ("log_full", "invalid_state")
        assert (await gateway.append(run["id"], COMPLETE)).json()["status"] == "completed"


async def test_time_in_a_log_never_goes_back(gateway: RunningGateway, link: Link) -> None:
    """Whatever another process's clock said: an event is never of an earlier time than the one before it."""
    run = await gateway.create_run()
    await gateway.append(run["id"], LOG)
    ahead_ms = int(await link.call("HGET", keys.record(run["id"]), "updated_ms")) + 60_000
    await link.call("HSET", keys.record(run["id"]), "updated_ms", ahead_ms)
    await gateway.append(run["id"], LOG, LOG)
    await gateway.client.post(f"/v1/runs/{run['id']}/pause")
    events = (await gateway.client.get(f"/v1/runs/{run['id']}/events")).json()["data"]
    assert [parse_time(event["created_at"]) for event in events[-3:]] == [ahead_ms] * 3


async def test_a_hole_in_a_log_is_told(store: RunningStore, gateway: RunningGateway, link: Link) -> None:
    """Entries that are gone though nobody trimmed them are a gap, not a silence and not a loop."""
    run = await gateway.create_run()
    for _ in range(5):
        await gateway.append(run["id"], LOG)
    await gateway.append(run["id"], COMPLETE)
    entries = await link.call("XRANGE", keys.log(run["id"]), "4", "6")
    await link.call("XDEL", keys.log(run["id"]), *[entry[0] for entry in entries])
    async with run_gateway(store.url, tenant=gateway.tenant) as other:
        text = (await other.client.get(f"/v1/runs/{run['id']}/stream")).text
    assert '"requested":4,"first_seq":7' in text
    assert "event: stream.end" in text


async def test_nobody_is_silent_while_there_is_nobody_to_hear(store: RunningStore) -> None:
    """A gateway that was away for longer than a heartbeat gives the writer one more before it calls it crashed."""
    async with run_gateway(store.url) as gateway:
        run = await gateway.create_run(heartbeat_s=1)
        await gateway.append(run["id"], LOG)
        tenant = gateway.tenant
    back_s = time.monotonic() + 1.3
    await wait_until(lambda: time.monotonic() > back_s)
    async with run_gateway(store.url, tenant=tenant) as gateway:
        assert (await gateway.append(run["id"], LOG)).json()["status"] == "running"
        ended = await gateway.client.get(f"/v1/runs/{run['id']}/wait", params={"timeout_s": 10})
        assert ended.json()["status"] == "crashed"
