"""Bad input of every kind, on every route: a precise problem, nothing changed, never a 500."""

from __future__ import annotations

import asyncio
import re
import string
from collections.abc import AsyncIterator
from typing import Any, cast
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from starlette.routing import Route

from gateway.dialects.native.context import Native
from gateway.dialects.native.routes import routes
from tests.support.native import PROBLEM, accepted, get_run, open_client, refused
from tests.support.running import RunningGateway, RunningStore, run_gateway

pytestmark = pytest.mark.anyio

UNKNOWN = "01J00000000000000000000000"
JSON = {"content-type": "application/json"}
# Every method and path of the native API over HTTP that takes a key; nothing is called, so no services are needed.
ROUTES = [
    (method, route.path)
    for route in routes(cast(Native, None))
    if isinstance(route, Route) and route.path.startswith("/v1/") and route.path != "/v1/ws"
    for method in sorted(route.methods or ())
    if method != "HEAD"
]

# A good body of every route that takes one, to be spoiled.
BODIES: dict[str, dict[str, Any]] = {
    "/v1/runs": {"agent_id": "tester", "mode": "direct", "input": {"a": 1}, "tags": {"a": "b"}, "delay_s": 0},
    "/v1/runs/batch": {"runs": [{"agent_id": "tester", "mode": "direct"}], "batch_id": "b"},
    "/v1/threads/{thread_id}/runs": {"agent_id": "tester", "mode": "direct", "metadata": {"a": 1}},
    "/v1/runs/{run_id}/events": {
        "events": [{"type": "log", "data": {"level": "info", "message": "m"}, "step_id": "s"}],
        "expected_seq": 3,
        "attempt": 1,
    },
    "/v1/runs/{run_id}/cancel": {"reason": "r", "force": False, "triggered_by": "t"},
    "/v1/runs/{run_id}:cancel": {"reason": "r", "force": False},
    "/v1/runs/{run_id}": {"reason": "r"},
    "/v1/runs/{run_id}/pause": {"reason": "r"},
    "/v1/runs/{run_id}/resume": {"reason": "r"},
    "/v1/runs/{run_id}/restart": {"reason": "r", "triggered_by": "t"},
    "/v1/runs/{run_id}/retry": {"reason": "r"},
    "/v1/runs/{run_id}/replay": {"reason": "r"},
    "/v1/runs/{run_id}/reschedule": {"scheduled_at": "2027-01-01T00:00:00Z"},
    "/v1/runs/{run_id}/input": {"content": {"a": 1}, "triggered_by": "t"},
    "/v1/runs/{run_id}/purge": {"keep_record": True, "through_seq": 1},
    "/v1/runs/{run_id}/dlq-replay": {"reason": "r", "from_checkpoint": True},
    "/v1/runs/{run_id}/debug": {"debug_mode": True},
    "/v1/runs/{run_id}/idempotency-key": {"reason": "r"},
    "/v1/runs/{run_id}/heartbeat": {"lease": "x", "attempt": 1},
    "/v1/runs/{run_id}/release": {"lease": "x", "reason": "r"},
    "/v1/claims": {"queues": ["default"], "max": 2, "wait_s": 0, "worker": "w"},
    "/v1/agents/{agent_id}": {"queue": "q", "retry": {"max_attempts": 2}, "presets": {"a": 1}},
    "/v1/runs/{run_id}/webhooks/{hook_id}/redeliver": {"after_seq": 0},
    "/v1/schedules/{schedule_id}": {"agent_id": "a", "cron": "0 0 1 1 *", "timezone": "UTC", "enabled": False},
    "/v1/schedules/{schedule_id}/trigger": {"triggered_by": "t"},
    "/v1/runs/bulk-cancel": {"run_ids": [UNKNOWN], "reason": "r", "force": True},
    "/v1/runs/bulk-cancel-all": {"reason": "r"},
    "/v1/runs/bulk-replay": {"run_ids": [UNKNOWN]},
    "/v1/runs/bulk-dlq-replay": {"run_ids": [UNKNOWN], "triggered_by": "t"},
    "/v1/tickets": {"tenant": True, "scopes": ["runs:read"], "ttl_s": 5},
    "/v1/keys": {"scopes": ["runs:read"], "name": "n", "principal": {"id": "p"}, "agents": ["a"]},
    "/v1/keys/{key_id}/rotate": {"overlap_s": 60},
}

