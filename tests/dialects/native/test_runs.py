"""Runs as resources: what is said of them is kept, what is asked of them is answered at once or when it happens."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime
from typing import Any

import pytest

from tests.support.native import accepted, act, ask, get_log, get_run, open_client, refused
from tests.support.running import COMPLETE, LOG, RunningGateway

pytestmark = pytest.mark.anyio

ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
UNKNOWN = "01J00000000000000000000000"
DATED = "2027-01-02T03:04:05.006Z"


async def test_a_run_is_what_was_said_of_it(api: RunningGateway) -> None:
    """Everything that a caller may say comes back, from the create, the read and the log."""
    parent = await api.create_run()
    said: dict[str, Any] = {
        "thread_id": "thread:1",
        "input": {"deep": [1, {"é": None}]},
        "title": "A title",
        "tags": {"team": "a b", "env": "x:y"},
        "metadata": {"n": 1, "nested": {"a": [True]}},
        "trigger": "spawn",
        "triggered_by": "somebody",
        "parent_run_id": parent["id"],
        "batch_id": "b1",
        "scheduled_at": DATED,
        "timeout_s": 90,
        "heartbeat_s": 2.5,
        "extensions": {"jobs": {"queue": "q"}},
    }
    run = await api.create_run(**said)
    assert {name: run[name] for name in said} == said
    assert await get_run(api, run["id"]) == run
    created = (await get_log(api, run["id"]))[0]
    assert created["type"] == "run.created"
    kept = ("thread_id", "input", "title", "tags", "metadata", "trigger", "triggered_by", "scheduled_at", "extensions")
    assert {name: created["data"][name] for name in kept} == {name: said[name] for name in kept}
    assert (created["data"]["agent_id"], created["data"]["mode"]) == ("tester", "direct")


async def test_the_first_event_says_which_trace_the_run_belongs_to(api: RunningGateway) -> None:
    """Whoever has nothing but the log can look the trace up: the caller's, with the span it was asked for under, or a
    new one; a copy has one of its own."""
    trace_id, span_id = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    body = {"agent_id": "tester", "mode": "direct"}
    traced = await api.client.post("/v1/runs", json=body, headers={"traceparent": f"00-{trace_id}-{span_id}-01"})
    assert traced.status_code == 201, traced.text
    first = (await get_log(api, traced.json()["id"]))[0]["data"]
    assert (traced.json()["trace_id"], first["trace_id"]) == (trace_id, trace_id)
    untraced = await api.create_run()
    replayed = await api.client.post(f"/v1/runs/{await ended(api)}/replay")
    assert replayed.status_code == 201, replayed.text
    for run in (untraced, replayed.json()):
        said = (await get_log(api, run["id"]))[0]["data"]
        assert said["trace_id"] == run["trace_id"]
        assert len(run["trace_id"]) == 32
    assert len({trace_id, untraced["trace_id"], replayed.json()["trace_id"]}) == 3


async def ended(api: RunningGateway) -> str:
    """Return the id of a run that has completed."""
    run_id: str = (await api.create_run())["id"]
    await api.append(run_id, ("run.completed", {"output": 1}))
    return run_id


async def test_a_run_that_says_little_has_defaults(api: RunningGateway) -> None:
    """All members are there; a run without a thread owns one; ids are ULIDs and times have milliseconds."""
    run = await api.create_run()
    assert ULID.fullmatch(run["id"])
    assert ULID.fullmatch(run["thread_id"])
    assert run["thread_id"] != run["id"]
    for name in ("created_at", "updated_at", "expires_at"):
        assert TIME.fullmatch(run[name]), name
    assert run["created_by"]["name"] == "test"
    expected = {
        "status": "queued",
        "mode": "direct",
        "attempt": 1,
        "input": None,
        "output": None,
        "error": None,
        "title": None,
        "tags": {},
        "metadata": {},
        "trigger": "manual",
        "triggered_by": None,
        "scheduled_at": None,
        "started_at": None,
        "ended_at": None,
        "first_seq": 1,
        "head_seq": 2,
        "log_expired": False,
        "open_requests": [],
        "parent_run_id": None,
        "lineage_depth": 0,
    }
    assert {name: run[name] for name in expected} == expected


async def test_a_direct_run_expires_ten_minutes_after_its_creation(api: RunningGateway) -> None:
    """Unless its first append comes; the time is told."""
    run = await api.create_run()
    waits = datetime.fromisoformat(run["expires_at"]) - datetime.fromisoformat(run["created_at"])
    assert waits.total_seconds() == 600
    await api.append(run["id"], LOG)
    assert (await get_run(api, run["id"]))["expires_at"] is None


@pytest.mark.parametrize("when", [{"delay_s": 0}, {"scheduled_at": "2020-01-01T00:00:00Z"}])
async def test_a_start_in_the_past_is_now(api: RunningGateway, when: dict[str, Any]) -> None:
    """Such a run is queued at once."""
    run = await api.create_run(**when)
    assert (run["status"], run["scheduled_at"]) == ("queued", None)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"mode": ""}, "unsupported_mode"),
        ({"mode": "nonsense"}, "unsupported_mode"),
        ({"mode": None}, "invalid_body"),
        ({"agent_id": ""}, "invalid_body"),
        ({"agent_id": "no spaces"}, "invalid_body"),
        ({"agent_id": "x" * 129}, "invalid_body"),
        ({"agent_id": 5}, "invalid_body"),
        ({"agent_id": None}, "invalid_body"),
        ({"thread_id": "ümlaut"}, "invalid_body"),
        ({"title": "x" * 301}, "invalid_body"),
        ({"tags": {"a": 1}}, "invalid_body"),
        ({"tags": {"a:b": "c"}}, "invalid_body"),
        ({"tags": {f"t{n}": "" for n in range(17)}}, "invalid_body"),
        ({"tags": []}, "invalid_body"),
        ({"metadata": [1]}, "invalid_body"),
        ({"trigger": "magic"}, "invalid_body"),
        ({"delay_s": -1}, "invalid_body"),
        ({"delay_s": 400 * 86_400}, "invalid_body"),
        ({"delay_s": 5, "scheduled_at": DATED}, "invalid_body"),
        ({"scheduled_at": "2027-01-02"}, "invalid_body"),
        ({"scheduled_at": "2027-01-02T03:04:05"}, "invalid_body"),
        ({"scheduled_at": "2099-01-02T03:04:05Z"}, "invalid_body"),
        ({"scheduled_at": "9999-12-31T23:59:59-23:00"}, "invalid_body"),
        ({"timeout_s": 0}, "invalid_body"),
        ({"heartbeat_s": 0.5}, "invalid_body"),
        ({"parent_run_id": "short"}, "invalid_body"),
        ({"extensions": []}, "invalid_body"),
        ({"inputs": {}}, "invalid_body"),
        ({"id": UNKNOWN}, "invalid_body"),
        ({"status": "completed"}, "invalid_body"),
    ],
    ids=str,
)
async def test_a_run_that_cannot_be_is_refused(api: RunningGateway, body: dict[str, Any], code: str) -> None:
    """With the member that is wrong; a mistyped member is not ignored."""
    answer = await api.client.post("/v1/runs", json={"agent_id": "tester", "mode": "direct", **body})
    problem = refused(answer, 422, code)
    assert any(name in problem["detail"] for name in ("mode", *body))


@pytest.mark.parametrize("missing", ["agent_id", "mode"])
async def test_agent_and_mode_must_be_named(api: RunningGateway, missing: str) -> None:
    """There is no run without them."""
    body = {"agent_id": "tester", "mode": "direct"}
    del body[missing]
    assert missing in refused(await api.client.post("/v1/runs", json=body), 422, "invalid_body")["detail"]


async def test_sizes_are_bounded(api: RunningGateway) -> None:
    """1 MiB of input, 16 KiB of metadata; what fits exactly is taken."""
    about = {"agent_id": "tester", "mode": "direct"}
    for body in ({"input": "x" * (2**20 - 1)}, {"metadata": {"a": "x" * (2**14 - 7)}}, {"input": "x" * 2**21}):
        refused(await api.client.post("/v1/runs", json=about | body), 413, "too_large")
    await api.create_run(input="x" * (2**20 - 2), metadata={"a": "x" * (2**14 - 8)})


async def test_a_parent_must_be_a_run_of_the_caller(api: RunningGateway) -> None:
    """Unknown and foreign parents are the same to it; children keep the first ancestor."""
    body: dict[str, Any] = {"agent_id": "tester", "mode": "direct", "parent_run_id": UNKNOWN}
    refused(await api.client.post("/v1/runs", json=body), 404, "not_found")
    parent = await api.create_run()
    async with open_client(api, tenant="strangers") as client:
        refused(await client.post("/v1/runs", json=body | {"parent_run_id": parent["id"]}), 404, "not_found")
    for odd in ("t:x}:by:tag:k:v01234567890", "z" * 26, "{" * 26, "\x00" * 26):
        refused(await api.client.post("/v1/runs", json=body | {"parent_run_id": odd}), 404, "not_found")
    child = await api.create_run(parent_run_id=parent["id"].lower())
    grandchild = await api.create_run(parent_run_id=child["id"])
    assert (child["parent_run_id"], child["root_run_id"], child["lineage_depth"]) == (parent["id"], parent["id"], 1)
    assert (grandchild["root_run_id"], grandchild["lineage_depth"]) == (parent["id"], 2)


async def test_children_and_lineage_are_lists(api: RunningGateway) -> None:
    """Children are direct; the lineage is the whole family, copies included, its first ancestor last."""
    parent = await api.create_run()
    children = [await api.create_run(parent_run_id=parent["id"]) for _ in range(3)]
    await api.append(children[0]["id"], COMPLETE)
    copy = accepted(await act(api, children[0]["id"], "replay"), 201)

    async def pages(path: str) -> list[str]:
        found: list[str] = []
        params: dict[str, Any] = {"limit": 2}
        while True:
            page = accepted(await api.client.get(path, params=params))
            assert len(page["data"]) <= 2
            found += [run["id"] for run in page["data"]]
            if not page["has_more"]:
                return found
            params["cursor"] = page["next_cursor"]

    # A replay has the parent that its source had.
    newest_first = [copy["id"], *(child["id"] for child in reversed(children))]
    assert await pages(f"/v1/runs/{parent['id']}/children") == newest_first
    for member in (parent["id"], children[1]["id"], copy["id"]):
        assert await pages(f"/v1/runs/{member}/lineage") == [*newest_first, parent["id"]]


async def test_a_lineage_shows_no_run_beyond_reach(api: RunningGateway) -> None:
    """A key for one agent sees no relative of another agent, the first ancestor included."""
    parent = await api.create_run(agent_id="secret")
    child = await api.create_run(agent_id="public", parent_run_id=parent["id"])
    async with open_client(api, agents=["public"]) as client:
        for relation in ("lineage", "children"):
            refused(await client.get(f"/v1/runs/{parent['id']}/{relation}"), 404, "not_found")
        assert [r["id"] for r in accepted(await client.get(f"/v1/runs/{child['id']}/lineage"))["data"]] == [child["id"]]


async def test_an_id_is_accepted_in_either_case(api: RunningGateway) -> None:
    """And answered in its one spelling."""
    run = await api.create_run()
    assert accepted(await api.client.get(f"/v1/runs/{run['id'].lower()}")) == run


@pytest.mark.parametrize("run_id", [UNKNOWN, "nonsense", "8" + UNKNOWN[1:], UNKNOWN + "0", "%00", "é", "..%2f.."])
async def test_an_unknown_run_is_not_found(api: RunningGateway, run_id: str) -> None:
    """Whether such an id could be or not."""
    refused(await api.client.get(f"/v1/runs/{run_id}"), 404, "not_found")
    refused(await api.client.post(f"/v1/runs/{run_id}/cancel"), 404, "not_found")


async def test_steps_can_be_included(api: RunningGateway) -> None:
    """`include=steps` adds them; nothing else can be included."""
    run = await api.create_run()
    step = {"step_id": "s", "name": "look"}
    await api.append(run["id"], ("step.started", step), ("step.completed", {"step_id": "s", "duration_ms": 5}))
    path = f"/v1/runs/{run['id']}"
    (shown,) = accepted(await api.client.get(path, params={"include": "steps"}))["steps"]
    assert (shown["step_id"], shown["name"], shown["status"]) == ("s", "look", "completed")
    assert "steps" not in accepted(await api.client.get(path))
    refused(await api.client.get(path, params={"include": "everything"}), 400, "bad_request")


async def test_waiting_ends_with_the_run(api: RunningGateway) -> None:
    """Everybody who waits is told at once, with the run as it ended."""
    run = await api.run_in("running")
    path = f"/v1/runs/{run['id']}/wait"
    waiters = [asyncio.create_task(api.client.get(path, params={"timeout_s": 20})) for _ in range(5)]
    await asyncio.sleep(0.05)
    assert not any(waiter.done() for waiter in waiters)
    await api.append(run["id"], COMPLETE)
    async with asyncio.timeout(5):
        ends = [accepted(await waiter) for waiter in waiters]
    assert {end["status"] for end in ends} == {"completed"}
    assert ends[0]["output"] == {"answer": 42}
    assert accepted(await api.client.get(path)) == ends[0]


async def test_waiting_can_end_at_a_question(api: RunningGateway) -> None:
    """`until=waiting` returns when the run asks, or ends; `until=ended` waits on."""
    run = await api.run_in("running")
    path = f"/v1/runs/{run['id']}/wait"
    waiter = asyncio.create_task(api.client.get(path, params={"timeout_s": 20, "until": "waiting"}))
    await asyncio.sleep(0.05)
    await ask(api, run["id"])
    async with asyncio.timeout(5):
        assert accepted(await waiter)["status"] == "waiting_for_input"
        assert accepted(await api.client.get(path, params={"until": "waiting"}))["status"] == "waiting_for_input"
        answer = await api.client.get(path, params={"timeout_s": 0.1, "until": "ended"})
    assert accepted(answer)["status"] == "waiting_for_input"


async def test_waiting_is_over_when_its_time_is(api: RunningGateway) -> None:
    """The run comes as it stands, with 200; the longest wait is a minute."""
    run = await api.run_in("running")
    path = f"/v1/runs/{run['id']}/wait"
    for timeout_s in (0, 0.05):
        assert accepted(await api.client.get(path, params={"timeout_s": timeout_s}))["status"] == "running"
    for bad in ({"timeout_s": 61}, {"timeout_s": -1}, {"timeout_s": "soon"}, {"until": "later"}, {"timeout": 1}):
        refused(await api.client.get(path, params=bad), 400, "bad_request")
    refused(await api.client.get(f"/v1/runs/{UNKNOWN}/wait"), 404, "not_found")


async def test_waiting_for_a_run_that_is_purged_ends(api: RunningGateway) -> None:
    """A run that is restarted and waited for, then ended and purged, leaves nobody hanging."""
    run = await api.run_in("running")
    waiter = asyncio.create_task(api.client.get(f"/v1/runs/{run['id']}/wait", params={"timeout_s": 20}))
    await asyncio.sleep(0.05)
    await api.append(run["id"], COMPLETE)
    await act(api, run["id"], "purge")
    async with asyncio.timeout(5):
        assert (await waiter).status_code in (200, 404)


async def test_creation_times_are_unique_and_ordered(gateway: RunningGateway) -> None:
    """However many are created at once: the list's order is total, and newest first."""
    runs = await asyncio.gather(*(gateway.create_run() for _ in range(40)))
    found: list[str] = []
    cursor = None
    while True:
        params = {"limit": 7} | ({"cursor": cursor} if cursor else {})
        page = accepted(await gateway.client.get("/v1/runs", params=params))
        found += [run["id"] for run in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert sorted(found) == sorted(run["id"] for run in runs)
    records = await gateway.gateway.stores.runs.load_many(found)
    times = [run.spec.created_us for run in records if run is not None]
    assert times == sorted(set(times), reverse=True)


async def test_usage_is_summed_in_the_record(api: RunningGateway) -> None:
    """Running totals, exact, over everything that was appended."""
    run = await api.create_run()
    used = {"provider": "p", "model": "m", "prompt_tokens": 10, "completion_tokens": 3, "cached_tokens": 2}
    await api.append(run["id"], ("usage.recorded", used | {"cost_microusd": 7, "credits": 0.1}))
    await api.append(run["id"], ("usage.recorded", used), ("usage.recorded", used | {"credits": 0.2}), COMPLETE)
    assert (await get_run(api, run["id"]))["usage"] == {
        "prompt_tokens": 30,
        "completion_tokens": 9,
        "cached_tokens": 6,
        "cost_microusd": 7,
        "credits_micro": 300_000,
    }


async def test_a_read_after_a_write_sees_it(api: RunningGateway) -> None:
    """Record, log, folds and lists agree the moment a write is acknowledged."""
    for _ in range(10):
        run = await api.create_run(thread_id="read-your-writes")
        await api.append(run["id"], LOG, ("run.waiting_for_input", {"prompt": "?"}))
        assert (await get_run(api, run["id"]))["status"] == "waiting_for_input"
        params: dict[str, Any] = {"status": "waiting_for_input", "thread_id": "read-your-writes", "limit": 1}
        assert accepted(await api.client.get("/v1/runs", params=params))["data"][0]["id"] == run["id"]
        inbox = accepted(await api.client.get("/v1/requests", params={"limit": 1}))["data"]
        assert inbox[0]["run_id"] == run["id"]
        folded = accepted(await api.client.get(f"/v1/runs/{run['id']}/snapshot"))
        assert folded["as_of_seq"] == folded["run"]["head_seq"] == 5
