"""Lists: walks that lose nothing, filters that find what they say, bounds that are told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.dialects.jobs.speaking import BASE, UNKNOWN, get, make_dead, make_running, own_queue, refused
from tests.support.native import accepted, act, ask, open_client
from tests.support.running import COMPLETE, LOG, RunningGateway, RunningStore, run_gateway
from tests.support.work import put_agent, queue_run, write

pytestmark = pytest.mark.anyio


@pytest.fixture
async def api(store: RunningStore, anyio_backend: object) -> AsyncIterator[RunningGateway]:
    """A gateway with a tenant of its own: lists are of a whole project."""
    async with run_gateway(store.url) as running:
        yield running


async def find(api: RunningGateway, path: str = "", **params: Any) -> list[str]:
    """Return the ids of the runs that a list shows."""
    return [run["id"] for run in await get(api, path, **params)]


async def test_a_walk_by_time_of_creation_loses_nothing_and_repeats_nothing(api: RunningGateway) -> None:
    """Many runs are created in the same millisecond; each has a microsecond of its own, which is the cursor."""
    made = await asyncio.gather(*(api.create_run() for _ in range(60)))
    assert len({run["created_at"] for run in made}) < 60, "no two runs were created in the same millisecond"
    walked: list[dict[str, Any]] = []
    while True:
        cursor = {"cursor": walked[-1]["created_at"]} if walked else {}
        page = await get(api, "", project_id=api.tenant, limit=7, **cursor)
        if not page:
            break
        walked += page
        # What is created during the walk is newer than all of it.
        await api.create_run()
    assert {run["id"] for run in walked} == {run["id"] for run in made}
    assert len(walked) == 60
    times = [run["created_at"] for run in walked]
    assert times == sorted(set(times), reverse=True)


async def test_a_list_says_where_it_goes_on(api: RunningGateway) -> None:
    """In a header, since an array has no room for it; the last page has none."""
    made = [(await api.create_run())["id"] for _ in range(3)]
    first = await api.client.get(f"{BASE}/v1/runs", params={"limit": 2})
    assert first.headers["x-next-cursor"] == first.json()[-1]["created_at"]
    rest = await api.client.get(f"{BASE}/v1/runs", params={"limit": 2, "cursor": first.headers["x-next-cursor"]})
    assert [run["id"] for run in [*first.json(), *rest.json()]] == made[::-1]
    assert "x-next-cursor" not in rest.headers


async def test_fifty_runs_are_a_page_and_a_hundred_are_the_most(api: RunningGateway) -> None:
    """The default and the limit of the system."""
    await asyncio.gather(*(api.create_run() for _ in range(55)))
    assert len(await find(api)) == 50
    assert len(await find(api, limit=100)) == 55
    for limit in (0, 101, "x"):
        assert "limit" in refused(await api.client.get(f"{BASE}/v1/runs", params={"limit": limit}), 400)


async def test_a_page_is_filled_although_few_runs_match(store: RunningStore) -> None:
    """A client may take a short page for the last one."""
    async with run_gateway(store.url, scan_records=10) as api:
        rare = []
        for index in range(60):
            run = await api.create_run(input={"rare": index % 20 == 0})
            rare += [run["id"]] if index % 20 == 0 else []
        found = await api.client.get(f"{BASE}/v1/runs", params={"payload_contains": '{"rare": true}', "limit": 3})
        assert [run["id"] for run in found.json()] == rare[::-1]


async def test_each_status_word_selects_what_shows_as_it(api: RunningGateway) -> None:
    """Also several at once; a native word that the system does not have is refused."""
    made: dict[str, set[str]] = {}
    words = {
        "queued": "queued",
        "delayed": "delayed",
        "running": "executing",
        "waiting_for_input": "waiting",
        "paused": "paused",
        "cancelling": "canceled",
        "completed": "completed",
        "failed": "failed",
        "cancelled": "canceled",
    }
    for status, word in words.items():
        made.setdefault(word, set()).add((await api.run_in(status))["id"])
    made["dead_letter"] = {await make_dead(api)}
    for word, ids in made.items():
        found = await get(api, "", status=word)
        assert {run["id"] for run in found} == ids
        assert {run["status"] for run in found} == {word}
    assert set(await find(api, status="failed,executing")) == made["failed"] | made["executing"]
    assert await find(api, status="crashed") == []
    for word in ("running", "cancelled", "nonsense"):
        assert "status" in refused(await api.client.get(f"{BASE}/v1/runs", params={"status": word}), 400)


async def test_each_filter_finds_what_it_says(api: RunningGateway) -> None:
    """By job, trigger, batch, payload, tag and metadata, alone and together."""
    wanted = await api.create_run(
        agent_id="biller",
        trigger="cron",
        batch_id="b1",
        input={"order": {"id": 7, "items": [1, 2]}},
        tags={"env": "prod"},
        metadata={"tier": "gold", "n": 5},
    )
    await api.create_run(tags={"env": "test"}, metadata={"tier": "lead"}, input={"order": {"id": 8}})
    asked: list[dict[str, Any]] = [
        {"job_id": "biller"},
        {"triggered_by": "cron"},
        {"batch_id": "b1"},
        {"payload_contains": '{"order":{"id":7}}'},
        {"payload_contains": '{"order":{"items":[2]}}'},
        {"tag_key": "env", "tag_value": "prod"},
        {"metadata_key": "tier", "metadata_value": "gold"},
        {"metadata_key": "n", "metadata_value": "5"},
    ]
    for filters in [*asked, {name: value for one in asked for name, value in one.items()}]:
        assert await find(api, project_id=api.tenant, **filters) == [wanted["id"]], filters
    assert await find(api, batch_id="b1", triggered_by="manual") == []


@pytest.mark.parametrize(
    ("payload", "found", "missed"),
    [
        ([1, {"a": 2.0}], ["{}", '{"value": []}', '{"value": [{"a": 2}]}'], ['{"value": [3]}', '{"value": 1}']),
        ("text", ["{}", '{"value": "text"}'], ['{"value": "tex"}', '{"value": {}}', '{"other": "text"}']),
        (7, ['{"value": 7}', '{"value": 7.0}'], ['{"value": "7"}', '{"value": true}']),
        ({"a": {"b": None}}, ["{}", '{"a": {"b": null}}'], ['{"value": {"a": {}}}', '{"b": null}']),
        (None, [], ["{}", '{"value": null}']),
    ],
)
async def test_a_payload_is_found_by_what_it_is_shown_as(
    api: RunningGateway, payload: Any, found: list[str], missed: list[str]
) -> None:
    """What is no object shows as `{"value": …}`, and that is what a filter is held against."""
    run = await api.create_run(input=payload)
    shown = (await get(api, f"/{run['id']}"))["payload"]
    assert shown == (payload if payload is None or isinstance(payload, dict) else {"value": payload})
    for text in [*found, *([] if shown is None else [json.dumps(shown)])]:
        assert await find(api, payload_contains=text) == [run["id"]], text
    for text in missed:
        assert await find(api, payload_contains=text) == [], text


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"payload_contains": "[1]"}, "payload_contains"),
        ({"payload_contains": "{"}, "payload_contains"),
        ({"payload_contains": json.dumps({"a": list(range(40))})}, "payload"),
        ({"triggered_by": "somebody"}, "triggered_by"),
        ({"tag_key": "env"}, "tag_key"),
        ({"metadata_value": "x"}, "metadata_key"),
        ({"cursor": "yesterday"}, "cursor"),
        ({"cursor": "2026-01-01T00:00:00"}, "cursor"),
        ({"statuses": "failed"}, "statuses"),
        ({"status": ""}, "any of canceled, completed"),
        ({"status": ","}, "any of canceled, completed"),
        ({"status": "failed,running"}, "any of canceled, completed"),
    ],
)
async def test_a_bad_parameter_is_refused_by_name(api: RunningGateway, params: dict[str, str], named: str) -> None:
    """A mistyped filter must not widen a list."""
    assert named in refused(await api.client.get(f"{BASE}/v1/runs", params=params), 400)


async def test_a_cursor_is_any_time(api: RunningGateway) -> None:
    """With another offset, its plus lost or not; before the first run there are none."""
    run = await get(api, f"/{(await api.create_run())['id']}")
    hour = int(run["created_at"][11:13])
    assert await find(api, cursor=run["created_at"]) == []
    later = f"{run['created_at'][:11]}{hour:02d}:59:59.999999Z"
    assert await find(api, cursor=later) == [run["id"]]
    for offset in ("2000-01-01T00:00:00Z", "2000-01-01T00:00:00+05:00", "0001-01-01T00:00:00Z"):
        assert await find(api, cursor=offset) == []
    assert await find(api, cursor="9999-12-31T23:59:59Z") == [run["id"]]


async def test_a_project_is_the_keys_own(api: RunningGateway) -> None:
    """Another one is refused, whether or not it exists; without one it is the key's."""
    run = await api.create_run()
    assert await find(api) == await find(api, project_id=api.tenant) == [run["id"]]
    async with open_client(api, tenant="stranger") as stranger:
        theirs = await stranger.get(f"{BASE}/v1/runs", params={"project_id": "stranger"})
        assert (theirs.status_code, theirs.json()) == (200, [])
    for path in ("/v1/runs", "/v1/runs/dlq"):
        for project in ("stranger", "nobody", ""):
            assert "project" in refused(await api.client.get(BASE + path, params={"project_id": project}), 403)


