"""A cluster of three primaries: runs in all slots, wherever these are and while they move."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from redis.crc import key_slot
from ulid import ULID

from gateway.app import build
from gateway.settings import Settings
from gateway.store import keys
from gateway.store.cluster import HOME_SLOT
from gateway.store.cluster_subscription import ClusterSubscription
from gateway.store.store_url import read_url
from tests.support.clusters import Cluster, ServerProcess, find_redis, run_cluster, slot_of_run
from tests.support.native import accepted
from tests.support.programs import NO_REDIS
from tests.support.readers import SseReader
from tests.support.running import RunningGateway, run_gateway, wait_until
from tests.support.transcripts import Transcript, read_log

pytestmark = pytest.mark.anyio

RUNS = 24
RARELY_S = 60
"""Pause between looks at silent runs: no reader of these tests may owe an event to them."""


@pytest.fixture(scope="module", params=["valkey", "redis"])
async def cluster(request: pytest.FixtureRequest, anyio_backend: object) -> AsyncIterator[Cluster]:
    """Three primaries without replicas: of the bundled Valkey, and of the oldest Redis that a distribution has."""
    binary = find_redis() if request.param == "redis" else None
    if request.param == "redis" and binary is None:
        pytest.skip(NO_REDIS)
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        async with run_cluster(Path(folder), binary=binary) as cluster:
            yield cluster


@pytest.fixture
async def gateways(cluster: Cluster) -> AsyncIterator[list[RunningGateway]]:
    """Two gateways over it, of one tenant."""
    tenant = f"t{ULID()}"
    async with AsyncExitStack() as stack:
        gateways = [run_gateway(cluster.url, tenant=tenant, sweep_s=RARELY_S) for _ in range(2)]
        yield [await stack.enter_async_context(each) for each in gateways]


async def test_runs_of_all_nodes_are_written_at_one_gateway_and_read_live_at_another(
    cluster: Cluster, gateways: list[RunningGateway]
) -> None:
    """Whatever node has a run: its log is dense, and each event reaches readers elsewhere as it is written."""
    here, there = gateways
    runs = [(await here.create_run())["id"] for _ in range(RUNS)]
    assert {(await cluster.owner(slot_of_run(run))).port for run in runs} == {node.port for node in cluster.primaries}
    readers = [SseReader(there.url, there.key, run, transcript=Transcript()) for run in runs]
    async with asyncio.TaskGroup() as reading:
        for reader in readers:
            reading.create_task(reader.run())
        for number in range(5):
            for run in runs:
                accepted(await here.append(run, ("log", {"level": "info", "message": str(number)})))
        for reader in readers:
            await reader.transcript.reaches(8)
        for run in runs:
            accepted(await here.append(run, ("run.completed", {"output": None})))
    for run, reader in zip(runs, readers, strict=True):
        log = await read_log(here.client, run)
        assert [seq for seq, _ in log] == list(range(1, len(log) + 1))
        assert reader.transcript.seqs == [seq for seq, _ in log]
    listed = accepted(await there.client.get("/v1/runs", params={"status": "completed", "limit": 100}))["data"]
    assert {run["id"] for run in listed} == set(runs)


async def says(one: ServerProcess, other: ServerProcess, word: str) -> None:
    """Wait until one of two nodes has refused a call with a word once more."""

    async def count() -> int:
        told = [(await node.info("errorstats")).get(f"errorstat_{word}", "count=0") for node in (one, other)]
        return sum(int(fields.removeprefix("count=")) for fields in told)

    before = await count()

    async def grew() -> bool:
        return await count() > before

    await wait_until(grew)


async def test_a_slot_moves_while_its_run_is_written_and_read(cluster: Cluster, gateways: list[RunningGateway]) -> None:
    """Key by key to another node and back: appends wait or are refused as not written, and nothing is lost or twice."""
    here, there = gateways
    run = (await here.create_run())["id"]
    slot = slot_of_run(run)
    reader = SseReader(there.url, there.key, run, transcript=Transcript())
    moving = asyncio.Event()
    written: list[str] = []

    async def write() -> None:
        number = 0
        while not moving.is_set() or number < 10:
            number += 1
            mark = f"m{number}"
            body = {"type": "log", "data": {"level": "info", "message": mark}, "writer": "w", "writer_seq": number}
            while (answer := await here.client.post(f"/v1/runs/{run}/events", json=body)).status_code == 503:
                assert answer.json()["outcome"] == "not_written"
            accepted(answer)
            written.append(mark)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(reader.run())
        writing = tasks.create_task(write())
        for _ in range(3):
            source = await cluster.owner(slot)
            target = next(node for node in cluster.primaries if node is not source)
            count = len(written)
            await cluster.begin_move(slot, target)
            await wait_until(lambda count=count: len(written) > count)
            await cluster.move_keys(slot, source, target, most=1)
            await says(source, target, "TRYAGAIN")
            await cluster.move_keys(slot, source, target)
            await says(source, source, "ASK")
            count = len(written)
            await wait_until(lambda count=count: len(written) > count)
            await cluster.end_move(slot, target)
            count = len(written)
            await wait_until(lambda count=count: len(written) > count + 5)
            assert (await cluster.owner(slot)) is target
        moving.set()
        await writing
        head = await read_log(here.client, run)
        await reader.transcript.reaches(len(head))
        accepted(await here.append(run, ("run.completed", {"output": None})))
    log = await read_log(there.client, run)
    assert [seq for seq, _ in log] == list(range(1, len(log) + 1))
    assert reader.transcript.seqs == [seq for seq, _ in log]
    assert [mark for _, mark in log if mark.startswith("m")] == written


async def test_events_of_other_nodes_go_on_when_one_is_gone(tmp_path: Path) -> None:
    """Nobody takes the dead node's place: what it had is refused as not written, and the gateway stays ready."""
    forming = run_cluster(tmp_path, cluster_require_full_coverage="no")
    async with forming as cluster, run_gateway(cluster.url, probe_s=0.1, sweep_s=RARELY_S) as api:
        home = await cluster.owner(HOME_SLOT)
        doomed = next(node for node in cluster.primaries if node is not home)
        runs = [(await api.create_run())["id"] for _ in range(RUNS)]
        homes = {run: await cluster.owner(slot_of_run(run)) for run in runs}
        lost = next(run for run in runs if homes[run] is doomed)
        kept = next(run for run in runs if homes[run] is not doomed)
        for run in (lost, kept):
            accepted(await api.append(run, ("log", {"level": "info", "message": "begun"})))
        reader = SseReader(api.url, api.key, kept, transcript=Transcript())
        doomed.kill()
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(reader.run())
            for _ in range(3):
                refused = await api.append(lost, ("log", {"level": "info", "message": "lost"}))
                assert (refused.status_code, refused.json()["outcome"]) == (503, "not_written"), refused.text
                accepted(await api.append(kept, ("log", {"level": "info", "message": "kept"})))
            await reader.transcript.reaches(7)
            assert (await api.client.get("/readyz")).status_code == 200
            reading.cancel()


