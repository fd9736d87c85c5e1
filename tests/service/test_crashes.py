"""The store's connection is lost at every step of every change: nothing is half done, and a repeat finishes it."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from ulid import ULID

from gateway.store import keys
from gateway.store.link import Link
from tests.support.choke import Choke, Command, open_choke
from tests.support.links import connect
from tests.support.native import accepted, get_log, get_run, refused
from tests.support.running import COMPLETE, LOG, RunningGateway, RunningStore, run_gateway, wait_until

pytestmark = pytest.mark.anyio

ASK = ("run.waiting_for_input", {"prompt": "?", "timeout_s": 3600, "on_timeout": "fail"})

Change = Callable[[RunningGateway, str, str], Awaitable[httpx.Response]]


def appending(*events: tuple[str, Any]) -> Change:
    """Return the change that a writer's first numbered append makes."""

    async def change(api: RunningGateway, run_id: str, _key: str) -> httpx.Response:
        return await api.append(run_id, *events, writer="crash", writer_seq=1)

    return change


def acting(action: str, **body: Any) -> Change:
    """Return the change that an action makes."""

    async def change(api: RunningGateway, run_id: str, key: str) -> httpx.Response:
        headers = {"idempotency-key": key}
        return await api.client.post(f"/v1/runs/{run_id}/{action}", json=body, headers=headers)

    return change


async def creating(api: RunningGateway, _run_id: str, key: str) -> httpx.Response:
    """Create a run that a timer waits for."""
    body = {"agent_id": "tester", "mode": "direct", "delay_s": 3600, "tags": {"crash": "yes"}}
    return await api.client.post("/v1/runs", json=body, headers={"idempotency-key": key})


async def queueing(api: RunningGateway, _run_id: str, key: str) -> httpx.Response:
    """Create a run that waits to be claimed."""
    body = {"agent_id": "tester", "mode": "queued", "queue": "crash", "tags": {"crash": "yes"}}
    return await api.client.post("/v1/runs", json=body, headers={"idempotency-key": key})


# A change, the status it starts from, and what the log then has more, once.
CHANGES: dict[str, tuple[Change, str, list[str]]] = {
    "create": (creating, "running", []),
    "queue": (queueing, "running", []),
    "start": (appending(LOG), "queued", ["run.started", "log"]),
    "append": (appending(LOG), "running", ["log"]),
    "ask": (appending(LOG, ASK), "running", ["log", "run.waiting_for_input"]),
    "answer": (acting("input", content=1), "waiting_for_input", ["run.input_received"]),
    "pause": (acting("pause"), "running", ["run.paused"]),
    "resume": (acting("resume"), "paused", ["run.resumed"]),
    "cancel": (acting("cancel"), "running", ["run.cancel_requested"]),
    "reschedule": (acting("reschedule", scheduled_at="2027-01-01T00:00:00Z"), "queued", ["run.rescheduled"]),
    "complete": (appending(COMPLETE), "waiting_for_input", ["run.input_closed", "run.completed"]),
    "restart": (acting("restart"), "completed", ["run.restarted"]),
    "replay": (acting("replay"), "completed", []),
    "purge": (acting("purge"), "completed", []),
}
STATUS_OF = {"create": "delayed", "queue": "queued"}


@pytest.fixture(scope="module")
async def choke(store: RunningStore, anyio_backend: object) -> AsyncIterator[Choke]:
    """A relay before the store."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        async with open_choke(store.url, Path(folder)) as choke:
            yield choke


@pytest.fixture(scope="module")
async def api(choke: Choke) -> AsyncIterator[RunningGateway]:
    """A gateway behind the relay."""
    async with run_gateway(choke.url, cancel_grace_s=3600) as running:
        yield running


@pytest.fixture(scope="module")
async def witness(store: RunningStore, api: RunningGateway) -> AsyncIterator[RunningGateway]:
    """A gateway of the same tenant whose store is never away."""
    async with run_gateway(store.url, tenant=api.tenant, cancel_grace_s=3600) as running:
        yield running


@pytest.fixture(scope="module")
async def link(store: RunningStore, anyio_backend: object) -> AsyncIterator[Link]:
    """A connection of the test's own."""
    async with connect(store.url) as link:
        yield link