# Their body is a file, whatever is in it.
FILE_PATHS = {"/v1/files", "/v1/runs/{run_id}/files"}


def method_of(path: str) -> str:
    """Return the method by which a route is given its body."""
    if path in ("/v1/runs/{run_id}", "/v1/runs/{run_id}/idempotency-key"):
        return "DELETE"
    return "PUT" if path in ("/v1/agents/{agent_id}", "/v1/schedules/{schedule_id}") else "POST"


def params_of(path: str) -> dict[str, str]:
    """Return the query parameters that a route cannot do without."""
    return {"run": UNKNOWN} if path == "/v1/stream" else {}


def fill(path: str, run_id: str = UNKNOWN) -> str:
    """Return a path with ids in it."""
    return (
        path.replace("{run_id}", run_id)
        .replace("{thread_id}", "t")
        .replace("{key_id}", "key_1")
        .replace("{agent_id}", "a")
        .replace("{hook_id}", "h")
        .replace("{schedule_id}", "s")
        .replace("{file_id}", UNKNOWN)
    )


def body_of(method: str, path: str) -> dict[str, Any] | None:
    """Return a good body for a route, None where it takes none."""
    return BODIES[path] if method in ("POST", "PUT") and path not in FILE_PATHS else None


def test_every_route_with_a_body_is_spoiled_here() -> None:
    """A new route must not be forgotten."""
    taking = {path for method, path in ROUTES if method in ("POST", "PUT", "DELETE")}
    assert taking - {"/v1/keys/{key_id}", "/v1/files/{file_id}"} - FILE_PATHS == BODIES.keys()


async def test_without_a_good_key_nothing_is_told(api: RunningGateway) -> None:
    """On every route: 401 with what is missing, before anything is said of ids, bodies or parameters."""
    bad: list[tuple[dict[str, str], str]] = [
        ({}, "no_credential"),
        ({"authorization": "Bearer gwk_unknown"}, "unknown_key"),
        ({"x-api-key": "gwk_unknown"}, "unknown_key"),
        ({"x-api-key": "x" * 2000}, "unknown_key"),
        ({"authorization": f"Basic {api.key}"}, "bad_scheme"),
        ({"authorization": "Bearer"}, "no_credential"),
    ]
    run = await api.run_in("running")
    async with httpx.AsyncClient(base_url=api.url) as client:
        for method, path in ROUTES:
            for headers, reason in bad:
                answer = await client.request(
                    method,
                    fill(path, run["id"]),
                    headers=headers,
                    params=params_of(path),
                    json=body_of(method, path),
                )
                problem = refused(answer, 401, "unauthenticated")
                assert problem["reason"] == reason, (method, path)
                assert answer.headers["www-authenticate"].startswith("Bearer")
    assert await get_run(api, run["id"]) == run


async def test_two_keys_that_differ_are_refused(api: RunningGateway) -> None:
    """Rather than one of them silently winning; the same one twice is fine."""
    path = "/v1/runs"
    refused(await api.client.get(path, headers={"x-api-key": "gwk_other"}), 400, "bad_request")
    accepted(await api.client.get(path, headers={"x-api-key": api.key}))
    async with httpx.AsyncClient(base_url=api.url, headers={"x-api-key": api.key}) as client:
        accepted(await client.get(path))


async def test_a_key_without_the_scope_is_forbidden(api: RunningGateway) -> None:
    """On every route, with the scope that it takes; `work` alone opens those of workers only."""
    async with open_client(api, scopes=["work"]) as client:
        for method, path in ROUTES:
            if path.endswith(("/claims", "/heartbeat", "/release")):
                continue
            answer = await client.request(method, fill(path), params=params_of(path), json=body_of(method, path))
            problem = refused(answer, 403, "forbidden")
            assert problem["required"] in ("runs:read", "runs:write", "runs:input", "admin"), path


