"""Lists: every run once, in one order, whatever is created or changes meanwhile; and only the caller's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from gateway.domain.lifecycle import Status
from tests.support.native import accepted, act, ask, get_run, open_client, refused
from tests.support.running import COMPLETE, LOG, RunningGateway, RunningStore, run_gateway

pytestmark = pytest.mark.anyio


async def walk(client: httpx.AsyncClient, path: str = "/v1/runs", **params: Any) -> list[dict[str, Any]]:
    """Return everything that the pages of a list show."""
    found: list[dict[str, Any]] = []
    while True:
        page = accepted(await client.get(path, params=params))
        assert page["has_more"] == (page["next_cursor"] is not None)
        assert len(page["data"]) <= params.get("limit", 50)
        found += page["data"]
        if not page["has_more"]:
            return found
        params["cursor"] = page["next_cursor"]


async def ids(client: httpx.AsyncClient, path: str = "/v1/runs", **params: Any) -> list[str]:
    """Return the ids of the runs that the pages of a list show."""
    return [run["id"] for run in await walk(client, path, **params)]


@pytest.fixture(scope="module")
async def zoo(store: RunningStore, anyio_backend: object) -> AsyncIterator[tuple[RunningGateway, list[dict[str, Any]]]]:
    """A tenant with runs that differ in everything a list can be filtered by."""
    async with run_gateway(store.url) as api:
        runs = []
        for n in range(24):
            body: dict[str, Any] = {
                "agent_id": f"agent-{n % 3}",
                "thread_id": f"thread-{n % 4}",
                "tags": {"team": f"team-{n % 2}", "n": str(n)} | ({"long": "x" * 200} if n % 5 == 0 else {}),
                "metadata": {"n": n, "even": n % 2 == 0, "name": f"m{n % 3}", "deep": {"a": [n]}},
                "input": {"topic": f"t{n % 3}", "list": [n, {"deep": n % 2}]} if n % 6 else ["no", "object"],
                "trigger": ("manual", "cron", "spawn")[n % 3],
            }
            body |= {"batch_id": f"b{n % 2}"} if n % 2 else {}
            run = await api.create_run(**body)
            ways: list[list[Any]] = [[], [LOG], [LOG, "pause"], [LOG, COMPLETE], ["cancel"]]
            for step in ways[n % 5]:
                await (act(api, run["id"], step) if isinstance(step, str) else api.append(run["id"], step))
            runs.append(await get_run(api, run["id"]))
        yield api, runs[::-1]


async def test_a_list_is_all_runs_newest_first(zoo: tuple[RunningGateway, list[dict[str, Any]]]) -> None:
    """Whatever the size of a page; each entry is the run as it can be read."""
    api, runs = zoo
    for limit in (1, 5, 24, 100):
        assert await walk(api.client, limit=limit) == runs
    assert await walk(api.client) == runs


def matching(runs: list[dict[str, Any]], **fields: Any) -> list[str]:
    """Return the ids of the runs that have these values."""
    return [run["id"] for run in runs if all(run[name] == value for name, value in fields.items())]


async def test_every_filter_shows_what_matches_and_nothing_else(
    zoo: tuple[RunningGateway, list[dict[str, Any]]],
) -> None:
    """Alone: by status, agent, thread, trigger, batch, tag, metadata and payload."""
    api, runs = zoo
    for name in ("status", "agent_id", "thread_id", "trigger", "batch_id"):
        for value in {run[name] for run in runs if run[name] is not None}:
            expected = matching(runs, **{name: value})
            assert await ids(api.client, **{name: value}) == expected, (name, value)
            assert await ids(api.client, **{name: value}, limit=2) == expected, (name, value)
        assert name == "status" or await ids(api.client, **{name: "nobody"}) == []
    for key, value in (("team", "team-1"), ("n", "7"), ("long", "x" * 200)):
        assert await ids(api.client, tag=f"{key}:{value}") == [r["id"] for r in runs if r["tags"].get(key) == value]
    for key, text, value in (
        ("n", "7", 7),
        ("even", "true", True),
        ("name", "m1", "m1"),
        ("deep", '{"a":[3]}', {"a": [3]}),
    ):
        assert await ids(api.client, metadata=f"{key}:{text}") == [
            r["id"] for r in runs if r["metadata"][key] == value
        ], key


async def test_filters_narrow_one_another(zoo: tuple[RunningGateway, list[dict[str, Any]]]) -> None:
    """Several of one kind and of different kinds: all must hold, but of statuses any."""
    api, runs = zoo
    found = await ids(api.client, agent_id="agent-1", tag=["team:team-1", "n:7"])
    assert found == [r["id"] for r in runs if r["tags"]["n"] == "7"]
    assert await ids(api.client, tag=["n:7", "team:team-0"]) == []
    for spelling in (["running", "paused"], "running,paused", ["executing", "paused"]):
        both = [run["id"] for run in runs if run["status"] in ("running", "paused")]
        assert await ids(api.client, status=spelling, limit=2) == both
    expected = matching(runs, agent_id="agent-0", thread_id="thread-2", status="completed")
    assert await ids(api.client, agent_id="agent-0", thread_id="thread-2", status="completed") == expected
    for status in Status:
        assert await ids(api.client, status=status) == matching(runs, status=status)


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"topic": "t1"},
        {"list": [3]},
        {"list": [{"deep": 1}]},
        {"list": [7, {"deep": 1}], "topic": "t1"},
        {"topic": "t1", "nothing": None},
        {"list": [True]},
    ],
    ids=str,
)
async def test_a_payload_filter_is_containment(
    zoo: tuple[RunningGateway, list[dict[str, Any]]], payload: dict[str, Any]
) -> None:
    """Objects by their members, lists by their elements, all else by being equal and of one type."""
    api, runs = zoo

    def contains(value: Any, part: Any) -> bool:
        if isinstance(part, dict):
            return isinstance(value, dict) and all(k in value and contains(value[k], part[k]) for k in part)
        if isinstance(part, list):
            return isinstance(value, list) and all(any(contains(v, p) for v in value) for p in part)
        return json.dumps(value) == json.dumps(part)

    expected = [run["id"] for run in runs if contains(run["input"], payload)]
    assert await ids(api.client, payload=json.dumps(payload), limit=3) == expected


async def test_a_range_of_creation_excludes_its_bounds(zoo: tuple[RunningGateway, list[dict[str, Any]]]) -> None:
    """After and before, to the millisecond, with any offset."""
    api, runs = zoo
    times = [datetime.fromisoformat(run["created_at"]) for run in runs]
    low, high = times[-6], times[5]
    expected = [run["id"] for run, at in zip(runs, times, strict=True) if low < at < high]
    bounds = {"created_after": low.isoformat(), "created_before": high.isoformat()}
    assert await ids(api.client, **bounds, limit=3) == expected
    day = timedelta(days=1)
    assert await ids(api.client, created_after=(high + day).isoformat()) == []
    assert await ids(api.client, created_before=(low - day).isoformat()) == []
    assert len(await ids(api.client, created_before=(high + day).isoformat())) == len(runs)
    local = high.isoformat().replace("+00:00", "-00:00")
    assert await ids(api.client, created_before=local) == [
        r["id"] for r, at in zip(runs, times, strict=True) if at < high
    ]


async def test_a_threads_runs_are_at_its_own_path(zoo: tuple[RunningGateway, list[dict[str, Any]]]) -> None:
    """With all filters; a contradiction is refused."""
    api, runs = zoo
    path = "/v1/threads/thread-1/runs"
    assert await ids(api.client, path, limit=2) == matching(runs, thread_id="thread-1")
    expected = matching(runs, thread_id="thread-1", status="completed")
    assert await ids(api.client, path, status="completed") == expected
    assert await ids(api.client, path, thread_id="thread-1", status="completed") == expected
    refused(await api.client.get(path, params={"thread_id": "thread-2"}), 400, "bad_request")
    assert await ids(api.client, "/v1/threads/nobody/runs") == []


async def test_a_run_is_created_in_its_paths_thread(api: RunningGateway) -> None:
    """Whether the body names it too or not; another name is refused."""
    about = {"agent_id": "tester", "mode": "direct"}
    for body in (about, about | {"thread_id": "mine"}):
        run = accepted(await api.client.post("/v1/threads/mine/runs", json=body), 201)
        assert run["thread_id"] == "mine"
    answer = await api.client.post("/v1/threads/mine/runs", json=about | {"thread_id": "yours"})
    refused(answer, 422, "invalid_body")
    refused(await api.client.post("/v1/threads/b%20d/runs", json=about), 400, "bad_request")


async def test_a_walk_misses_nothing_while_runs_are_created(gateway: RunningGateway) -> None:
    """What was there when it began is seen once; what comes meanwhile is before its beginning."""
    before = [(await gateway.create_run(thread_id="w"))["id"] for _ in range(30)]
    stop = asyncio.Event()

    async def keep_creating() -> None:
        while not stop.is_set():
            await gateway.create_run(thread_id="w")

    creators = [asyncio.create_task(keep_creating()) for _ in range(3)]
    try:
        for params in ({}, {"thread_id": "w"}, {"status": "queued"}, {"agent_id": "tester"}):
            seen: list[str] = []
            cursor: dict[str, Any] = {}
            while True:
                page = accepted(await gateway.client.get("/v1/runs", params={"limit": 5, **params, **cursor}))
                seen += [run["id"] for run in page["data"]]
                if not page["has_more"]:
                    break
                cursor = {"cursor": page["next_cursor"]}
            assert len(seen) == len(set(seen))
            assert set(seen) >= set(before)
            assert [run_id for run_id in seen if run_id in set(before)] == before[::-1]
    finally:
        stop.set()
        await asyncio.gather(*creators)


async def test_a_list_by_status_misses_no_run_that_moves_between_its_statuses(gateway: RunningGateway) -> None:
    """A run that is always running or paused is always on the list of both."""
    runs = [(await gateway.run_in("running"))["id"] for _ in range(8)]
    stop = asyncio.Event()

    async def flip(run_id: str) -> None:
        while not stop.is_set():
            await act(gateway, run_id, "pause")
            await act(gateway, run_id, "resume")

    flips = [asyncio.create_task(flip(run_id)) for run_id in runs]
    try:
        for _ in range(25):
            found = await ids(gateway.client, status="running,paused")
            assert sorted(found) == sorted(runs)
    finally:
        stop.set()
        await asyncio.gather(*flips)


async def test_a_change_of_status_is_listed_at_once(gateway: RunningGateway) -> None:
    """The moment it is acknowledged, the run is on the new list and off the old one."""
    run = await gateway.create_run()
    path: list[tuple[Any, str]] = [
        (LOG, "running"),
        ("pause", "paused"),
        ("resume", "running"),
        ("cancel", "cancelling"),
        (("run.cancelled", {}), "cancelled"),
        ("restart", "queued"),
    ]
    before = "queued"
    for number, (step, status) in enumerate(path * 3):
        if isinstance(step, str):
            answer = await act(gateway, run["id"], step)
        else:
            answer = await gateway.append(run["id"], step, attempt=1 + number // len(path))
        accepted(answer)
        assert await ids(gateway.client, status=status) == [run["id"]]
        assert await ids(gateway.client, status=before) == []
        before = status


async def test_a_page_examines_so_many_records_and_says_where_to_go_on(store: RunningStore) -> None:
    """A filter that matches little gives short pages, an empty one even, but never an end before the end."""
    async with run_gateway(store.url, scan_records=10, list_page=5) as api:
        wanted = (await api.create_run(metadata={"rare": "yes"}))["id"]
        for _ in range(40):
            await api.create_run()
        page = accepted(await api.client.get("/v1/runs", params={"metadata": "rare:yes"}))
        assert (page["data"], page["has_more"]) == ([], True)
        pages = 0
        while page["has_more"]:
            params = {"metadata": "rare:yes", "cursor": page["next_cursor"]}
            page = accepted(await api.client.get("/v1/runs", params=params))
            pages += 1
        assert [run["id"] for run in page["data"]] == [wanted]
        assert pages >= 3


async def test_a_page_of_large_runs_is_short(gateway: RunningGateway) -> None:
    """It ends once it has so many bytes, and the next one goes on there: every run once, in order."""
    small = [(await gateway.create_run())["id"] for _ in range(3)]
    large = [(await gateway.create_run(input="x" * 900_000))["id"] for _ in range(36)]
    sizes, found, params = [], [], {"limit": "100"}
    while True:
        page = accepted(await gateway.client.get("/v1/runs", params=params))
        sizes.append(len(page["data"]))
        found += [run["id"] for run in page["data"]]
        if not page["has_more"]:
            break
        params["cursor"] = page["next_cursor"]
    assert found == [*reversed(large), *reversed(small)]
    assert max(sizes) <= 16


async def test_a_payload_filter_takes_so_many_steps_a_page(gateway: RunningGateway) -> None:
    """Where comparing takes long, pages are short; nothing is left out, and a run too large for any page is named."""
    runs = [(await gateway.create_run(input={"list": [*range(60_000)]}))["id"] for _ in range(7)]
    wanted = json.dumps({"list": [59_999]})
    assert await ids(gateway.client, payload=wanted) == runs[::-1]
    page = accepted(await gateway.client.get("/v1/runs", params={"payload": wanted}))
    assert len(page["data"]) == 3
    assert await ids(gateway.client, payload=json.dumps({"list": [-1]})) == []
    refused(await gateway.client.get("/v1/runs", params={"payload": json.dumps({"a": [1] * 33})}), 400, "bad_request")
    huge = await gateway.create_run(input={"list": [0] * 300_000})
    problem = refused(await gateway.client.get("/v1/runs", params={"payload": wanted}), 400, "bad_request")
    assert (problem["parameter"], problem["run_id"]) == ("payload", huge["id"])


async def test_the_inbox_shows_every_open_question(gateway: RunningGateway) -> None:
    """Of all runs, newest run first; a question leaves it when it is closed, however that happens."""
    first = await gateway.create_run(title="First", thread_id="t")
    second = await gateway.create_run()
    a, b = await ask(gateway, first["id"], prompt="A?", schema={"type": "string"}), await ask(gateway, second["id"])
    c = await ask(gateway, second["id"], timeout_s=60, on_timeout="default", default=1)
    inbox = await walk(gateway.client, "/v1/requests")
    assert [(item["run_id"], item["request_id"]) for item in inbox] == [
        (second["id"], b),
        (second["id"], c),
        (first["id"], a),
    ]
    (shown,) = [item for item in inbox if item["request_id"] == a]
    assert (shown["prompt"], shown["schema"], shown["on_timeout"]) == ("A?", {"type": "string"}, "keep")
    assert (shown["agent_id"], shown["thread_id"], shown["title"]) == ("tester", "t", "First")
    assert inbox[1]["deadline_at"] > inbox[1]["created_at"]
    assert await walk(gateway.client, "/v1/requests", status="open") == inbox
    await act(gateway, first["id"], "input", content="x")
    assert [item["request_id"] for item in await walk(gateway.client, "/v1/requests")] == [b, c]
    await gateway.append(second["id"], COMPLETE)
    assert await walk(gateway.client, "/v1/requests") == []
    refused(await gateway.client.get("/v1/requests", params={"status": "closed"}), 400, "bad_request")


async def test_the_inbox_is_paged_by_question(gateway: RunningGateway) -> None:
    """A run with many questions does not make a page longer than was asked for."""
    asked = []
    for _ in range(3):
        run = await gateway.create_run()
        asked.append([await ask(gateway, run["id"]) for _ in range(3)])
    expected = [request_id for questions in reversed(asked) for request_id in questions]
    for limit in (1, 2, 3, 4, 100):
        items = await walk(gateway.client, "/v1/requests", limit=limit)
        assert [item["request_id"] for item in items] == expected, limit


@pytest.mark.parametrize("path", ["/v1/runs", "/v1/threads/t/runs", "/v1/requests"])
@pytest.mark.parametrize(
    "params",
    [
        {"cursor": "nonsense"},
        {"cursor": ""},
        {"cursor": "12-"},
        {"cursor": "12-nonsense"},
        {"cursor": "-5-01J00000000000000000000000"},
        {"cursor": "99999999999999999999-01J00000000000000000000000"},
        {"limit": 0},
        {"limit": 101},
        {"limit": "ten"},
        {"limit": ["1", "2"]},
        {"order": "asc"},
    ],
    ids=str,
)
async def test_a_bad_page_is_refused(api: RunningGateway, path: str, params: dict[str, Any]) -> None:
    """A bad cursor or limit, or a parameter that does not exist, must not silently show something else."""
    refused(await api.client.get(path, params=params), 400, "bad_request")


@pytest.mark.parametrize(
    "params",
    [
        {"status": "nonsense"},
        {"status": "running,nonsense"},
        {"tag": "nocolon"},
        {"tag": ":v"},
        {"tag": ["a:1", "a:2"]},
        {"metadata": "nocolon"},
        {"payload": "nojson"},
        {"payload": "[1]"},
        {"payload": '"text"'},
        {"created_after": "yesterday"},
        {"created_after": "2026-01-01T00:00:00"},
        {"created_before": "2026-01-01"},
        {"created_before": ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]},
        {"agent_id": ["a", "b"]},
        {"states": "running"},
    ],
    ids=str,
)
async def test_a_bad_filter_is_refused(api: RunningGateway, params: dict[str, Any]) -> None:
    """By its name: a mistyped filter must not widen a list."""
    assert next(iter(params)) in refused(await api.client.get("/v1/runs", params=params), 400, "bad_request")["detail"]


@asynccontextmanager
async def neighbours(api: RunningGateway) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    """Give clients that must not see the runs of agent `secret` in `api`'s tenant."""
    async with open_client(api, tenant="neighbours") as stranger, open_client(api, agents=["public"]) as bound:
        yield {"another tenant": stranger, "another agent": bound}