def counting(tenant: str) -> Callable[[Command], bool]:
    """Return what tells a step of a change from the gateway's own housekeeping."""

    def counts(command: Command) -> bool:
        if command[0] == b"ZADD":
            return True
        return any(tenant.encode() in word for word in command) and command[0] not in (b"HGETALL", b"GET")

    return counts


@pytest.mark.parametrize("executed", [False, True], ids=["lost", "answer lost"])
@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_that_is_cut_is_done_or_not_and_can_be_repeated(
    choke: Choke, api: RunningGateway, witness: RunningGateway, link: Link, name: str, executed: bool
) -> None:
    """At whatever step the connection is lost: lists show what the records say, and the repeat does it once."""
    change, status, types = CHANGES[name]
    # The same change, cut in the other way, has made some, too: as many as it has steps, of which one may be a timer's.
    before, made = await list_created(witness, name), set[str]()
    for step in range(20):
        run, key = await witness.run_in(status), str(ULID())
        await ready(api)
        choke.arm(step, executed=executed, counts=counting(api.tenant))
        answer = await change(api, run["id"], key)
        cut = choke.sprung
        choke.disarm()
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) >= 1
            await check_outcome(witness, run, refused(answer, 503, "store_unavailable"))
        await check_lists(witness, run)
        await ready(api)
        again = await change(api, run["id"], key)
        assert again.status_code in (200, 201), (name, step, again.text)
        made |= {again.json()["id"]} if name in STATUS_OF else set()
        if name == "purge":
            refused(await witness.client.get(f"/v1/runs/{run['id']}"), 404, "not_found")
        else:
            log = await get_log(witness, run["id"], after_seq=run["head_seq"])
            assert [event["type"] for event in log] == types, (name, step)
            await check_timer(witness, link, run["id"])
        if not cut:
            break
    else:
        pytest.fail("a change has fewer than twenty steps")
    if name in STATUS_OF:
        assert await list_created(witness, name) - before == made
        assert len(made) == step + 1


async def list_created(witness: RunningGateway, name: str) -> set[str]:
    """Return the ids of all runs that a change has created, as the list has them; none where it creates none."""
    if name not in STATUS_OF:
        return set()
    params: dict[str, Any] = {"tag": "crash:yes", "status": STATUS_OF[name], "limit": 100}
    page = accepted(await witness.client.get("/v1/runs", params=params))
    assert not page["has_more"]
    return {run["id"] for run in page["data"]}


async def ready(api: RunningGateway) -> None:
    """Wait until a gateway has its store again."""

    async def is_ready() -> bool:
        return (await api.client.get("/readyz")).status_code == 200

    await wait_until(is_ready)


async def check_outcome(witness: RunningGateway, run: dict[str, Any], problem: dict[str, Any]) -> None:
    """Check that what is said not to be written is not."""
    assert problem["outcome"] in ("not_written", "unknown")
    if problem["outcome"] == "not_written":
        assert await get_run(witness, run["id"]) == run


async def check_lists(witness: RunningGateway, before: dict[str, Any]) -> None:
    """Check that the lists by status show the run where its record says it is, and nowhere else."""
    found = await witness.client.get(f"/v1/runs/{before['id']}")
    run = found.json() if found.status_code == 200 else {"status": None, "open_requests": []}
    for status in {before["status"], run["status"], "running", "completed"} - {None}:
        params = {"status": status, "limit": 20}
        shown = [listed["id"] for listed in accepted(await witness.client.get("/v1/runs", params=params))["data"]]
        assert (before["id"] in shown) == (run["status"] == status), status
    asking = accepted(await witness.client.get("/v1/requests", params={"limit": 20}))["data"]
    assert (before["id"] in {item["run_id"] for item in asking}) == bool(run["open_requests"])


async def check_timer(witness: RunningGateway, link: Link, run_id: str) -> None:
    """Check that somebody will look at the run in time."""
    run = await witness.gateway.stores.runs.load_any(run_id)
    assert run is not None
    due_ms = witness.gateway._timers._journal.next_look_ms(run)
    if due_ms is not None:
        score = await link.call("ZSCORE", keys.timers(keys.partition(run_id)), run_id)
        assert score is not None
        assert float(score) <= due_ms