async def test_an_unknown_path_or_method_is_a_problem_too(api: RunningGateway) -> None:
    """404 and 405, which says what may be sent instead."""
    for path in ("/v1", "/v1/nothing", "/v1/runs/x/y/z", "/v2/runs", "/v1//runs"):
        refused(await api.client.get(path), 404, "not_found")
    methods: dict[str, set[str]] = {}
    for method, path in ROUTES:
        # For other methods these are ids, and such that no run has.
        if not path.endswith((":cancel", "/dlq", "/batch")) and "/bulk-" not in path:
            methods.setdefault(path, set()).add(method)
    for path, known in methods.items():
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - known:
            answer = await api.client.request(method, fill(path))
            refused(answer, 405, "method_not_allowed")
            allowed = {word.strip() for word in answer.headers["allow"].split(",")}
            assert allowed - {"HEAD"} == known, path


async def test_an_unknown_parameter_is_refused(api: RunningGateway) -> None:
    """On every route: a typo must not be a silence."""
    run = await api.run_in("running")
    for method, path in ROUTES:
        answer = await api.client.request(
            method, fill(path, run["id"]), params={"tpyo": "1"}, json=body_of(method, path)
        )
        assert "tpyo" in refused(answer, 400, "bad_request")["detail"], path
    assert await get_run(api, run["id"]) == run


MALFORMED: dict[str, bytes] = {
    "no json": b"hello",
    "half": b'{"a":',
    "two": b"{}{}",
    "trailing comma": b'{"a":1,}',
    "no utf-8": b'{"reason":"\xff\xfe"}',
    "lone surrogate": b'{"reason":"\\ud800"}',
    "not a number": b'{"reason":NaN}',
    "too deep": b'{"reason":' + b"[" * 200 + b"]" * 200 + b"}",
    "byte order mark": b"\xef\xbb\xbf{}",
}
MISSHAPEN: dict[str, bytes] = {
    "list": b"[]",
    "text": b'"x"',
    "number": b"5",
    "null": b"null",
    "unknown member": b'{"tpyo":1}',
    "member of another type": b'{"reason":{"a":1},"agent_id":7,"events":7,"scheduled_at":7,"runs":7,"scopes":7,'
    b'"through_seq":"x","request_id":7,"content":1}',
}


async def test_a_body_that_is_no_json_is_refused(api: RunningGateway) -> None:
    """400, on every route that takes one."""
    run = await api.run_in("running")
    for path in BODIES:
        method = method_of(path)
        for name, content in MALFORMED.items():
            answer = await api.client.request(method, fill(path, run["id"]), content=content, headers=JSON)
            assert answer.status_code == 400, (path, name, answer.text)
            refused(answer, 400, "bad_request")
    assert await get_run(api, run["id"]) == run


@pytest.mark.parametrize("text", [r"\ud83d", r"\ude00", r"a\ud83d b", r"\ude00\ud83d", r"\ud83dA", r"\ud83d\\ude00"])
async def test_half_of_a_character_is_named(api: RunningGateway, text: str) -> None:
    """Who streams text cuts an emoji in two: that is told as what it is, and not that JSON is no JSON."""
    run = await api.run_in("running")
    body = '{"type":"message.delta","data":{"content":"' + text + '"}}'
    answer = await api.client.post(f"/v1/runs/{run['id']}/events", content=body, headers=JSON)
    assert "half of a character" in refused(answer, 400, "bad_request")["detail"]
    assert await get_run(api, run["id"]) == run


async def test_a_body_of_another_shape_is_refused(api: RunningGateway) -> None:
    """422 with the path of what is wrong, on every route that takes one."""
    run = await api.run_in("running")
    for path in BODIES:
        method = method_of(path)
        for name, content in MISSHAPEN.items():
            answer = await api.client.request(method, fill(path, run["id"]), content=content, headers=JSON)
            assert answer.status_code == 422, (path, name, answer.text)
            assert refused(answer, 422, "invalid_body")["path"].startswith("$"), (path, name)
    assert await get_run(api, run["id"]) == run


