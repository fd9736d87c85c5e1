"""Runs of a process: found by process, agent and stage, a page after the other; outputs whole and by name."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from ulid import ULID

from gateway.dialects.processes.project import PROCESS_TAG, WORDS
from gateway.domain.lifecycle import ALL, Status
from tests.dialects.processes.speaking import AGENT, PROCESS, page, refused, refused_at, start, told, walk
from tests.support.native import accepted, act, get_run, open_client
from tests.support.running import COMPLETE, LOG, RunningGateway, RunningStore, run_gateway
from tests.support.standing import standing

pytestmark = pytest.mark.anyio


def named(outputs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return outputs by name; each must have its fields."""
    assert all(output.keys() == {"name", "value"} for output in outputs)
    return {output["name"]: output["value"] for output in outputs}


async def shown(api: RunningGateway, run_id: str) -> dict[str, Any]:
    """Return a run."""
    return told(await api.client.get(f"/runs/{run_id}"))


@pytest.mark.parametrize("status", ALL)
async def test_every_status_shows_as_its_word(api: RunningGateway, status: Status) -> None:
    """Whatever brought the run there."""
    run_id = await standing(api, status)
    assert (await shown(api, run_id))["status"] == WORDS.of(status)


async def test_a_run_of_another_api_is_shown_as_one_of_its_agent(api: RunningGateway) -> None:
    """Fetched and listed, beside those that were given that process."""
    agent = f"a{ULID()}"[:26]
    native = await api.create_run(agent_id=agent, title="by hand")
    run = await shown(api, native["id"])
    assert (run["process_id"], run["agent_id"], run["stage"], run["name"]) == (agent, agent, "Published", "by hand")
    assert run["created_at"] == native["created_at"][:19]
    given = await start(api, agent_id=agent, process_id=agent, stage="Draft")
    elsewhere = await start(api, agent_id=agent, process_id="other")
    tagged = await api.create_run(agent_id=agent, tags={PROCESS_TAG: "other"})
    assert await walk(api, agent_id=agent, process_id=agent) == [given["id"], native["id"]]
    assert await walk(api, agent_id=agent, process_id=agent, stage="Draft") == [given["id"]]
    assert await walk(api, agent_id=agent, process_id=agent, stage="Published") == [native["id"]]
    assert await walk(api, agent_id=agent, process_id="other") == [tagged["id"], elsewhere["id"]]


async def test_outputs_are_those_that_the_run_set(api: RunningGateway) -> None:
    """The last value of each name; in lists too."""
    run = await api.create_run(agent_id=AGENT, tags={PROCESS_TAG: "outputs"})
    assert (await shown(api, run["id"]))["outputs"] is None
    await api.append(run["id"], LOG, ("output.set", {"key": "total_items", "value": 41}))
    await api.append(
        run["id"],
        ("output.set", {"key": "customer_id", "value": "9nvx1hdm9bd74rp585oe81t5i"}),
        ("output.set", {"key": "total_items", "value": 42}),
        COMPLETE,
    )
    expected = {"total_items": 42, "customer_id": "9nvx1hdm9bd74rp585oe81t5i"}
    found = await shown(api, run["id"])
    assert named(found["outputs"]) == expected
    items, _ = await page(api, process_id="outputs")
    assert items == [found]


async def test_an_output_is_whole_however_large(api: RunningGateway) -> None:
    """What folds elide is read from the log."""
    run = await api.create_run(agent_id=AGENT, tags={PROCESS_TAG: "large"})
    large, odd = ["x" * 100_000], {"elided_bytes": 1, "seq": 2}
    await api.append(run["id"], ("output.set", {"key": "large", "value": large}))
    await api.append(run["id"], ("output.set", {"key": "odd", "value": odd}))
    await api.append(run["id"], ("output.set", {"key": "odder", "value": {"elided_bytes": "?", "seq": None}}))
    outputs = named((await shown(api, run["id"]))["outputs"])
    assert outputs == {"large": large, "odd": odd, "odder": {"elided_bytes": "?", "seq": None}}
    items, _ = await page(api, process_id="large")
    assert named(items[0]["outputs"]) == outputs


async def test_an_output_stays_however_much_follows_it(api: RunningGateway) -> None:
    """Megabytes of log after it do not take it away."""
    run = await api.create_run(agent_id=AGENT)
    await api.append(run["id"], ("output.set", {"key": "early", "value": ["y" * 1_000]}))
    call = ("tool.result", {"call_id": "c", "output": "x" * 15_000, "status": "ok", "duration_ms": 1})
    for _ in range(6):
        accepted(await api.append(run["id"], *[call] * 60))
    assert named((await shown(api, run["id"]))["outputs"]) == {"early": ["y" * 1_000]}


async def test_outputs_of_an_abandoned_attempt_are_not_shown(api: RunningGateway) -> None:
    """A restart does them again."""
    run = await api.create_run(agent_id=AGENT)
    await api.append(run["id"], ("output.set", {"key": "a", "value": 1}))
    accepted(await act(api, run["id"], "restart"))
    await api.append(run["id"], ("output.set", {"key": "b", "value": 2}), attempt=2)
    assert named((await shown(api, run["id"]))["outputs"]) == {"b": 2}


