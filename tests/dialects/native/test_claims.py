"""Claims that wait beside each other, come again, or are not answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from ulid import ULID

from gateway.service import bells, work
from gateway.service.actors import Caller
from gateway.service.work import Claimed
from tests.support.native import accepted, get_run, open_client, refused
from tests.support.running import RunningGateway, RunningStore, run_gateway, wait_until
from tests.support.work import claim, claim_one, put_agent, queue_run

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def api(store: RunningStore, anyio_backend: object) -> AsyncIterator[RunningGateway]:
    """A gateway for all of them."""
    async with run_gateway(store.url) as running:
        yield running


@pytest.fixture
def queue() -> str:
    """A queue that no other test uses."""
    return f"q{ULID()}"


async def test_a_claim_that_may_not_have_a_run_lets_the_next_one_know(
    api: RunningGateway, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those bound to other agents were first in line; the free one behind them gets it, and by no second look."""
    monkeypatch.setattr(bells, "LOOK_AGAIN_S", 600.0)
    async with open_client(api, scopes=["work"], agents=["other"]) as bound, asyncio.TaskGroup() as tasks:
        body = {"queues": [queue], "wait_s": 20}
        fruitless = [tasks.create_task(bound.post("/v1/claims", json=body)) for _ in range(3)]

        def waiting() -> int:
            return sum(len(rope._waiting) for rope in api.gateway._bells._ropes.values())

        await wait_until(lambda: waiting() == 3)  # nothing public says how many wait
        free = tasks.create_task(claim(api, queue, wait_s=20))
        await wait_until(lambda: waiting() == 4)
        run_id = await queue_run(api, queue)
        assert [taken["run"]["id"] for taken in await free] == [run_id]
        theirs = {await queue_run(api, queue, agent_id="other") for _ in range(3)}
        found = [accepted(answer)["data"][0]["run"]["id"] for answer in await asyncio.gather(*fruitless)]
        assert set(found) == theirs


async def test_a_claim_that_comes_twice_at_once_is_one_claim(api: RunningGateway, queue: str) -> None:
    """Both answers name the same runs under the same leases; the others stay for whoever comes next, in order."""
    runs = [await queue_run(api, queue) for _ in range(10)]
    body = {"queues": [queue], "max": 2}
    headers = {"idempotency-key": f"twice-{queue}"}
    answers = await asyncio.gather(*(api.client.post("/v1/claims", json=body, headers=headers) for _ in range(4)))
    given = [[(c["run"]["id"], c["lease"]["token"]) for c in accepted(answer)["data"]] for answer in answers]
    assert len(given[0]) == 2
    assert all(each == given[0] for each in given)
    left = [run_id for run_id in runs if run_id not in dict(given[0])]
    assert [taken["run"]["id"] for taken in await claim(api, queue, most=10)] == left