ODD: dict[str, bytes] = {
    "beyond 64 bits": b"9" * 400,
    "beyond what Python prints": b"-" + b"9" * 5_000,
    "largest float": b"1e308",
    "beyond it": b"1e999",
    "smallest": b"1E-400",
    "deep": b"[" * 99 + b"]" * 99,
    "deeper": b"[" * 127 + b"]" * 127,
    "pair of surrogates": b'"\\ud83d\\ude00"',
    "zero": b'"\\u0000"',
    "long key": b'{"' + b"k" * 100_000 + b'":1}',
    "same key twice": b'{"a":1,"a":2}',
    "many keys": b"{" + b",".join(b'"k%d":1' % n for n in range(10_000)) + b"}",
}


@pytest.mark.parametrize("name", ODD)
async def test_odd_json_is_taken_or_refused_but_never_half_taken(api: RunningGateway, name: str) -> None:
    """What was stored can be read back by every route."""
    run = await api.run_in("waiting_for_input")
    path, value = f"/v1/runs/{run['id']}", ODD[name]
    sent = [
        ("/v1/runs", b'{"agent_id":"a","mode":"direct","input":%b}'),
        ("/v1/runs", b'{"agent_id":"a","mode":"direct","metadata":{"x":%b}}'),
        (f"{path}/events", b'{"type":"custom.x","data":%b}'),
        (f"{path}/events", b'{"type":"checkpoint.created","data":{"source":"s","state":%b}}'),
        (f"{path}/events", b'{"type":"log","writer":"w","writer_seq":%b}'),
        (f"{path}/input", b'{"content":%b}'),
    ]
    for target, body in sent:
        answer = await api.client.post(target, content=body % value)
        assert answer.status_code < 500, (target, answer.text)
        if answer.status_code >= 400:
            check_problem(answer)
    for route in ("", "/events", "/snapshot", "/checkpoints", "/state", "/debug-bundle"):
        accepted(await api.client.get(path + route))
    accepted(await api.client.get("/v1/runs", params={"limit": 3}))


async def test_a_body_that_cannot_be_taken_is_refused(api: RunningGateway) -> None:
    """Compressed, or over the limit, whether it says so or only turns out to be."""
    run = await api.run_in("running")

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 65536

    for path in BODIES:
        method = method_of(path)
        target = fill(path, run["id"])
        answer = await api.client.request(method, target, content=b"{}", headers={"content-encoding": "gzip"})
        refused(answer, 400, "bad_request")
        answer = await api.client.request(method, target, content=b" " * (2**21 + 1))
        assert refused(answer, 413, "too_large")["limit_bytes"] <= 2**21
    # The refusal comes while the sender is still at it: it may only see its connection cut.
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    head = f"POST /v1/runs HTTP/1.1\r\nhost: x\r\nx-api-key: {api.key}\r\ntransfer-encoding: chunked\r\n\r\n"
    writer.write(head.encode())
    async with asyncio.timeout(10):
        for _ in range(40):
            writer.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
            await writer.drain()
        assert (await reader.readline()).startswith(b"HTTP/1.1 413")
    writer.close()
    assert await get_run(api, run["id"]) == run


async def test_a_credential_that_is_a_ticket_opens_no_action(api: RunningGateway) -> None:
    """Whatever it was made for."""
    run = await api.run_in("running")
    scopes = ["runs:read", "runs:write", "runs:input"]
    body = {"runs": [run["id"]], "scopes": scopes}
    ticket = accepted(await api.client.post("/v1/tickets", json=body), 201)["ticket"]
    async with httpx.AsyncClient(base_url=api.url) as client:
        for method, path in ROUTES:
            if method != "GET":
                answer = await client.request(
                    method, fill(path, run["id"]), params={"ticket": ticket}, json=body_of(method, path)
                )
                refused(answer, 400, "bad_request")
        for bad in (ticket[:-1] + "?", "nonsense", ticket + "x", "x" * 5000):
            answer = await client.get(f"/v1/runs/{run['id']}/events", params={"ticket": bad})
            assert answer.status_code in (400, 401)