async def test_an_object_that_a_run_completed_with_is_its_outputs(api: RunningGateway) -> None:
    """Where it set none by name; they outlive the log."""
    run = await api.create_run(agent_id=AGENT)
    await api.append(run["id"], COMPLETE)
    assert named((await shown(api, run["id"]))["outputs"]) == {"answer": 42}
    other = await api.create_run(agent_id=AGENT)
    await api.append(other["id"], ("output.set", {"key": "a", "value": 1}), COMPLETE)
    accepted(await act(api, other["id"], "purge", keep_record=True))
    assert named((await shown(api, other["id"]))["outputs"]) == {"answer": 42}


async def test_a_list_is_ten_long_where_nobody_says_otherwise(api: RunningGateway) -> None:
    """From 1 to 100, newest first; optional parameters may be empty or null."""
    runs = [(await start(api, process_id="many"))["id"] for _ in range(105)][::-1]
    for params, expected in (
        ({}, runs[:10]),
        ({"limit": 1}, runs[:1]),
        ({"limit": 100}, runs[:100]),
        ({"limit": "", "stage": "", "continuation_token": ""}, runs[:10]),
        ({"limit": "null", "stage": "null", "continuation_token": "null"}, runs[:10]),
        ({"anything": "else"}, runs[:10]),
    ):
        items, token = await page(api, process_id="many", **params)
        assert [item["id"] for item in items] == expected, params
        assert token is not None
    for limit in (1, 7, 35, 100):
        assert await walk(api, process_id="many", limit=limit) == runs
    assert await page(api, process_id="nobody") == ([], None)


@pytest.mark.parametrize(
    ("changes", "parameter", "kind"),
    [
        ({"process_id": None}, "process_id", "missing"),
        ({"agent_id": None}, "agent_id", "missing"),
        ({"process_id": ""}, "process_id", "value_error"),
        ({"limit": "0"}, "limit", "value_error"),
        ({"limit": "101"}, "limit", "value_error"),
        ({"limit": "1.5"}, "limit", "value_error"),
        ({"limit": ["1", "2"]}, "limit", "value_error"),
        ({"stage": "draft"}, "stage", "value_error"),
        ({"continuation_token": "x"}, "continuation_token", "value_error"),
    ],
)
async def test_a_bad_parameter_is_refused_by_name(
    api: RunningGateway, changes: dict[str, Any], parameter: str, kind: str
) -> None:
    """422, as for members of bodies."""
    params = {"process_id": PROCESS, "agent_id": AGENT} | changes
    answer = await api.client.get("/runs", params={k: v for k, v in params.items() if v is not None})
    assert refused_at(answer, "query", parameter) == kind


async def test_pages_lose_nothing_while_runs_are_started(api: RunningGateway) -> None:
    """Every run that was there when the walk began is on exactly one page."""
    old = [(await start(api, process_id="busy"))["id"] for _ in range(40)]
    walking = True

    async def keep_starting() -> None:
        while walking:
            await start(api, process_id="busy")

    starting = [asyncio.create_task(keep_starting()) for _ in range(3)]
    found = await walk(api, process_id="busy", limit=3)
    walking = False
    await asyncio.gather(*starting)
    assert len(found) == len(set(found))
    assert [run_id for run_id in found if run_id in set(old)] == old[::-1]


async def test_a_page_is_never_empty_before_the_end(store: RunningStore) -> None:
    """Runs that are rare among those of their agent are found, whatever one look examines."""
    async with run_gateway(store.url, scan_records=8) as api:
        wanted = []
        for n in range(60):
            rare = n % 25 == 0
            run = await start(api, process_id=AGENT if rare else PROCESS, stage="Published")
            wanted += [run["id"]] if rare else []
        assert await walk(api, process_id=AGENT) == wanted[::-1]
        assert await walk(api, process_id=PROCESS, stage="Draft") == []


async def test_a_run_out_of_reach_is_not_there(api: RunningGateway) -> None:
    """Another tenant's, another agent's, and one that never was."""
    run = await start(api)
    for nothing in (str(ULID()), "b4fznghynbdemslfd5k044fgd", "x"):
        refused(await api.client.get(f"/runs/{nothing}"), 404)
    strangers: list[dict[str, Any]] = [{"tenant": "strangers"}, {"agents": ["somebody-else"]}]
    for stranger in strangers:
        async with open_client(api, **stranger) as client:
            refused(await client.get(f"/runs/{run['id']}"), 404)
            answer = await client.get("/runs", params={"process_id": PROCESS, "agent_id": AGENT})
            assert accepted(answer) == {"continuation_token": None, "items": []}


async def test_the_native_record_shows_what_this_api_knows(api: RunningGateway) -> None:
    """The process as a tag, the stage as an extension, so that other APIs can find and make such runs."""
    run = await start(api)
    native = await get_run(api, run["id"])
    assert native["tags"] == {PROCESS_TAG: PROCESS}
    assert native["extensions"] == {"processes": {"stage": "Draft"}}
    listed = accepted(await api.client.get("/v1/runs", params={"tag": f"{PROCESS_TAG}:{PROCESS}"}))
    assert run["id"] in [found["id"] for found in listed["data"]]


@pytest.mark.parametrize("prefix", ["", "/compat/processes"])
async def test_it_is_served_at_both_places(api: RunningGateway, prefix: str) -> None:
    """The same runs, and refusals in the same words."""
    run = await start(api)
    assert told(await api.client.get(f"{prefix}/runs/{run['id']}")) == run
    refused(await api.client.get(f"{prefix}/runs"), 422)
    refused(await api.client.delete(f"{prefix}/runs/{run['id']}"), 405)