@pytest.mark.parametrize("count", [1, 5])
async def test_a_repeat_gets_what_the_first_is_about_to_have(
    api: RunningGateway, queue: str, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """It finds the queue empty, since the first has reserved what was in it, and does not answer with nothing."""
    monkeypatch.setattr(work, "OTHER_S", 60)
    run_id = await queue_run(api, queue)
    caller = Caller(await api.gateway.access.authenticate(api.key, now_ms=0), idempotency_key=f"under-way-{queue}")
    service = api.gateway.services.work
    reserved, go_on = asyncio.Event(), asyncio.Event()
    change = service._journal.change

    async def change_late(*args: Any, **kwargs: Any) -> Any:
        reserved.set()
        await go_on.wait()
        return await change(*args, **kwargs)

    monkeypatch.setattr(service._journal, "change", change_late)

    async def claim_under_key() -> list[Claimed]:
        return await service.claim(caller, [queue], most=1, wait_s=0, worker=None, gone=asyncio.Event())

    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(claim_under_key())
        await reserved.wait()
        repeats = [tasks.create_task(claim_under_key()) for _ in range(count)]
        # It has looked, and the first has not gone on.
        await asyncio.wait(repeats, timeout=0.3)
        assert not any(repeat.done() for repeat in repeats)
        go_on.set()
    assert [taken.run.id for taken in first.result()] == [run_id]
    for repeat in repeats:
        assert [(taken.run.id, taken.token) for taken in repeat.result()] == [(run_id, first.result()[0].token)]


async def test_a_claim_that_comes_to_something_too_late_gives_it_back(
    api: RunningGateway, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its repeat was answered with nothing in the end: so is the first, and the run is there for the next claim."""
    monkeypatch.setattr(work, "OTHER_S", 0.1)
    headers, body = {"idempotency-key": f"late-{queue}"}, {"queues": [queue]}
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(api.client.post("/v1/claims", json={**body, "wait_s": 20}, headers=headers))
        await wait_until(lambda: sum(len(rope._waiting) for rope in api.gateway._bells._ropes.values()) == 1)
        none = await api.client.post("/v1/claims", json=body, headers=headers)
        run_id = await queue_run(api, queue)
    assert [accepted(answer)["data"] for answer in (none, first.result())] == [[], []]
    assert (await claim_one(api, queue))["run"]["id"] == run_id


async def test_an_empty_claim_does_not_spend_its_key(api: RunningGateway, queue: str) -> None:
    """What comes later is claimed under it, at once."""
    headers, body = {"idempotency-key": f"empty-{queue}"}, {"queues": [queue]}
    for _ in range(3):
        assert accepted(await api.client.post("/v1/claims", json=body, headers=headers))["data"] == []
    run_id = await queue_run(api, queue)
    (taken,) = accepted(await api.client.post("/v1/claims", json=body, headers=headers))["data"]
    assert taken["run"]["id"] == run_id


async def test_a_key_can_claim_anew_when_its_client_was_gone(api: RunningGateway, queue: str) -> None:
    """What was given back, in its place, is not what the key stands for."""
    run_id, later = [await queue_run(api, queue) for _ in range(2)]
    caller = Caller(await api.gateway.access.authenticate(api.key, now_ms=0), idempotency_key=f"gone-{queue}")
    service = api.gateway.services.work

    async def claim_under_key() -> list[Claimed]:
        return await service.claim(caller, [queue], most=1, wait_s=0, worker=None, gone=asyncio.Event())

    first = await claim_under_key()
    assert [taken.run.id for taken in first] == [run_id]
    # As the route does when the connection ends before its answer is sent.
    await service.give_back(caller, first, "the claimer is gone")
    assert (await get_run(api, run_id))["status"] == "queued"
    again = await claim_under_key()
    assert [taken.run.id for taken in again] == [run_id]
    assert again[0].token != first[0].token
    assert (await claim_one(api, queue))["run"]["id"] == later


async def test_an_answer_has_only_so_many_bytes_of_runs(api: RunningGateway, queue: str) -> None:
    """However many were asked for; the others are there for the next claim, and none is lost or held."""
    runs = [await queue_run(api, queue, input="x" * 1_000_000) for _ in range(20)]
    first = await claim(api, queue, most=100)
    assert 16 <= len(first) <= 18
    second = await claim(api, queue, most=100)
    assert [taken["run"]["id"] for taken in (*first, *second)] == runs


async def test_agents_and_queues_are_listed_in_pages(api: RunningGateway, queue: str) -> None:
    """By id and by name, each once; a key for some agents sees those."""
    names = [f"{queue}-{letter}" for letter in "abcde"]
    for name in reversed(names):
        await put_agent(api, name, queue=name)
        await queue_run(api, name)
    for path, member in (("/v1/agents", "id"), ("/v1/queues", "name")):
        found: list[str] = []
        params: dict[str, Any] = {"limit": 2}
        while True:
            page = accepted(await api.client.get(path, params=params))
            assert len(page["data"]) <= 2
            found += [entry[member] for entry in page["data"]]
            assert page["has_more"] == (page["next_cursor"] is not None)
            if not page["has_more"]:
                break
            params["cursor"] = page["next_cursor"]
        assert found == sorted(set(found))
        assert [name for name in found if name.startswith(queue)] == names
        refused(await api.client.get(path, params={"cursor": "no/name"}), 400, "bad_request")
    async with open_client(api, agents=[names[3], names[1], "unregistered"]) as bound:
        page = accepted(await bound.get("/v1/agents", params={"limit": 1}))
        rest = accepted(await bound.get("/v1/agents", params={"cursor": page["next_cursor"]}))
        assert [agent["id"] for agent in (*page["data"], *rest["data"])] == [names[1], names[3]]