async def test_a_batch_of_which_a_part_is_written_is_not_told_as_not_written(tmp_path: Path) -> None:
    """Runs whose node is gone fail, others are there: who repeated all of it without a key would have these twice."""
    forming = run_cluster(tmp_path, cluster_require_full_coverage="no")
    async with forming as cluster, run_gateway(cluster.url) as api:
        home = await cluster.owner(HOME_SLOT)
        tenant = await cluster.owner(key_slot(keys.tenant_idempotency(api.tenant, "x").encode()))
        doomed = next(node for node in cluster.primaries if node not in (home, tenant))
        doomed.kill()
        runs = [{"agent_id": "tester", "mode": "direct"}] * RUNS
        refused = await api.client.post("/v1/runs/batch", json={"runs": runs})
        assert (refused.status_code, refused.json()["outcome"]) == (503, "unknown"), refused.text
        await doomed.start()

        async def are_listed() -> bool:
            answer = await api.client.get("/v1/runs")
            return answer.status_code == 200 and bool(answer.json()["data"])

        await wait_until(are_listed)


async def test_who_waits_at_a_node_that_stands_still_is_served_where_the_channel_is_now(tmp_path: Path) -> None:
    """As soon as the layout tells, not once the wait at the old place is over."""
    async with run_cluster(tmp_path, cluster_require_full_coverage="no") as cluster:
        subscription = ClusterSubscription(read_url(cluster.url), "test", timeout_s=60, on_restored=lambda: None)
        running = asyncio.create_task(subscription.run())
        first, second, heard = "gw:{stuck}:first", "gw:{stuck}:second", list[bytes]()
        slot = key_slot(first.encode())
        source = await cluster.owner(slot)
        target, third = (node for node in cluster.primaries if node is not source)
        await subscription.subscribe(first, heard.append)
        source.freeze()
        waiting = asyncio.create_task(subscription.subscribe(second, heard.append))
        await wait_until(lambda: second in subscription._homes)
        name = await cluster.node_id(target)
        for node in (target, third):
            await node.ask("CLUSTER", "SETSLOT", slot, "NODE", name)
        subscription._slots.want()
        await asyncio.wait_for(waiting, 30)
        await target.ask("SPUBLISH", second, "x")
        await wait_until(lambda: heard == [b"x"])
        running.cancel()
        await asyncio.wait([running])