@pytest.mark.parametrize(
    "params",
    [
        {"after": "nonsense"},
        {"after": "-1"},
        {"after": "5-"},
        {"after": "5-99999999999"},
        {"after": "05"},
        {"after_seq": "-1"},
        {"after_seq": "x"},
        {"after_seq": str(2**60)},
        {"limit": "0"},
        {"limit": "1001"},
        {"limit": "1.5"},
        {"types": "Tool.Call"},
        {"types": "a,,b"},
        {"types": "x" * 5000},
        {"after": ["1", "2"]},
    ],
    ids=str,
)
async def test_a_bad_position_in_a_log_is_refused(api: RunningGateway, params: dict[str, Any]) -> None:
    """A bad cursor in the query is 400, on pages and streams alike."""
    run = await api.run_in("completed")
    refused(await api.client.get(f"/v1/runs/{run['id']}/events", params=params), 400, "bad_request")
    if "limit" not in params:
        refused(await api.client.get(f"/v1/runs/{run['id']}/stream", params=params), 400, "bad_request")


# Near misses of everything a request consists of.
TEXTS = st.one_of(
    st.text(max_size=20),
    st.text(string.ascii_letters + string.digits + "-._:/,*", max_size=30),
    st.sampled_from(
        ["", "0", "-1", "1.5", "1e400", "null", "true", "x" * 5000, "\x00", "é", "{}", UNKNOWN, "5-5", "*"]
    ),
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXTS,
    st.sampled_from(["log", "run.completed", "run.waiting_for_input", "run.failed", "usage.recorded", "custom.x"]),
    st.sampled_from(["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "2027-01-01T00:00:00Z", 10**300]),
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)
MEMBERS = sorted(
    {name for body in BODIES.values() for name in body} | {"type", "data", "writer", "writer_seq", "heartbeat_s"}
)
PARAMETERS = [
    *("after", "after_seq", "limit", "types", "snapshot", "cursor", "status", "agent_id", "thread_id", "tag"),
    *("metadata", "payload", "trigger", "batch_id", "created_after", "created_before", "include", "timeout_s"),
    *("until", "run", "stream", "writer", "writer_seq", "attempt", "tenant", "ticket"),
    *("name", "step_id", "run_id"),
]
EVENTS = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["log", "run.completed", "run.waiting_for_input", "usage.recorded", "custom.x", "tool.call"]
        )
    },
    optional={
        "data": st.dictionaries(
            st.sampled_from(["level", "message", "output", "prompt", "schema", "request_id"]), VALUES
        ),
        "step_id": VALUES,
    },
)


def rarely(draw: st.DrawFn, times: int) -> bool:
    """Once in so many `times`: much that is strange at once is only ever refused for the first of it."""
    return draw(st.integers(1, times)) == times


@st.composite
def near_bodies(draw: st.DrawFn, path: str) -> Any:
    """A body that is nearly, or quite, what a route takes."""
    kind = draw(st.sampled_from(["good", "spoiled", "spoiled", "spoiled", "other", "none"]))
    if kind == "none":
        return None
    if kind == "other":
        return draw(VALUES)
    body = dict(BODIES.get(path, {}))
    if path.endswith("/events") and draw(st.booleans()):
        body = {"events": draw(st.lists(EVENTS, max_size=3))}
    if kind == "spoiled":
        for _ in range(draw(st.integers(1, 2))):
            name = draw(st.sampled_from(sorted(body) or MEMBERS) | st.sampled_from(MEMBERS) | TEXTS)
            if draw(st.integers(0, 4)) == 0:
                body.pop(name, None)
            else:
                body[name] = draw(VALUES)
    return body