async def test_nobody_else_sees_a_run(gateway: RunningGateway) -> None:
    """On no route: it is not found, not listed, not counted, and cannot be told from one that is not there."""
    run = await gateway.create_run(agent_id="secret", thread_id="secret-thread", tags={"a": "b"})
    await ask(gateway, run["id"])
    before = await get_run(gateway, run["id"])
    path = f"/v1/runs/{run['id']}"
    reads = ["", "/events", "/stream", "/stream/chunks", "/wait", "/children", "/lineage", "/steps", "/tool-calls"]
    reads += ["/messages", "/usage", "/outputs", "/checkpoints", "/files", "/history", "/state", "/snapshot"]
    reads += ["/debug-bundle"]
    writes = ["/events", "/cancel", ":cancel", "/pause", "/resume", "/restart", "/retry", "/replay", "/purge"]
    async with neighbours(gateway) as clients:
        for who, client in clients.items():
            for read in reads:
                answer = await client.get(path + read)
                problem = refused(answer, 404, "not_found")
                missing = refused(await client.get(f"/v1/runs/01J00000000000000000000000{read}"), 404, "not_found")
                assert problem["detail"].replace(run["id"], missing["run_id"]) == missing["detail"], (who, read)
            for write in writes:
                refused(
                    await client.post(path + write, json={"events": []} if write == "/events" else {}), 404, "not_found"
                )
            refused(await client.delete(path), 404, "not_found")
            refused(await client.post(f"{path}/input", json={"content": 1}), 404, "not_found")
            body = {"scheduled_at": "2027-01-01T00:00:00Z"}
            refused(await client.post(f"{path}/reschedule", json=body), 404, "not_found")
            refused(await client.post("/v1/tickets", json={"runs": [run["id"]]}), 404, "not_found")
            refused(await client.get("/v1/stream", params={"run": run["id"]}), 404, "not_found")
            for params in ({}, {"status": "waiting_for_input"}, {"tag": "a:b"}, {"thread_id": "secret-thread"}):
                assert await ids(client, **params) == [], who
            assert await ids(client, "/v1/threads/secret-thread/runs") == []
            assert await walk(client, "/v1/requests") == []
    assert await get_run(gateway, run["id"]) == before