async def pick_doomed(cluster: Cluster, api: RunningGateway) -> tuple[ServerProcess, list[ServerProcess], str]:
    """Return a node that has neither keys nor tenant, the node of each partition of timers, and a queue elsewhere."""
    homes = [HOME_SLOT, key_slot(keys.tenant_idempotency(api.tenant, "x").encode())]
    needed = [await cluster.owner(slot) for slot in homes]
    partitions = [await cluster.owner(key_slot(keys.timers(n).encode())) for n in range(keys.PARTITIONS)]
    doomed = next(node for node in cluster.primaries if node not in needed)
    names = [f"q{n}" for n in range(RUNS)]
    places = {name: await cluster.owner(key_slot(keys.queue(api.tenant, name)[0].encode())) for name in names}
    return doomed, partitions, next(name for name in names if places[name] is not doomed)


async def create_runs(
    cluster: Cluster, api: RunningGateway, doomed: ServerProcess, partitions: list[ServerProcess], **body: Any
) -> list[str]:
    """Create runs and return those that do without a node, their timers too."""
    body = {"agent_id": "tester", "mode": "direct", **body}
    runs = [accepted(await api.client.post("/v1/runs", json=body), 201)["id"] for _ in range(RUNS)]
    places = {run: (await cluster.owner(slot_of_run(run)), partitions[keys.partition(run)]) for run in runs}
    kept = [run for run in runs if doomed not in places[run]]
    assert kept
    return kept


async def test_timers_of_other_nodes_fire_when_one_is_gone(tmp_path: Path) -> None:
    """Runs whose own node and whose timer's node are there begin when they are due."""
    async with run_cluster(tmp_path, cluster_require_full_coverage="no") as cluster, run_gateway(cluster.url) as api:
        doomed, partitions, _ = await pick_doomed(cluster, api)
        kept = await create_runs(cluster, api, doomed, partitions, delay_s=5)
        doomed.kill()

        async def have_begun() -> bool:
            found = [await api.client.get(f"/v1/runs/{run}") for run in kept]
            return all(answer.json()["status"] != "delayed" for answer in found if answer.status_code == 200)

        await wait_until(have_begun)


async def test_runs_of_other_nodes_are_claimed_when_one_is_gone(tmp_path: Path) -> None:
    """Each once, and none for an answer that is lost because another run of the queue cannot be reached."""
    async with run_cluster(tmp_path, cluster_require_full_coverage="no") as cluster, run_gateway(cluster.url) as api:
        doomed, partitions, queue = await pick_doomed(cluster, api)
        kept = await create_runs(cluster, api, doomed, partitions, mode="queued", queue=queue)
        doomed.kill()
        claimed: list[str] = []

        async def are_claimed() -> bool:
            answer = await api.client.post("/v1/claims", json={"queues": [queue], "max": 5})
            assert answer.status_code in (200, 503), answer.text
            claimed.extend(claim["run"]["id"] for claim in answer.json().get("data", ()))
            return set(claimed) >= set(kept)

        await wait_until(are_claimed, timeout_s=60)
        assert len(claimed) == len(kept)


async def test_a_gateway_starts_while_the_node_that_has_the_clock_is_gone(tmp_path: Path) -> None:
    """It answers, as it does where the whole store is away."""
    async with run_cluster(tmp_path, cluster_require_full_coverage="no") as cluster:
        (await cluster.owner(HOME_SLOT)).kill()
        gateway = build(Settings(store_timeout_s=1), cluster.url, dev_key="gwk_a_key_for_this_test_alone_0123456789")
        try:
            await gateway.start()
        finally:
            await gateway.aclose()
