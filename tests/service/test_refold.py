"""The log is the run: after any history, folding the log gives the record that guards and lists go by."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ulid import ULID

from gateway.domain.catalogue import UsageRecorded
from gateway.domain.evolve import evolve
from gateway.domain.fold import measure_usage
from gateway.domain.run import RunState, Totals
from gateway.domain.times import parse_time
from tests.support.native import accepted, act, get_log, get_run
from tests.support.running import COMPLETE, FAIL, LOG, RunningGateway, RunningStore, run_gateway
from tests.support.work import act_as_holder, claim_one, queue_run, write

pytestmark = pytest.mark.anyio

Deed = Callable[[RunningGateway, str], Awaitable[httpx.Response]]

USED = {"provider": "p", "model": "m", "prompt_tokens": 3, "completion_tokens": 2, "credits": 0.5, "cost_microusd": 7}


def appending(*events: tuple[str, Any]) -> Deed:
    """Return what a writer of the present attempt does."""

    async def append(api: RunningGateway, run_id: str) -> httpx.Response:
        return await api.append(run_id, *events, attempt=(await get_run(api, run_id))["attempt"])

    return append


def acting(action: str, **body: Any) -> Deed:
    """Return what somebody who steers does."""
    return lambda api, run_id: act(api, run_id, action, **body)


def question(**data: Any) -> tuple[str, Any]:
    """Return an event that asks."""
    return ("run.waiting_for_input", {"prompt": "?", **data})


DEEDS: dict[str, Deed] = {
    "log": appending(LOG),
    "use": appending(("usage.recorded", USED)),
    "use another": appending(("usage.recorded", USED), ("usage.recorded", {**USED, "model": "n"}), LOG),
    "use and end": appending(("usage.recorded", USED), COMPLETE),
    "checkpoint": appending(("checkpoint.created", {"source": "s", "state": {"n": 1}})),
    "output": appending(("output.set", {"key": "k", "value": 1}), LOG, ("output.set", {"key": "l", "value": 2})),
    "fail": appending(FAIL),
    "confirm": appending(("run.cancelled", {"reason": "r"})),
    "ask": appending(question()),
    "ask twice": appending(LOG, question(request_id="fixed"), question(schema={"type": "string"}, on_timeout=None)),
    "ask shortly": appending(question(timeout_s=0.001, on_timeout="default", default={"d": 1})),
    "ask in vain": appending(question(timeout_s=0.001, on_timeout="fail")),
    "answer": acting("input", content={"yes": [1]}),
    "withdraw": appending(("run.input_closed", {"request_id": "fixed", "reason": "never mind"})),
    "pause": acting("pause", reason="r"),
    "resume": acting("resume"),
    "cancel": acting("cancel", reason="r"),
    "force": acting("cancel", force=True),
    "restart": acting("restart"),
    "reschedule": acting("reschedule", scheduled_at="2027-01-01T00:00:00Z"),
    "trim": acting("purge", keep_record=True),
}


@pytest.fixture(scope="module")
async def api(store: RunningStore, anyio_backend: object) -> AsyncIterator[RunningGateway]:
    """A gateway for all histories."""
    async with run_gateway(store.url) as running:
        yield running


@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    history=st.lists(st.sampled_from(sorted(DEEDS.keys() - {"trim"})), max_size=20),
    about=st.sampled_from([{}, {"delay_s": 0.01}, {"timeout_s": 60, "heartbeat_s": 30}]),
)
async def test_the_record_is_the_fold_of_the_log(
    api: RunningGateway, history: list[str], about: dict[str, Any]
) -> None:
    """State, marks and totals; seqs without a hole; times that never go back."""
    run_id = (await api.create_run(**about))["id"]
    for name in history:
        answer = await DEEDS[name](api, run_id)
        assert answer.status_code < 500, answer.text
    await check_refold(api, run_id)


async def check_refold(api: RunningGateway, run_id: str) -> None:
    """Fold a run's log and compare it with its record."""
    # Time may act between the two reads: the same revision before and after is one moment.
    while True:
        record = await api.gateway.stores.runs.load(run_id, api.tenant)
        log = await get_log(api, run_id)
        if len(log) == record.head_seq:
            break
    state: RunState | None = None
    marks: dict[str, int] = {}
    totals, model = Totals(), None
    for event in log:
        state, named = evolve(state, event["type"], event["data"], parse_time(event["created_at"]))
        marks |= dict.fromkeys(named, event["seq"])
        if event["type"] == "usage.recorded":
            totals = add(totals, measure_usage(msgspec.convert(event["data"], UsageRecorded)))
            model = event["data"]["model"]
    assert state == record.state
    assert marks == record.marks
    assert (totals, model) == (record.totals, record.model)
    times = [event["created_at"] for event in log]
    assert times == sorted(times)
    assert record.updated_ms == parse_time(times[-1])


async def test_the_record_of_a_claimed_run_is_the_fold_of_its_log(api: RunningGateway) -> None:
    """Through claims, checkpoints, failed attempts, a release at a question, and the dead letters."""
    queue = f"q{ULID()}"
    retry = {"max_attempts": 2, "initial_delay_s": 0}
    run_id = await queue_run(api, queue, retry=retry, dead_letter=True, preset=None)
    checkpoint = ("checkpoint.created", {"source": "s", "state": {"n": 1}})
    claimed = await claim_one(api, queue)
    accepted(await write(api, claimed, LOG, checkpoint, question(request_id="q")))
    await check_refold(api, run_id)
    accepted(await act_as_holder(api, claimed, "release"))
    accepted(await act(api, run_id, "input", content=1))
    claimed = await claim_one(api, queue)
    await check_refold(api, run_id)
    accepted(await write(api, claimed, FAIL))
    claimed = await claim_one(api, queue)
    accepted(await write(api, claimed, ("usage.recorded", USED), FAIL))
    await check_refold(api, run_id)
    accepted(await act(api, run_id, "dlq-replay"))
    claimed = await claim_one(api, queue)
    accepted(await write(api, claimed, COMPLETE))
    await check_refold(api, run_id)


def add(left: Totals, right: Totals) -> Totals:
    """Return the sum of two totals."""
    return Totals(*(getattr(left, name) + getattr(right, name) for name in Totals.__struct_fields__))


async def test_a_trimmed_log_goes_on_densely(api: RunningGateway) -> None:
    """A restart after its log has expired continues the seqs, and the record goes on from its own state."""
    run = await api.run_in("completed")
    for name in ("trim", "restart", "log", "use", "fail", "trim", "restart", "ask"):
        assert (await DEEDS[name](api, run["id"])).status_code == 200, name
    record = await api.gateway.stores.runs.load(run["id"], api.tenant)
    log = await get_log(api, run["id"])
    assert (log[0]["seq"], log[-1]["seq"]) == (record.first_seq, record.head_seq)
    assert (record.state.attempt, record.status) == (3, "waiting_for_input")
    assert record.totals.prompt_tokens == 3
