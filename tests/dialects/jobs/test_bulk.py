"""Many runs at once in the job system's words: each stands for itself, and the counts add up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.dialects.jobs.speaking import BASE, UNKNOWN, get, make_dead, post, refused
from tests.support.native import get_run
from tests.support.running import RunningGateway, RunningStore, run_gateway

pytestmark = pytest.mark.anyio


@pytest.fixture
async def api(store: RunningStore, anyio_backend: object) -> AsyncIterator[RunningGateway]:
    """A gateway with a tenant of its own, so that `all` means the runs of one test."""
    async with run_gateway(store.url) as running:
        yield running


async def refuse(api: RunningGateway, path: str, body: Any, *, expect: int = 400, **params: Any) -> str:
    """Return what is said to a bulk action that is refused."""
    return refused(await api.client.post(f"{BASE}/v1/runs/{path}", json=body, params=params), expect)


async def test_each_named_run_is_canceled_or_told_why_not(api: RunningGateway) -> None:
    """In the order in which they were named, with where each stands."""
    queued, running, done = [(await api.run_in(s))["id"] for s in ("queued", "running", "completed")]
    told = await post(api, "/bulk-cancel", {"run_ids": [queued, done, UNKNOWN, "nonsense", running]})
    assert [(r["id"], r["status"], r["error"] is None) for r in told["results"]] == [
        (queued, "canceled", True),
        (done, "completed", False),
        (UNKNOWN, None, False),
        ("nonsense", None, False),
        (running, "canceled", True),
    ]
    assert told["results"][1]["error"] == (
        "A run that is completed cannot be canceled; it must be one of: "
        "delayed, queued, dequeued, executing, waiting, paused."
    )
    assert (told["total"], told["canceled"], told["failed"]) == (5, 2, 3)
    assert [(await get_run(api, r))["status"] for r in (queued, running)] == ["cancelled", "cancelling"]


async def test_a_hundred_runs_are_the_most_that_are_named(api: RunningGateway) -> None:
    """A hundred pass; one more is refused and nothing is canceled. Of none, none is."""
    runs = [run["id"] for run in await asyncio.gather(*(api.create_run() for _ in range(101)))]
    for path in ("bulk-cancel", "bulk-replay"):
        assert "100" in await refuse(api, path, {"run_ids": runs})
    assert {run["status"] for run in await get(api, "", limit=100)} == {"queued"}
    told = await post(api, "/bulk-cancel", {"run_ids": runs[:100]})
    assert (told["total"], told["canceled"], told["failed"]) == (100, 100, 0)
    assert await post(api, "/bulk-cancel", {}) == {"results": [], "total": 0, "canceled": 0, "failed": 0}


async def test_all_that_match_are_canceled(api: RunningGateway) -> None:
    """By filters of the query and of the body together; what has ended and what does not match is let alone."""
    done = (await api.run_in("completed"))["id"]
    both = [(await api.create_run(batch_id="b1", trigger="cron"))["id"] for _ in range(3)]
    one = (await api.create_run(batch_id="b1"))["id"]
    told = await post(api, "/bulk-cancel-all", {"triggered_by": "cron"}, batch_id="b1")
    assert sorted(r["id"] for r in told["results"]) == sorted(both)
    assert {(r["status"], r["error"]) for r in told["results"]} == {("canceled", None)}
    assert (told["total"], told["canceled"], told["failed"]) == (3, 3, 0)
    assert (await get(api, f"/{one}"))["status"] == "queued"
    everything = await post(api, "/bulk-cancel-all", {}, project_id=api.tenant)
    assert [r["id"] for r in everything["results"]] == [one]
    assert (await get(api, f"/{done}"))["status"] == "completed"


@pytest.mark.parametrize(
    ("body", "params"),
    [
        ({"status": "executing"}, {}),
        ({}, {"status": "executing"}),
        ({"status": "executing"}, {"status": "executing"}),
        ({"job_id": "biller"}, {}),
        ({"payload_contains": {"a": {"b": 1}}}, {}),
        ({}, {"payload_contains": '{"a":{"b":1}}'}),
        ({"payload_contains": {"a": {"b": 1}}}, {"payload_contains": '{"a": {"b": 1}}'}),
        ({"tag_key": "t", "tag_value": "v"}, {}),
        ({"tag_key": "t"}, {"tag_value": "v"}),
        ({"metadata_key": "m", "metadata_value": "1"}, {}),
    ],
)
async def test_each_filter_cancels_what_it_says(
    api: RunningGateway, body: dict[str, Any], params: dict[str, Any]
) -> None:
    """In the query, in the body, or half in each."""
    wanted = await api.create_run(agent_id="biller", input={"a": {"b": 1}}, tags={"t": "v"}, metadata={"m": 1})
    await api.append(wanted["id"], ("log", {"level": "info", "message": "m"}))
    other = await api.create_run(input={"a": {"b": 2}}, tags={"t": "w"}, metadata={"m": 2})
    told = await post(api, "/bulk-cancel-all", body, **params)
    assert [r["id"] for r in told["results"]] == [wanted["id"]]
    assert (await get(api, f"/{other['id']}"))["status"] == "queued"


@pytest.mark.parametrize(
    ("body", "params", "status"),
    [
        ({}, {}, 400),
        ({"status": "failed"}, {"status": "executing"}, 400),
        ({"batch_id": "a"}, {"batch_id": "b"}, 400),
        ({"tag_key": "t"}, {}, 400),
        ({}, {"status": "", "batch_id": "a"}, 400),
        ({"batch": "a"}, {}, 400),
        ({}, {"batch": "a"}, 400),
        ({"payload_contains": [1]}, {}, 400),
        ({"project_id": "other"}, {}, 403),
        ({}, {"project_id": "other"}, 403),
    ],
)
async def test_a_doubtful_request_cancels_nothing(
    api: RunningGateway, body: dict[str, Any], params: dict[str, str], status: int
) -> None:
    """No filter at all, two that contradict each other, half a pair, a mistyped one, another project."""
    run = await api.create_run(batch_id="a")
    await refuse(api, "bulk-cancel-all", body, expect=status, **params)
    assert (await get(api, f"/{run['id']}"))["status"] == "queued"


async def test_what_has_ended_is_not_canceled_again(api: RunningGateway) -> None:
    """A filter for an ended status matches nothing that could be."""
    await api.run_in("failed")
    told = await post(api, "/bulk-cancel-all", {"status": "failed"})
    assert told == {"results": [], "total": 0, "canceled": 0, "failed": 0}


async def test_more_runs_than_are_told_of_are_all_canceled(api: RunningGateway) -> None:
    """A thousand are told of by name; the counts are of all of them."""
    for _ in range(6):
        await asyncio.gather(*(api.create_run(batch_id="many") for _ in range(170)))
    told = await post(api, "/bulk-cancel-all", {"batch_id": "many"})
    assert (len(told["results"]), told["total"], told["canceled"], told["failed"]) == (1_000, 1_020, 1_020, 0)
    assert await get(api, "", batch_id="many", status="queued") == []


async def test_a_bulk_replay_answers_the_new_runs(api: RunningGateway) -> None:
    """In the order of the old ones; one that cannot be replayed is left out."""
    ended = [(await api.run_in(s))["id"] for s in ("failed", "completed")]
    live = (await api.run_in("running"))["id"]
    made = await post(api, "/bulk-replay", {"run_ids": [ended[0], live, UNKNOWN, ended[1]]})
    assert [run["continuation_of"] for run in made] == ended
    assert not {run["id"] for run in made} & {*ended, live}
    assert {run["status"] for run in made} == {"queued"}


async def test_a_bulk_replay_of_nothing_is_refused(api: RunningGateway) -> None:
    """With why the first could not be replayed, where none could."""
    live = (await api.run_in("running"))["id"]
    assert "executing" in await refuse(api, "bulk-replay", {"run_ids": [live, UNKNOWN]}, expect=409)
    await refuse(api, "bulk-replay", {"run_ids": [UNKNOWN, live]}, expect=404)
    bad: list[Any] = [{}, {"run_ids": []}, {"run_ids": "x"}, {"run_ids": [1]}, {"run_ids": [live], "all": True}]
    for body in bad:
        await refuse(api, "bulk-replay", body)


async def test_dead_letters_are_replayed_as_themselves(api: RunningGateway) -> None:
    """Those that are named, or all; runs that ended otherwise are not touched."""
    dead = [await make_dead(api) for _ in range(4)]
    failed = (await api.run_in("failed"))["id"]
    told = await post(api, "/bulk-dlq-replay", {"run_ids": [dead[2], failed, dead[0]]})
    assert ([run["id"] for run in told["replayed"]], told["count"]) == ([dead[2], dead[0]], 2)
    assert {(run["status"], run["attempt"]) for run in told["replayed"]} == {("queued", 1)}
    one = await post(api, "/bulk-dlq-replay", {"project_id": api.tenant, "limit": 1})
    assert ([run["id"] for run in one["replayed"]], one["count"]) == ([dead[3]], 1)
    rest = await post(api, "/bulk-dlq-replay", {})
    assert [run["id"] for run in rest["replayed"]] == [dead[1]]
    assert await post(api, "/bulk-dlq-replay", {}) == {"replayed": [], "count": 0}
    assert (await get(api, f"/{failed}"))["status"] == "failed"


async def test_five_hundred_dead_letters_are_the_most(api: RunningGateway) -> None:
    """Named or counted; where none of those named is one, the first says why."""
    failed = (await api.run_in("failed"))["id"]
    assert "500" in await refuse(api, "bulk-dlq-replay", {"run_ids": [UNKNOWN] * 501})
    for limit in (0, 501):
        await refuse(api, "bulk-dlq-replay", {"limit": limit})
    await refuse(api, "bulk-dlq-replay", {"run_ids": []})
    await refuse(api, "bulk-dlq-replay", {"project_id": "other"}, expect=403)
    assert "failed" in await refuse(api, "bulk-dlq-replay", {"run_ids": [failed] * 500}, expect=409)


async def test_a_repeat_under_one_key_replays_once(api: RunningGateway) -> None:
    """The same new runs are answered again."""
    ended = [(await api.run_in("failed"))["id"] for _ in range(3)]
    headers = {"idempotency-key": "once"}
    answers = [
        await api.client.post(f"{BASE}/v1/runs/bulk-replay", json={"run_ids": ended}, headers=headers) for _ in range(2)
    ]
    assert answers[0].json() == answers[1].json()
    assert len(await get(api, "", status="queued")) == 3


async def test_a_repeat_without_names_is_of_the_same_dead_letters(api: RunningGateway) -> None:
    """What the first request took is answered again; the dead letters that are left stay where they are."""
    dead = [await make_dead(api) for _ in range(3)]
    headers = {"idempotency-key": "newest"}
    path = f"{BASE}/v1/runs/bulk-dlq-replay"
    first = await api.client.post(path, json={"limit": 2}, headers=headers)
    assert [run["id"] for run in first.json()["replayed"]] == [dead[2], dead[1]]
    later = await make_dead(api)
    again = await api.client.post(path, json={"limit": 2}, headers=headers)
    assert again.json() == first.json()
    assert [run["id"] for run in await get(api, "/dlq")] == [later, dead[0]]
    refused(await api.client.post(path, json={"limit": 1}, headers=headers), 422)


@pytest.mark.parametrize(
    ("path", "bodies"),
    [
        ("bulk-cancel", [{"run_ids": [UNKNOWN]}, {"run_ids": []}]),
        ("bulk-cancel-all", [{"batch_id": "none"}, {"batch_id": "other"}]),
        ("bulk-dlq-replay", [{"limit": 1}, {"limit": 2}]),
    ],
)
async def test_a_key_with_another_body_is_refused_as_described(
    api: RunningGateway, path: str, bodies: list[dict[str, Any]]
) -> None:
    """With 422, which the API's description has."""
    headers = {"idempotency-key": f"k-{path}"}
    answers = [await api.client.post(f"{BASE}/v1/runs/{path}", json=body, headers=headers) for body in bodies]
    assert answers[0].status_code == 200
    refused(answers[1], 422)
    described = (await api.client.get(f"{BASE}/openapi.json")).json()
    assert "422" in described["paths"][f"/v1/runs/{path}"]["post"]["responses"]