async def test_the_dead_letters_are_a_list_like_any_other(api: RunningGateway) -> None:
    """With its filters and its cursor; runs that ended otherwise are not in it."""
    await api.run_in("failed")
    dead = [await make_dead(api, batch_id=f"b{index}") for index in range(3)]
    assert await find(api, "/dlq", project_id=api.tenant) == dead[::-1]
    assert await find(api, "/dlq", batch_id="b1") == [dead[1]]
    page = await get(api, "/dlq", limit=2)
    assert await find(api, "/dlq", cursor=page[-1]["created_at"]) == [dead[0]]
    assert {run["error"] for run in page} == {"It broke."}
    refused(await api.client.get(f"{BASE}/v1/runs/dlq", params={"status": "failed"}), 400)


async def test_children_are_those_created_with_the_run_as_their_parent(api: RunningGateway) -> None:
    """Newest first; they are no continuation of it."""
    parent = await api.create_run()
    children = [(await api.create_run(parent_run_id=parent["id"]))["id"] for _ in range(3)]
    shown = await get(api, f"/{parent['id']}/children")
    assert [run["id"] for run in shown] == children[::-1]
    assert {(run["parent_run_id"], run["lineage_depth"]) for run in shown} == {(parent["id"], 1)}
    two = await api.client.get(f"{BASE}/v1/runs/{parent['id']}/children", params={"limit": 2})
    assert len(two.json()) == 2
    assert await find(api, f"/{parent['id']}/children", cursor=two.headers["x-next-cursor"]) == [children[0]]
    assert await find(api, f"/{parent['id']}/lineage") == [parent["id"]]


