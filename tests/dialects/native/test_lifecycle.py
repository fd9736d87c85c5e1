"""The status table over HTTP: what may be done to a run in each status, and what a refusal leaves untouched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from gateway.domain.lifecycle import ENDINGS, PERMITTED, TERMINAL, Action, Status
from tests.support.native import accepted, act, get_log, get_run, get_types, refused
from tests.support.running import COMPLETE, FAIL, LOG, RunningGateway, RunningStore, run_gateway, wait_until

pytestmark = pytest.mark.anyio

TOMORROW = "2027-01-01T00:00:00.000Z"
CONFIRM = ("run.cancelled", {"reason": "as asked"})
ASK = ("run.waiting_for_input", {"prompt": "Go on?", "request_id": "q"})

Deed = Callable[[RunningGateway, str], Awaitable[httpx.Response]]

DEEDS: dict[Action, Deed] = {
    Action.APPEND: lambda api, run_id: api.append(run_id, LOG),
    Action.ASK: lambda api, run_id: api.append(run_id, ("run.waiting_for_input", {"prompt": "Which?"})),
    Action.ANSWER: lambda api, run_id: act(api, run_id, "input", content="yes"),
    Action.PAUSE: lambda api, run_id: act(api, run_id, "pause"),
    Action.RESUME: lambda api, run_id: act(api, run_id, "resume"),
    Action.CANCEL: lambda api, run_id: act(api, run_id, "cancel"),
    Action.FINISH: lambda api, run_id: api.append(run_id, COMPLETE),
    Action.CONFIRM_CANCEL: lambda api, run_id: api.append(run_id, CONFIRM),
    Action.RETRY: lambda api, run_id: act(api, run_id, "retry"),
    Action.REPLAY: lambda api, run_id: act(api, run_id, "replay"),
    Action.RESTART: lambda api, run_id: act(api, run_id, "restart"),
    Action.RESCHEDULE: lambda api, run_id: act(api, run_id, "reschedule", scheduled_at=TOMORROW),
    Action.PURGE: lambda api, run_id: act(api, run_id, "purge"),
}

# What an action leads to where it is permitted: the run's status, and what it adds to the log.
Effects = dict[Action, tuple[str, list[str]]]

COPIES = {Action.RETRY, Action.REPLAY}
STARTED = ["run.started"]
CLOSED = ["run.input_closed"]


def ended(status: str, *, but: Action | None = None) -> Effects:
    """Return what may be done to an ended run."""
    effects: Effects = {
        Action.RETRY: (status, []),
        Action.REPLAY: (status, []),
        Action.RESTART: ("queued", ["run.restarted"]),
        Action.PURGE: ("gone", []),
    }
    return {action: effect for action, effect in effects.items() if action is not but}


def finished(*before: str) -> Effects:
    """Return how whoever holds a run ends it, after these events."""
    return {
        Action.FINISH: ("completed", [*before, "run.completed"]),
        Action.CONFIRM_CANCEL: ("cancelled", [*before, "run.cancelled"]),
    }


CANCEL_AT_ONCE: Effects = {Action.CANCEL: ("cancelled", ["run.cancelled"])}
CANCEL_WITH_GRACE: Effects = {Action.CANCEL: ("cancelling", ["run.cancel_requested"])}

TABLE: dict[str, Effects] = {
    "delayed": {
        **CANCEL_AT_ONCE,
        Action.RESCHEDULE: ("delayed", ["run.rescheduled"]),
    },
    "queued": {
        **CANCEL_AT_ONCE,
        **finished("run.started"),
        Action.APPEND: ("running", [*STARTED, "log"]),
        Action.ASK: ("waiting_for_input", [*STARTED, "run.waiting_for_input"]),
        Action.PAUSE: ("paused", ["run.paused"]),
        Action.RESCHEDULE: ("delayed", ["run.rescheduled"]),
    },
    "running": {
        **CANCEL_WITH_GRACE,
        **finished(),
        Action.APPEND: ("running", ["log"]),
        Action.ASK: ("waiting_for_input", ["run.waiting_for_input"]),
        Action.PAUSE: ("paused", ["run.paused"]),
        Action.RESTART: ("queued", ["run.restarted"]),
    },
    "waiting_for_input": {
        **CANCEL_WITH_GRACE,
        **finished("run.input_closed"),
        Action.APPEND: ("waiting_for_input", ["log"]),
        Action.ASK: ("waiting_for_input", ["run.waiting_for_input"]),
        Action.ANSWER: ("running", ["run.input_received"]),
        Action.PAUSE: ("paused", ["run.paused"]),
    },
    "paused": {
        **CANCEL_WITH_GRACE,
        **finished(),
        Action.APPEND: ("paused", ["log"]),
        Action.RESUME: ("running", ["run.resumed"]),
        Action.RESTART: ("queued", ["run.restarted"]),
    },
    "paused before its start": {
        **CANCEL_AT_ONCE,
        Action.RESUME: ("queued", ["run.resumed"]),
        Action.RESTART: ("queued", ["run.restarted"]),
    },
    "paused with a question": {
        **CANCEL_WITH_GRACE,
        **finished("run.input_closed"),
        Action.APPEND: ("paused", ["log"]),
        Action.RESUME: ("waiting_for_input", ["run.resumed"]),
        Action.RESTART: ("queued", ["run.input_closed", "run.restarted"]),
    },
    "cancelling": {
        **finished(),
        Action.CANCEL: ("cancelling", []),
        Action.APPEND: ("cancelling", ["log"]),
    },
    "completed": ended("completed", but=Action.RETRY),
    "failed": ended("failed"),
    "cancelled": ended("cancelled"),
    "timed_out": ended("timed_out"),
    "crashed": ended("crashed"),
    "expired": ended("expired"),
}

PATHS: dict[str, list[Any]] = {
    "delayed": [],
    "queued": [],
    "running": [LOG],
    "waiting_for_input": [LOG, ASK],
    "paused": [LOG, "pause"],
    "paused before its start": ["pause"],
    "paused with a question": [ASK, "pause"],
    "cancelling": [LOG, "cancel"],
    "completed": [LOG, COMPLETE],
    "failed": [LOG, FAIL],
    "cancelled": ["cancel"],
    "timed_out": [LOG],
    "crashed": [LOG],
    "expired": [],
}
BODIES: dict[str, dict[str, Any]] = {
    "delayed": {"delay_s": 3600},
    "timed_out": {"timeout_s": 0.2},
    "crashed": {"heartbeat_s": 1},
}


@pytest.fixture(scope="module")
async def hasty(store: RunningStore, anyio_backend: object) -> AsyncIterator[RunningGateway]:
    """A gateway that gives a run a tenth of a second to start."""
    async with run_gateway(store.url, start_timeout_s=0.1) as running:
        yield running


async def reach(api: RunningGateway, place: str) -> dict[str, Any]:
    """Return a new run that stands where `place` says."""
    run_id: str = (await api.create_run(**BODIES.get(place, {})))["id"]
    for step in PATHS[place]:
        accepted(await (act(api, run_id, step) if isinstance(step, str) else api.append(run_id, step)))

    async def there() -> bool:
        return bool((await get_run(api, run_id))["status"] == place.partition(" ")[0])

    await wait_until(there)
    return await get_run(api, run_id)


@pytest.mark.parametrize("place", TABLE)
async def test_every_action_obeys_the_table(api: RunningGateway, hasty: RunningGateway, place: str) -> None:
    """What the table permits does what it says; all else is refused by name, and changes nothing."""
    api = hasty if place == "expired" else api
    runs = await asyncio.gather(*(reach(api, place) for _ in DEEDS))
    for action, before in zip(DEEDS, runs, strict=True):
        answer = await DEEDS[action](api, before["id"])
        if action in TABLE[place]:
            await check_effect(api, before, action, answer, TABLE[place][action])
        else:
            check_refusal(action, before["status"], answer)
            assert await get_run(api, before["id"]) == before, action


async def check_effect(
    api: RunningGateway, before: dict[str, Any], action: Action, answer: httpx.Response, effect: tuple[str, list[str]]
) -> None:
    """Check that the run stands where the action leads, by these events and no other."""
    status, types = effect
    body = accepted(answer, 201 if action in COPIES else 200)
    if status == "gone":
        refused(await api.client.get(f"/v1/runs/{before['id']}"), 404, "not_found")
        return
    run = await get_run(api, before["id"])
    assert run["status"] == status, action
    assert await get_types(api, run["id"], after_seq=before["head_seq"]) == types, action
    if "status" in body and action not in COPIES:
        assert body["status"] == status


def check_refusal(action: Action, status: str, answer: httpx.Response) -> None:
    """Check that an action was refused with what a caller needs to know."""
    if (status, action) == ("waiting_for_input", Action.RESUME):
        assert refused(answer, 409, "input_required")["request_ids"] == ["q"]
        return
    problem = refused(answer, 409, "invalid_state")
    assert problem["current_status"] == status
    assert status not in problem["permitted"], action
    assert set(problem["permitted"]) >= PERMITTED[action] - {Status(status)}


def test_the_table_of_this_module_is_that_of_the_domain() -> None:
    """Neither knows a pair that the other does not."""
    starting = {Action.APPEND, Action.ASK, Action.FINISH, Action.CONFIRM_CANCEL}
    for place, effects in TABLE.items():
        if " " in place:
            continue
        permitted = {a for a in DEEDS if Status(place) in PERMITTED[a] or (place == "queued" and a in starting)}
        assert effects.keys() == permitted, place


@pytest.mark.parametrize("action", sorted(COPIES))
async def test_a_copy_is_a_new_run_with_the_inputs_and_lineage(api: RunningGateway, action: Action) -> None:
    """Retry and replay take the input over and name where the copy comes from; the source stays as it was."""
    about = {"input": {"topic": "tea"}, "title": "Tea", "tags": {"team": "a"}, "metadata": {"n": 1}, "thread_id": "t1"}
    source = await api.create_run(**about)
    await api.append(source["id"], LOG, FAIL)
    copy = accepted(await act(api, source["id"], action, triggered_by="night watch"), 201)
    assert copy["id"] != source["id"]
    assert {name: copy[name] for name in about} == about
    assert (copy["status"], copy["attempt"], copy["head_seq"]) == ("queued", 1, 2)
    assert copy["root_run_id"] == source["id"]
    assert copy["lineage_depth"] == 1
    assert copy["triggered_by"] == "night watch"
    named = {"retry": "retry_of", "replay": "replay_of"}
    assert {name: copy[name] for name in named.values()} == dict.fromkeys(named.values()) | {
        named[action]: source["id"]
    }
    assert (await get_run(api, source["id"]))["status"] == "failed"


async def test_a_copy_of_a_copy_keeps_the_first_ancestor(api: RunningGateway) -> None:
    """Depth counts on, the root stays."""
    first = await api.run_in("failed")
    second = accepted(await act(api, first["id"], "retry"), 201)
    await api.append(second["id"], FAIL)
    third = accepted(await act(api, second["id"], "replay"), 201)
    assert (third["root_run_id"], third["replay_of"], third["lineage_depth"]) == (first["id"], second["id"], 2)


@pytest.mark.parametrize("ending", ["run.completed", "run.failed", "run.cancelled"])
async def test_a_run_ends_once(api: RunningGateway, ending: str) -> None:
    """Whoever comes second is told how it ended; the log has one terminal event, and it is the last."""
    data = {"run.completed": {"output": 1}, "run.failed": FAIL[1], "run.cancelled": {}}
    run = await api.run_in("running")
    answers = await asyncio.gather(*(api.append(run["id"], (ending, data[ending])) for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 9
    for answer in answers:
        if answer.status_code == 409:
            assert refused(answer, 409, "invalid_state")["current_status"] == ENDINGS[ending]
    types = await get_types(api, run["id"])
    assert [kind for kind in types if kind in ENDINGS] == [ending]
    assert types[-1] == ending


async def test_different_ends_at_once_leave_one(api: RunningGateway) -> None:
    """Complete, fail, confirm and force-cancel race; one wins, and the record tells the same as the log."""
    run_ids = [(await api.run_in("running"))["id"] for _ in range(5)]
    for run_id in run_ids:
        await asyncio.gather(
            api.append(run_id, COMPLETE),
            api.append(run_id, FAIL),
            api.append(run_id, CONFIRM),
            act(api, run_id, "cancel", force=True),
        )
        ends = [kind for kind in await get_types(api, run_id) if kind in ENDINGS]
        assert [(await get_run(api, run_id))["status"]] == [ENDINGS[kind] for kind in ends]


async def test_events_after_the_end_in_one_batch_are_refused_with_it(api: RunningGateway) -> None:
    """A batch is stored whole or not at all. It is the batch that is wrong: nobody is told that the run has ended."""
    run = await api.run_in("running")
    for after in (LOG, COMPLETE):
        problem = refused(await api.append(run["id"], LOG, COMPLETE, after), 422, "invalid_body")
        assert (problem["index"], problem["path"]) == (2, "type")
        assert "run.completed" in problem["detail"]
        assert await get_run(api, run["id"]) == run


async def test_the_end_is_told_in_the_record(api: RunningGateway) -> None:
    """Output, error and the time of the end are where the documents say."""
    completed, failed = await api.run_in("completed"), await api.run_in("failed")
    assert (completed["output"], completed["error"]) == ({"answer": 42}, None)
    assert (failed["output"], failed["error"]["code"]) == (None, "broken")
    for run in (completed, failed):
        assert run["created_at"] <= run["started_at"] <= run["ended_at"] == run["updated_at"]


async def test_a_first_append_starts_the_run_and_is_told_its_own_seq(api: RunningGateway) -> None:
    """`run.started` is written before it by the gateway; `first_seq` is the caller's own event."""
    run = await api.create_run()
    body = accepted(await api.append(run["id"], LOG, LOG))
    assert (body["first_seq"], body["last_seq"], body["status"], body["attempt"]) == (4, 5, "running", 1)
    assert await get_types(api, run["id"]) == ["run.created", "run.queued", "run.started", "log", "log"]