async def test_a_key_for_some_agents_lists_theirs(gateway: RunningGateway) -> None:
    """Pages go on past what it may not see; it creates runs of its agents only."""
    mine = []
    for n in range(20):
        run = await gateway.create_run(agent_id="mine" if n % 4 == 0 else "theirs")
        mine += [run["id"]] if n % 4 == 0 else []
    async with open_client(gateway, agents=["mine", "also-mine"]) as client:
        assert await ids(client, limit=2) == mine[::-1]
        assert await ids(client, agent_id="theirs") == []
        body = {"agent_id": "theirs", "mode": "direct"}
        refused(await client.post("/v1/runs", json=body), 403, "forbidden")
        accepted(await client.post("/v1/runs", json=body | {"agent_id": "also-mine"}), 201)


async def test_a_ticket_lists_nothing(api: RunningGateway) -> None:
    """It opens streams; lists, the record and every action need a key."""
    run = await api.create_run()
    ticket = accepted(await api.client.post("/v1/tickets", json={"thread_id": run["thread_id"]}), 201)["ticket"]
    async with httpx.AsyncClient(base_url=api.url) as client:
        for method, path in (
            ("GET", "/v1/runs"),
            ("GET", "/v1/requests"),
            ("GET", f"/v1/runs/{run['id']}"),
            ("GET", f"/v1/runs/{run['id']}/snapshot"),
            ("POST", f"/v1/runs/{run['id']}/cancel"),
            ("POST", "/v1/tickets"),
        ):
            refused(await client.request(method, path, params={"ticket": ticket}), 400, "bad_request")
        page = accepted(await client.get(f"/v1/runs/{run['id']}/events", params={"ticket": ticket}))
        assert page["head_seq"] == 2


async def test_ended_runs_of_an_agent_are_found_among_those_of_others(store: RunningStore) -> None:
    """A list by agent and status looks through the agent's runs where runs of that status pile up."""
    async with run_gateway(store.url, scan_records=10) as api:
        mine = [await api.create_run(agent_id="mine") for _ in range(3)]
        await api.append(mine[0]["id"], LOG, COMPLETE)
        for _ in range(15):
            other = await api.create_run(agent_id="others")
            await api.append(other["id"], LOG, COMPLETE)
        for status, found in (("completed", mine[:1]), ("queued", mine[:0:-1]), ("failed", [])):
            page = accepted(await api.client.get("/v1/runs", params={"agent_id": "mine", "status": status}))
            assert [run["id"] for run in page["data"]] == [run["id"] for run in found]
            assert not page["has_more"]