async def test_the_lineage_is_the_whole_chain_of_continuations(api: RunningGateway) -> None:
    """From whichever of its runs one looks, newest first."""
    first = await api.run_in("failed")
    await api.create_run(parent_run_id=first["id"])
    chain = [first["id"]]
    for action in ("retry", "replay"):
        chain.append(accepted(await act(api, chain[-1], action), 201)["id"])
        accepted(await act(api, chain[-1], "cancel"))
    for run_id in chain:
        shown = await get(api, f"/{run_id}/lineage")
        assert [run["id"] for run in shown] == chain[::-1]
        assert [run["continuation_of"] for run in shown] == [*chain[1::-1], None]
        assert [run["lineage_depth"] for run in shown] == [2, 1, 0]


async def test_events_are_listed_by_level_and_type(api: RunningGateway) -> None:
    """In the order of the log, together or alone, and by the beginning of a type."""
    run_id, claimed = await make_running(api, ("message.delta", {"content": "Hi"}), ("log", LOG[1]))
    accepted(await write(api, claimed, ("run.failed", {"error": {"code": "c", "message": "It broke."}})))

    async def types(**params: Any) -> list[str]:
        return [event["type"] for event in await get(api, f"/{run_id}/events", **params)]

    assert await types() == [
        "run.created",
        "run.queued",
        "run.dequeued",
        "run.started",
        "log",
        "message.delta",
        "log",
        "run.failed",
    ]
    assert await types(level="warn") == ["log"]
    assert await types(level="error") == ["run.failed"]
    assert await types(type="log") == ["log", "log"]
    assert await types(type="log", level="warn") == ["log"]
    assert await types(type="run.*,message.delta", level="debug") == ["message.delta"]
    assert await types(level="fatal") == []
    refused(await api.client.get(f"{BASE}/v1/runs/{run_id}/events", params={"type": "No Such"}), 400)


