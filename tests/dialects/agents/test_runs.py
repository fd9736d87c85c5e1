"""Lists and records of an agent's runs: its own only, every field, every status found by its word."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from ulid import ULID

from gateway.dialects.agents.project import WORDS
from gateway.domain.lifecycle import ALL, Status
from tests.dialects.agents.speaking import AGENT, RECORD, SUMMARY, fetch, path_of, refused
from tests.support.native import accepted, act, get_run, open_client
from tests.support.running import COMPLETE, FAIL, LOG, RunningGateway, RunningStore, run_gateway
from tests.support.standing import standing
from tests.support.work import claim_one, queue_run, write

pytestmark = pytest.mark.anyio


async def ids(api: RunningGateway, agent: str = AGENT, **params: Any) -> list[str]:
    """Return the ids of the runs that a list shows, each with every field of a list."""
    runs = accepted(await api.client.get(path_of(agent=agent), params=params))["runs"]
    assert all(run.keys() == SUMMARY for run in runs)
    return [run["run_id"] for run in runs]


async def test_a_record_has_every_field_of_the_page(api: RunningGateway) -> None:
    """Times are null until then; the workflow is the agent; inputs are as they were given."""
    run = await api.create_run(agent_id=AGENT, input={"order": 7})
    record = await fetch(api, run["id"])
    assert record.keys() == RECORD
    assert (record["run_id"], record["workflow_id"], record["inputs"]) == (run["id"], AGENT, {"order": 7})
    assert (record["status"], record["started_at"], record["completed_at"]) == ("queued", None, None)
    assert (record["step_results"], record["output_files"]) == ([], [])
    await api.append(run["id"], LOG, COMPLETE)
    record, native = await fetch(api, run["id"]), await get_run(api, run["id"])
    assert record["status"] == "succeeded"
    for name, known in (("started_at", "started_at"), ("completed_at", "ended_at")):
        assert record[name] == native[known][:19] + "Z"


async def test_step_results_are_what_the_steps_came_to(api: RunningGateway) -> None:
    """In the order they began: running, succeeded with output, failed with error, cancelled with their run."""
    run = await api.create_run(agent_id=AGENT)
    error = {"code": "no_paper", "message": "The tray is empty."}
    await api.append(
        run["id"],
        ("step.started", {"step_id": "a", "name": "fetch"}),
        ("step.completed", {"step_id": "a", "duration_ms": 5, "output": {"rows": 2}}),
        ("step.started", {"step_id": "b", "name": "print"}),
        ("step.failed", {"step_id": "b", "error": error}),
        ("step.started", {"step_id": "c", "name": "mail"}),
    )
    steps = (await fetch(api, run["id"]))["step_results"]
    assert [(s["step_id"], s["name"], s["status"]) for s in steps] == [
        ("a", "fetch", "succeeded"),
        ("b", "print", "failed"),
        ("c", "mail", "running"),
    ]
    assert [(s["output"], s["error"]) for s in steps] == [({"rows": 2}, None), (None, error), (None, None)]
    assert [s["completed_at"] is None for s in steps] == [False, False, True]
    await api.append(run["id"], FAIL)
    assert (await fetch(api, run["id"]))["step_results"][-1]["status"] == "cancelled"


async def test_step_results_leave_out_what_an_attempt_abandoned(api: RunningGateway) -> None:
    """A step that a second attempt does again is shown once."""
    queue = f"q{ULID()}"
    run_id = await queue_run(
        api, queue, agent_id=AGENT, retry={"max_attempts": 2, "initial_delay_s": 0, "max_delay_s": 0}
    )
    begin = ("step.started", {"step_id": "a", "name": "fetch"})
    accepted(await write(api, await claim_one(api, queue), begin, FAIL))
    accepted(await write(api, await claim_one(api, queue), begin))
    steps = (await fetch(api, run_id))["step_results"]
    assert [(s["step_id"], s["status"]) for s in steps] == [("a", "running")]


async def test_a_record_outlives_its_log(api: RunningGateway) -> None:
    """When the log was removed, the record is shown without the steps that only the log had."""
    run = await api.create_run(agent_id=AGENT)
    await api.append(run["id"], ("step.started", {"step_id": "a", "name": "fetch"}), COMPLETE)
    accepted(await act(api, run["id"], "purge", keep_record=True))
    record = await fetch(api, run["id"])
    assert (record["status"], record["step_results"], record["output_files"]) == ("succeeded", [], [])


@pytest.fixture(scope="module")
async def every(api: RunningGateway) -> dict[str, str]:
    """A run of one agent in every native status."""
    runs = await asyncio.gather(*(standing(api, status, agent_id="every") for status in ALL))
    return dict(zip(map(str, ALL), runs, strict=True))


async def test_each_word_finds_every_status_that_shows_as_it(api: RunningGateway, every: dict[str, str]) -> None:
    """Alone and whatever the limit; what is found shows as the word."""
    for word in WORDS.known:
        expected = {every[status] for status in ALL if WORDS.of(Status(status)) == word}
        assert set(await ids(api, "every", status=word)) == expected, word
        shown = accepted(await api.client.get(path_of(agent="every"), params={"status": word}))["runs"]
        assert {run["status"] for run in shown} == {word}
    for status, run_id in every.items():
        assert (await fetch(api, run_id, agent="every"))["status"] == WORDS.of(Status(status)), status


async def test_a_list_shows_the_newest_runs_of_its_agent(api: RunningGateway) -> None:
    """50 where nobody says how many, at most 100; never those of another agent."""
    runs = [(await api.create_run(agent_id="many"))["id"] for _ in range(104)]
    await api.create_run(agent_id="other")
    newest = runs[::-1]
    assert await ids(api, "many") == newest[:50]
    assert await ids(api, "many", limit=3) == newest[:3]
    assert await ids(api, "many", limit=100) == newest[:100]
    assert await ids(api, "many", limit=100_000) == newest[:100]
    assert await ids(api, "nobody") == []


async def test_any_other_parameter_is_ignored(api: RunningGateway) -> None:
    """As the page says; so a misspelt one changes nothing."""
    runs = [(await api.create_run(agent_id="ignoring"))["id"] for _ in range(2)][::-1]
    assert await ids(api, "ignoring", cursor="x", agent_id="other", offset=1, Status="failed") == runs


@pytest.mark.parametrize(
    ("params", "parameter"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "-1"}, "limit"),
        ({"limit": "ten"}, "limit"),
        ({"limit": "9" * 20}, "limit"),
        ({"limit": ["1", "2"]}, "limit"),
        ({"status": "completed"}, "status"),
        ({"status": ""}, "status"),
        ({"status": ["failed", "queued"]}, "status"),
    ],
)
async def test_a_bad_parameter_is_refused_by_name(api: RunningGateway, params: dict[str, Any], parameter: str) -> None:
    """With what is allowed."""
    details = refused(await api.client.get(path_of(), params=params), 400, "bad_request")
    assert details["parameter"] == parameter


async def test_a_list_finds_what_is_rare(store: RunningStore) -> None:
    """There is no cursor: runs beyond what one page examines are found all the same."""
    async with run_gateway(store.url, scan_records=10) as api:
        wanted = []
        for n in range(60):
            run_id = await standing(api, "failed" if n % 25 == 0 else "completed", agent_id=AGENT)
            wanted += [run_id] if n % 25 == 0 else []
        assert await ids(api, status="failed") == wanted[::-1]
        assert await ids(api, status="failed", limit=2) == wanted[::-1][:2]
        assert await ids(api, status="queued") == []


async def test_a_run_of_another_agent_is_not_there(api: RunningGateway) -> None:
    """Neither to be read nor to be controlled; the run itself stays as it is."""
    run_id = await standing(api, "running", agent_id=AGENT)
    before = await get_run(api, run_id)
    refused(await api.client.get(path_of(run_id, agent="another")), 404, "not_found")
    for action in ("cancel", "pause", "resume", "retry"):
        refused(await api.client.post(path_of(run_id, action, agent="another")), 404, "not_found")
    assert await get_run(api, run_id) == before
    for nothing in (str(ULID()), "run_01HZQ7K9...", "x"):
        refused(await api.client.get(path_of(nothing)), 404, "not_found")


async def test_a_key_reaches_its_own_tenant_and_agents(api: RunningGateway) -> None:
    """What lies beyond is not there, and a list of it is empty."""
    run_id = await standing(api, "running", agent_id=AGENT)
    strangers: list[dict[str, Any]] = [{"tenant": "strangers"}, {"agents": ["somebody-else"]}]
    for stranger in strangers:
        async with open_client(api, **stranger) as client:
            refused(await client.get(path_of(run_id)), 404, "not_found")
            refused(await client.post(path_of(run_id, "cancel")), 404, "not_found")
            assert accepted(await client.get(path_of())) == {"runs": []}
    async with open_client(api, scopes=["runs:read"]) as client:
        assert (await client.get(path_of(run_id))).status_code == 200
        refused(await client.post(path_of(run_id, "cancel")), 403, "forbidden")