async def test_a_restart_is_the_next_attempt_in_the_same_log(api: RunningGateway) -> None:
    """Seq goes on, the end is taken back, and the new attempt says what it supersedes."""
    run = await api.run_in("completed")
    restarted = accepted(await act(api, run["id"], "restart", reason="once more"))
    assert (restarted["status"], restarted["attempt"], restarted["output"], restarted["ended_at"]) == (
        "queued",
        2,
        None,
        None,
    )
    accepted(await api.append(run["id"], LOG, attempt=2))
    events = await get_log(api, run["id"], after_seq=run["head_seq"])
    assert [e["type"] for e in events] == ["run.restarted", "run.attempt_started", "run.started", "log"]
    assert [e["attempt"] for e in events] == [2, 2, 2, 2]
    assert events[0]["data"]["reason"] == "once more"
    assert events[1]["data"] == {"attempt": 2, "supersedes": [1, run["head_seq"]]}
    accepted(await api.append(run["id"], COMPLETE, attempt=2))
    accepted(await act(api, run["id"], "restart"))
    accepted(await api.append(run["id"], LOG, attempt=3))
    (third,) = [e for e in await get_log(api, run["id"]) if e["type"] == "run.attempt_started" and e["attempt"] == 3]
    assert third["data"]["supersedes"] == [events[0]["seq"], events[-1]["seq"] + 1]


async def test_every_terminal_status_of_the_table_can_be_reached(api: RunningGateway) -> None:
    """What direct runs cannot reach is what only the queue leads to."""
    assert {*TERMINAL} - {*TABLE} == {Status.SYSTEM_FAILED, Status.DEAD_LETTER}