async def test_a_walk_over_events_loses_nothing(api: RunningGateway) -> None:
    """The id of the last event seen is the cursor, with a filter as without."""
    run_id = (await api.create_run())["id"]
    await api.append(run_id, *[("log", {"level": "info" if i % 3 else "warn", "message": str(i)}) for i in range(30)])
    await api.append(run_id, COMPLETE)
    for filters in ({}, {"level": "warn"}, {"type": "log"}):
        whole = await get(api, f"/{run_id}/events", **filters)
        walked: list[Any] = []
        cursor: dict[str, str] = {}
        while True:
            page = await api.client.get(f"{BASE}/v1/runs/{run_id}/events", params={"limit": 4, **filters, **cursor})
            walked += page.json()
            if "x-next-cursor" not in page.headers:
                break
            assert len(page.json()) == 4
            cursor = {"cursor": page.headers["x-next-cursor"]}
        assert walked == whole
    for cursor_text in ("x", f"{UNKNOWN}-3", run_id, f"{run_id}-x", f"{run_id}-99999999999999999"):
        answer = await api.client.get(f"{BASE}/v1/runs/{run_id}/events", params={"cursor": cursor_text})
        assert "cursor" in refused(answer, 400)


async def test_folds_show_what_workers_wrote(api: RunningGateway) -> None:
    """Usage with its total, tool calls with duration and status, checkpoints in order, the last value of an output."""
    run_id, claimed = await make_running(
        api,
        ("tool.call", {"call_id": "c1", "name": "search", "input": {"q": "x"}}),
        ("tool.call", {"call_id": "c2", "name": "fetch", "input": "plain"}),
        ("tool.result", {"call_id": "c1", "output": ["a"], "status": "ok", "duration_ms": 12.6}),
        ("usage.recorded", {"provider": "p", "model": "m", "prompt_tokens": 3, "completion_tokens": 4}),
        ("checkpoint.created", {"source": "worker", "state": {"step": 1}}),
        ("checkpoint.created", {"source": "worker", "state": [2]}),
        ("output.set", {"key": "answer", "value": 1}),
        ("output.set", {"key": "answer", "value": {"n": 2}, "schema": {"type": "object"}}),
    )
    calls = await get(api, f"/{run_id}/tool-calls")
    assert [(c["tool_name"], c["status"], c["duration_ms"], c["input"], c["output"]) for c in calls] == [
        ("search", "ok", 13, {"q": "x"}, {"value": ["a"]}),
        ("fetch", "running", None, {"value": "plain"}, None),
    ]
    (usage,) = await get(api, f"/{run_id}/usage")
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (3, 4, 7)
    assert usage["cost_microusd"] is None
    checkpoints = await get(api, f"/{run_id}/checkpoints")
    assert [c["state"] for c in checkpoints] == [{"step": 1}, {"value": [2]}]
    assert checkpoints[0]["sequence"] < checkpoints[1]["sequence"]
    (output,) = await get(api, f"/{run_id}/outputs")
    assert (output["output_key"], output["value"], output["schema"]) == ("answer", {"n": 2}, {"type": "object"})
    bundle = await get(api, f"/{run_id}/debug-bundle")
    assert bundle["run"] == await get(api, f"/{run_id}")
    for name, path in (("tool_calls", "tool-calls"), *((n, n) for n in ("events", "checkpoints", "usage", "outputs"))):
        assert bundle[name] == await get(api, f"/{run_id}/{path}"), name
    assert bundle["run"]["status"] == "executing"
    assert claimed["run"]["id"] == run_id


