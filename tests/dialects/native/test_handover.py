"""Runs that change hands: what the next holder is given, and what is not lost on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from ulid import ULID

from gateway.domain.times import parse_time
from tests.support.native import accepted, act, get_log, get_run, get_types
from tests.support.running import COMPLETE, LOG, RunningGateway, RunningStore, run_gateway, wait_until
from tests.support.work import act_as_holder, claim_one, queue_run, write

pytestmark = pytest.mark.anyio


def question(request_id: str) -> tuple[str, Any]:
    """Return an event that asks."""
    return ("run.waiting_for_input", {"prompt": "Go on?", "request_id": request_id})


@pytest.fixture(scope="module")
async def api(store: RunningStore, anyio_backend: object) -> AsyncIterator[RunningGateway]:
    """A gateway for all of them."""
    async with run_gateway(store.url) as running:
        yield running


@pytest.fixture
def queue() -> str:
    """A queue that no other test uses."""
    return f"q{ULID()}"


async def test_whoever_goes_on_has_every_answer(api: RunningGateway, queue: str) -> None:
    """Also those that the record remembers no more: the log has them."""
    run_id = await queue_run(api, queue)
    first = await claim_one(api, queue)
    for number in range(70):
        accepted(await write(api, first, LOG, question(f"q{number}")))
        accepted(await act(api, run_id, "input", content=number))
    accepted(await write(api, first, question("last")))
    accepted(await act_as_holder(api, first, "release"))
    accepted(await act(api, run_id, "input", content="last"))
    second = await claim_one(api, queue)
    assert second["continues"]
    assert [answer["content"] for answer in second["answers"]] == [*range(70), "last"]
    accepted(await write(api, second, COMPLETE))


async def test_an_answer_a_moment_before_the_release_does_not_cost_the_attempt(api: RunningGateway, queue: str) -> None:
    """It comes to the same as the other order: queued, and gone on with after the answer."""
    run_id = await queue_run(api, queue)
    first = await claim_one(api, queue)
    accepted(await write(api, first, LOG, question("q")))
    accepted(await act(api, run_id, "input", content="yes"))
    released = accepted(await act_as_holder(api, first, "release"))
    assert released["status"] == "queued"
    second = await claim_one(api, queue)
    assert (second["lease"]["attempt"], second["continues"]) == (1, True)
    assert [answer["content"] for answer in second["answers"]] == ["yes"]
    accepted(await write(api, second, COMPLETE))
    assert "run.attempt_started" not in await get_types(api, run_id)


async def test_a_release_after_work_on_the_answer_does_the_attempt_again(api: RunningGateway, queue: str) -> None:
    """What was written since the answer is abandoned, so the attempt begins anew."""
    run_id = await queue_run(api, queue)
    first = await claim_one(api, queue)
    accepted(await write(api, first, question("q")))
    accepted(await act(api, run_id, "input", content="yes"))
    accepted(await write(api, first, LOG))
    accepted(await act_as_holder(api, first, "release"))
    second = await claim_one(api, queue)
    assert (second["continues"], second["answers"]) == (False, [])
    accepted(await write(api, second, question("q")))
    assert (await get_types(api, run_id))[-3:] == ["run.attempt_started", "run.started", "run.waiting_for_input"]


async def test_an_answer_queues_a_run_as_anything_else_does(api: RunningGateway, queue: str) -> None:
    """Its log says so, and it waits no longer than its policy says."""
    run_id = await queue_run(api, queue, queue_expiry_s=600)
    first = await claim_one(api, queue)
    accepted(await write(api, first, question("q")))
    accepted(await act_as_holder(api, first, "release"))
    reply = accepted(await act(api, run_id, "input", content="yes", key="k"))
    answered, queued = (await get_log(api, run_id))[-2:]
    assert (answered["type"], answered["seq"]) == ("run.input_received", reply["seq"])
    assert (queued["type"], list(queued["data"])) == ("run.queued", ["expires_at"])
    assert (await get_run(api, run_id))["expires_at"] == queued["data"]["expires_at"]
    assert accepted(await act(api, run_id, "input", content="yes", key="k")) == reply


async def test_a_default_answer_queues_a_run_that_nobody_holds(api: RunningGateway, queue: str) -> None:
    """As somebody's answer does, when its deadline comes."""
    run_id = await queue_run(api, queue)
    first = await claim_one(api, queue)
    kind, data = question("q")
    accepted(await write(api, first, (kind, {**data, "timeout_s": 0.5, "on_timeout": "default", "default": 7})))
    accepted(await act_as_holder(api, first, "release"))
    second = await claim_one(api, queue)
    assert [answer["content"] for answer in second["answers"]] == [7]
    assert (await get_types(api, run_id))[-3:] == ["run.input_received", "run.queued", "run.dequeued"]


async def test_what_goes_on_keeps_its_place(api: RunningGateway, queue: str) -> None:
    """Paused and resumed, given back after it began, or answered: it comes before what was queued later."""
    paused, begun, asking, later = [await queue_run(api, queue) for _ in range(4)]
    accepted(await act(api, paused, "pause"))
    first, second = [await claim_one(api, queue) for _ in range(2)]
    assert [first["run"]["id"], second["run"]["id"]] == [begun, asking]
    accepted(await write(api, first, LOG))
    accepted(await write(api, second, question("q")))
    accepted(await act_as_holder(api, second, "release"))
    accepted(await act_as_holder(api, first, "release"))
    accepted(await act(api, asking, "input", content=1))
    accepted(await act(api, paused, "resume"))
    order = [(await claim_one(api, queue))["run"]["id"] for _ in range(4)]
    assert order == [paused, begun, asking, later]


async def test_what_could_not_be_begun_goes_behind_the_others(api: RunningGateway, queue: str) -> None:
    """A worker that gives back what it does not know comes to what it knows."""
    unknown, other = [await queue_run(api, queue) for _ in range(2)]
    claimed = await claim_one(api, queue)
    # The store's time made the runs and this process's the release: let their difference pass.
    made_ms = parse_time((await get_run(api, other))["created_at"])
    await wait_until(lambda: api.gateway.clock.now_ms() > made_ms + 100)
    accepted(await act_as_holder(api, claimed, "release"))
    assert [(await claim_one(api, queue))["run"]["id"] for _ in range(2)] == [other, unknown]


@pytest.mark.parametrize("early", [True, False])
async def test_what_was_met_stays_met_when_it_is_purged(api: RunningGateway, queue: str, early: bool) -> None:
    """Whether the dependent had noted it before, or the purge comes right behind the end."""
    first, second = await queue_run(api, queue), await queue_run(api, queue)
    dependent = await queue_run(api, f"{queue}d", depends_on=[{"run_id": first}, {"run_id": second}])
    accepted(await write(api, await claim_one(api, queue), COMPLETE))
    if not early:

        async def noted() -> bool:
            return "run.dependency_met" in await get_types(api, dependent)

        await wait_until(noted)
    accepted(await act(api, first, "purge"))
    told = accepted(await api.client.get(f"/v1/runs/{dependent}/dependency-status"))
    assert [need["verdict"] for need in told["dependencies"]] == ["met", "waiting"]
    accepted(await write(api, await claim_one(api, queue), COMPLETE))
    assert (await claim_one(api, f"{queue}d"))["run"]["id"] == dependent
    types = await get_types(api, dependent)
    assert types == ["run.created", "run.dependency_met", "run.dependencies_met", "run.queued", "run.dequeued"]