POOL = ("queued", "running", "waiting_for_input", "paused", "completed", "failed")
SPOTS = st.sampled_from([*(f"<{status}>" for status in POOL), UNKNOWN])
FORM = "multipart/form-data; boundary=x"
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "idempotency-key": st.text(string.printable.strip(), max_size=10),
        "last-event-id": st.sampled_from(["5", "5-5", "nonsense", "0", ",", "~x"]),
        "accept": st.sampled_from(["text/event-stream", "application/json", "*/*"]),
        "content-type": st.sampled_from(["application/json", "application/x-ndjson", "text/plain", "nonsense", FORM]),
        "lease": st.sampled_from(["", "x"]),
        "content-disposition": st.sampled_from(["attachment; filename=x", "nonsense", "attachment; filename*=x"]),
        "content-encoding": st.sampled_from(["identity", "gzip"]),
        "x-request-id": st.sampled_from(["mine", "not allowed here", ""]),
    },
)


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """A request of the API that is nearly right; `<status>` stands for a run in that status."""
    method, path = draw(st.sampled_from(ROUTES))
    parts = {}
    for name in re.findall(r"\{(\w+)\}", path):
        good = SPOTS if name == "run_id" else st.just("t")
        parts[name] = draw(TEXTS if rarely(draw, 10) else good)
    strange = st.dictionaries(st.sampled_from(PARAMETERS) | TEXTS, TEXTS | st.lists(TEXTS, max_size=2), max_size=2)
    query = draw(strange) if rarely(draw, 3 if method == "GET" else 10) else {}
    if path == "/v1/stream":
        query.setdefault("run", draw(SPOTS))
    headers = draw(HEADERS) if rarely(draw, 4) else {}
    body = draw(near_bodies(path)) if method != "GET" else None
    return {"method": method, "path": path, "parts": parts, "params": query, "headers": headers, "json": body}


@pytest.fixture(scope="module")
async def brief(store: RunningStore, anyio_backend: object) -> AsyncIterator[RunningGateway]:
    """A gateway that does not let anybody wait."""
    async with run_gateway(store.url, wait_s=0.05) as running:
        yield running


@settings(
    max_examples=500,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(request=requests())
async def test_nothing_that_is_sent_breaks_the_gateway(brief: RunningGateway, request: dict[str, Any]) -> None:
    """Any near miss is answered: done, or refused with a whole problem and without a trace in the run it named."""
    pool = await fill_pool(brief, [*request["parts"].values(), request["params"].get("run")])
    path, target = request["path"], pool.get(request["parts"].get("run_id", "").strip("<>"))
    for name, value in request["parts"].items():
        value = pool.get(value.strip("<>"), value)
        path = path.replace(f"{{{name}}}", quote(value, safe=""))
    run = request["params"].get("run")
    params = request["params"] | ({"run": pool.get(run.strip("<>"), run)} if isinstance(run, str) else {})
    before = None if target is None else await get_run(brief, target)
    about = {"params": params, "headers": request["headers"], "json": request["json"]}
    async with asyncio.timeout(15), brief.client.stream(request["method"], path, **about) as answer:
        assert answer.status_code < 500, await answer.aread()
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            return
        await answer.aread()
    if answer.status_code >= 400:
        check_problem(answer)
        if before is not None and target is not None:
            assert await get_run(brief, target) == before


def check_problem(answer: httpx.Response) -> None:
    """Check that a refusal is whole."""
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem.keys() >= PROBLEM
    assert problem["status"] == answer.status_code
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["code"] not in ("internal", "error")
    assert problem["detail"]


async def fill_pool(api: RunningGateway, wanted: list[Any]) -> dict[str, str]:
    """Return a run in each of the wanted statuses, made anew where the one before has moved on."""
    pool: dict[str, str] = api.__dict__.setdefault("pool", {})
    for status in POOL:
        if f"<{status}>" not in wanted:
            continue
        answer = await api.client.get(f"/v1/runs/{pool[status]}") if status in pool else None
        if answer is None or answer.status_code != 200 or answer.json()["status"] != status:
            pool[status] = (await api.run_in(status))["id"]
    return pool