async def test_a_debug_bundle_has_the_newest_events(api: RunningGateway) -> None:
    """Of a long log the last thousand, of a heavy one as many of the last as fit."""
    long = (await api.create_run())["id"]
    for _ in range(2):
        await api.append(long, *[("log", {"level": "info", "message": str(i)}) for i in range(700)])
    events = (await get(api, f"/{long}/debug-bundle"))["events"]
    head = accepted(await api.client.get(f"/v1/runs/{long}"))["head_seq"]
    assert [event["id"] for event in events] == [f"{long}-{seq}" for seq in range(head - 999, head + 1)]
    heavy = (await api.create_run())["id"]
    for _ in range(6):
        await api.append(heavy, *[("log", {"level": "info", "message": "x" * 200_000}) for _ in range(4)])
    events = (await get(api, f"/{heavy}/debug-bundle"))["events"]
    head = accepted(await api.client.get(f"/v1/runs/{heavy}"))["head_seq"]
    assert [event["id"] for event in events] == [f"{heavy}-{seq}" for seq in range(head - len(events) + 1, head + 1)]
    assert 15 < len(events) < 24


async def test_outputs_of_an_abandoned_attempt_are_withdrawn(api: RunningGateway) -> None:
    """The next attempt writes them again; the tool calls were made nevertheless."""
    call = ("tool.call", {"call_id": "c1", "name": "search", "input": {}})
    run_id, _claimed = await make_running(api, call, ("output.set", {"key": "draft", "value": 1}))
    accepted(await act(api, run_id, "restart"))
    queue = (await get(api, f"/{run_id}"))["id"]
    assert queue == run_id
    run = accepted(await api.client.get(f"/v1/runs/{run_id}"))
    claimed = accepted(await api.client.post("/v1/claims", json={"queues": [run["queue"]]}))["data"][0]
    accepted(await write(api, claimed, LOG))
    assert await get(api, f"/{run_id}/outputs") == []
    assert [c["status"] for c in await get(api, f"/{run_id}/tool-calls")] == ["abandoned"]


async def test_the_state_is_where_the_next_attempt_goes_on(api: RunningGateway) -> None:
    """The last checkpoint's, and what is still to be done for the run to get on."""
    run_id = (await api.create_run())["id"]
    fresh = await get(api, f"/{run_id}/state")
    assert (fresh["status"], fresh["attempt"], fresh["state"], fresh["pending"]) == ("queued", 1, None, [])
    await api.append(run_id, *[("checkpoint.created", {"source": "s", "state": {"n": n}}) for n in (1, 2)])
    request_id = await ask(api, run_id)
    asked = await get(api, f"/{run_id}/state")
    assert (asked["run_id"], asked["status"], asked["state"]) == (run_id, "waiting", {"n": 2})
    assert [(p["type"], p["request_id"], p["prompt"]) for p in asked["pending"]] == [("input", request_id, "Go on?")]
    assert asked["updated_at"] == accepted(await api.client.get(f"/v1/runs/{run_id}"))["updated_at"]


async def test_dependencies_are_told_with_how_far_they_are(api: RunningGateway) -> None:
    """The jobs that the run waits for, and whether they have ended as they should."""
    await put_agent(api, "first")
    needed = await api.create_run(agent_id="first")
    run_id = await queue_run(api, own_queue(), depends_on=[{"run_id": needed["id"], "condition": "completed"}])
    waiting = await get(api, f"/{run_id}/dependency-status")
    run = await get(api, f"/{run_id}")
    assert waiting == {
        "run_id": run_id,
        "job_id": "tester",
        "status": "delayed",
        "dependencies": [
            {
                "id": needed["id"],
                "job_id": "tester",
                "depends_on_job_id": "first",
                "condition": "completed",
                "created_at": run["created_at"],
            }
        ],
        "dependencies_satisfied": False,
    }
    await api.append(needed["id"], COMPLETE)
    assert (await get(api, f"/{run_id}/dependency-status"))["dependencies_satisfied"] is True
    assert (await get(api, f"/{needed['id']}/dependency-status"))["dependencies"] == []
