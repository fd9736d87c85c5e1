"""Rare turns of queued runs: strangers' leases, full logs, removed runs, and backlogs that limits hold back."""

from __future__ import annotations

import asyncio

import pytest
from ulid import ULID

from gateway.store import keys
from tests.support.links import connect
from tests.support.native import accepted, act, get_log, get_run, get_types, open_client, refused
from tests.support.running import COMPLETE, FAIL, LOG, RunningGateway, RunningStore, run_gateway
from tests.support.work import act_as_holder, claim, claim_one, put_agent, queue_run, write

pytestmark = pytest.mark.anyio

CHECKPOINT = ("checkpoint.created", {"source": "worker", "state": {"n": 1}})


@pytest.fixture
def queue() -> str:
    """A queue that no other test uses."""
    return f"q{ULID()}"


async def test_a_lease_opens_no_run_that_was_never_leased(api: RunningGateway) -> None:
    """Whoever may only work writes to no direct run, and keeps none up, by making up a lease."""
    run = await api.run_in("running")
    async with open_client(api, scopes=["work"]) as client:
        headers = {"lease": "made-up"}
        path = f"/v1/runs/{run['id']}"
        end = {"type": "run.completed", "data": {"output": 1}}
        refused(await client.post(f"{path}/events", json=end, headers=headers), 409, "fenced")
        refused(await client.post(f"{path}/heartbeat", headers=headers), 409, "fenced")
    assert (await get_run(api, run["id"]))["status"] == "running"


async def test_a_full_log_still_takes_the_end_of_an_attempt(store: RunningStore, queue: str) -> None:
    """What changes the run has room: its failure, the next claim, its last failure."""
    async with run_gateway(store.url, log_events=12) as api:
        run_id = await queue_run(api, queue, retry={"max_attempts": 2, "initial_delay_s": 0})
        claimed = await claim_one(api, queue)
        accepted(await write(api, claimed, *[LOG] * 8))
        refused(await write(api, claimed, LOG), 409, "log_full")
        assert accepted(await write(api, claimed, FAIL))["status"] == "delayed"
        claimed = await claim_one(api, queue)
        assert accepted(await write(api, claimed, FAIL))["status"] == "failed"
        assert (await get_types(api, run_id))[-1] == "run.failed"


async def test_a_restart_supersedes_all_that_is_written_again(api: RunningGateway, queue: str) -> None:
    """From the beginning, what earlier attempts kept too; from a checkpoint, all after it."""
    retry = {"max_attempts": 2, "initial_delay_s": 0}
    run_id = await queue_run(api, queue, retry=retry)
    accepted(await write(api, await claim_one(api, queue), LOG, CHECKPOINT, FAIL))
    accepted(await write(api, await claim_one(api, queue), LOG, CHECKPOINT, COMPLETE))
    checkpoints = [e["seq"] for e in await get_log(api, run_id) if e["type"] == "checkpoint.created"]
    for options, first in (({"from_checkpoint": checkpoints[0]}, checkpoints[0] + 1), ({}, 1)):
        accepted(await act(api, run_id, "restart", **options))
        before = (await get_run(api, run_id))["head_seq"]
        accepted(await write(api, await claim_one(api, queue), COMPLETE))
        log = await get_log(api, run_id, after_seq=before)
        (begun,) = [e["data"] for e in log if e["type"] == "run.attempt_started"]
        assert begun["supersedes"][0] == first
        if not options:
            break


async def test_a_checkpoint_that_was_trimmed_is_no_place_to_restart_from(api: RunningGateway, queue: str) -> None:
    """It is refused, and nothing changes."""
    run_id = await queue_run(api, queue)
    accepted(await write(api, await claim_one(api, queue), CHECKPOINT, COMPLETE))
    accepted(await act(api, run_id, "purge", keep_record=True))
    refused(await act(api, run_id, "restart", from_checkpoint=True), 422, "invalid_body")
    accepted(await act(api, run_id, "debug", debug_mode=True))
    run = await get_run(api, run_id)
    assert (run["status"], run["log_expired"]) == ("completed", True)


async def test_what_is_purged_holds_no_room(api: RunningGateway, store: RunningStore, queue: str) -> None:
    """Though its end was never told to its queue."""
    first, second = [await queue_run(api, queue, concurrency_key="k") for _ in range(2)]
    accepted(await write(api, await claim_one(api, queue), COMPLETE))
    parts = dict(zip(keys.QUEUE_PARTS, keys.queue(api.tenant, queue), strict=True))
    (lane,) = [f"a:tester k:{part}" for part in [await _key_of(store, parts["lanes"])]]
    async with connect(store.url) as link:
        # As if whoever ended the run had died before it could tell.
        await link.call("HSET", parts["holders"], first, f"3 {lane}")
        await link.call("ZADD", parts["permits"], 1, first)
        await link.call("HSET", parts["used"], lane.split()[1], 1, lane.split()[0], 1)
    accepted(await act(api, first, "purge"))
    assert (await claim_one(api, queue))["run"]["id"] == second


async def _key_of(store: RunningStore, lanes: str) -> str:
    async with connect(store.url) as link:
        (member,) = await link.call("ZRANGE", lanes, 0, -1)
        return str(member.decode().partition(" k:")[2].partition("|")[0])


async def test_nobody_is_passed_over_behind_many_that_limits_hold_back(api: RunningGateway, queue: str) -> None:
    """However many lanes wait for an agent's room, the run behind them is claimed at once."""
    await put_agent(api, queue, queue=queue, max_concurrent=1)
    room = asyncio.Semaphore(16)

    async def add(number: int) -> None:
        async with room:
            await queue_run(api, queue, agent_id=queue, concurrency_key=str(number))

    await asyncio.gather(*map(add, range(600)))
    behind = await queue_run(api, queue, agent_id="free")
    got = await claim(api, queue, most=5)
    assert [c["run"]["agent_id"] for c in got] == [queue, "free"]
    assert got[1]["run"]["id"] == behind


async def test_room_reaches_who_can_use_it_behind_many_who_cannot(api: RunningGateway, queue: str) -> None:
    """Seventy that wait for their keys as well do not keep it from the next."""
    await put_agent(api, queue, queue=queue, max_concurrent=1)
    first = await queue_run(api, queue, agent_id=queue, priority=1)
    for number in range(70):
        await queue_run(api, queue, agent_id="other", concurrency_key=str(number))
    taken = await claim(api, queue, most=100)
    assert len(taken) == 71
    for number in range(70):
        await queue_run(api, queue, agent_id=queue, concurrency_key=str(number))
    last = await queue_run(api, queue, agent_id=queue)
    (holder,) = [c for c in taken if c["run"]["id"] == first]
    accepted(await act_as_holder(api, holder, "heartbeat"))
    accepted(await write(api, holder, COMPLETE))
    assert (await claim_one(api, queue))["run"]["id"] == last
