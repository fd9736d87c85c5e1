"""Every endpoint of the job system, asked as its own page asks: the curl lines as they stand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from tests.dialects.jobs import seed
from tests.dialects.jobs.speaking import BASE, get, make_dead, make_running, own_queue
from tests.support.native import accepted, act
from tests.support.running import RunningGateway
from tests.support.work import queue_run, write

pytestmark = pytest.mark.anyio

Prepare = Callable[[RunningGateway], Awaitable[str]]


async def queued(api: RunningGateway) -> str:
    """Return a run that waits to be claimed."""
    return await queue_run(api, own_queue())


async def with_key(api: RunningGateway) -> str:
    """Return a run that was created under an idempotency key."""
    body = {"agent_id": "tester", "mode": "queued", "queue": own_queue()}
    answer = await api.client.post("/v1/runs", json=body, headers={"idempotency-key": own_queue()})
    run_id: str = accepted(answer, 201)["id"]
    return run_id


async def delayed(api: RunningGateway) -> str:
    """Return a run that starts in an hour."""
    return await queue_run(api, own_queue(), delay_s=3_600)


async def parent(api: RunningGateway) -> str:
    """Return a run that has children."""
    run_id = await queued(api)
    for _ in range(2):
        await queue_run(api, own_queue(), parent_run_id=run_id)
    return run_id


async def continued(api: RunningGateway) -> str:
    """Return a run that was replayed."""
    run_id = await ended(api)
    accepted(await act(api, run_id, "replay"), 201)
    return run_id


async def dependent(api: RunningGateway) -> str:
    """Return a run that waits for another."""
    first = await queued(api)
    return await queue_run(api, own_queue(), depends_on=[{"run_id": first, "condition": "finished"}])


async def running(api: RunningGateway) -> str:
    """Return a run that a worker holds."""
    run_id, _claimed = await make_running(api)
    return run_id


async def paused(api: RunningGateway) -> str:
    """Return a run that is paused."""
    run_id = await running(api)
    accepted(await act(api, run_id, "pause"))
    return run_id


WROTE: list[tuple[str, Any]] = [
    ("message.delta", {"content": "Hel", "message_id": "m1", "role": "assistant"}),
    ("message.delta", {"content": "lo", "message_id": "m1"}),
    ("tool.call", {"call_id": "c1", "name": "search", "input": {"q": "x"}}),
    ("tool.result", {"call_id": "c1", "output": ["a"], "status": "ok", "duration_ms": 12.4}),
    (
        "usage.recorded",
        {"provider": "p", "model": "m", "prompt_tokens": 3, "completion_tokens": 4, "cost_microusd": 5},
    ),
    ("checkpoint.created", {"source": "worker", "state": {"step": 2}}),
    ("output.set", {"key": "answer", "value": {"text": "x"}, "schema": {"type": "object"}}),
]


async def ended(api: RunningGateway) -> str:
    """Return a run that did all there is to do, and completed."""
    run_id, claimed = await make_running(api, *WROTE, input={"a": 1}, metadata={"n": 1}, tags={"t": "v"})
    accepted(await write(api, claimed, ("run.completed", {"output": {"done": True}})))
    return run_id


CONTRACT: list[tuple[str, str, Prepare, int, Any]] = [
    ("GET", "/v1/runs?project_id=string", ended, 200, [seed.RUN]),
    ("GET", "/v1/runs/dlq?project_id=string", make_dead, 200, [seed.RUN]),
    ("POST", "/v1/runs/bulk-cancel", queued, 200, seed.CANCELLED),
    ("GET", "/v1/runs/string", ended, 200, seed.RUN),
    ("DELETE", "/v1/runs/string", queued, 204, None),
    ("POST", "/v1/runs/string/replay", make_dead, 201, seed.RUN),
    ("POST", "/v1/runs/string/dlq-replay", make_dead, 200, seed.RUN),
    ("POST", "/v1/runs/bulk-dlq-replay", make_dead, 200, seed.REPLAYED),
    ("POST", "/v1/runs/bulk-cancel-all?project_id=string", queued, 200, seed.CANCELLED),
    ("POST", "/v1/runs/bulk-replay", ended, 200, [seed.RUN]),
    ("GET", "/v1/runs/string/stream", ended, 200, None),
    ("GET", "/v1/runs/string/children", parent, 200, [seed.RUN]),
    ("GET", "/v1/runs/string/events", ended, 200, [seed.EVENT]),
    ("GET", "/v1/runs/string/checkpoints", ended, 200, [seed.CHECKPOINT]),
    ("GET", "/v1/runs/string/usage", ended, 200, [seed.USAGE]),
    ("GET", "/v1/runs/string/tool-calls", ended, 200, [seed.TOOL_CALL]),
    ("GET", "/v1/runs/string/outputs", ended, 200, [seed.OUTPUT]),
    ("GET", "/v1/runs/string/debug-bundle", ended, 200, seed.BUNDLE),
    ("POST", "/v1/runs/string/debug", queued, 204, None),
    ("GET", "/v1/runs/string/lineage", continued, 200, [seed.RUN]),
    ("GET", "/v1/runs/string/dependency-status", dependent, 200, seed.DEPENDENCIES),
    ("DELETE", "/v1/runs/string/idempotency-key", with_key, 200, seed.RESET),
    ("POST", "/v1/runs/string/reschedule", delayed, 200, seed.RUN),
    ("POST", "/v1/runs/string/pause", running, 200, seed.RUN),
    ("POST", "/v1/runs/string/resume", paused, 200, seed.RUN),
    ("POST", "/v1/runs/string/restart", running, 200, seed.RUN),
    ("GET", "/v1/runs/string/stream/chunks", ended, 200, None),
    ("GET", "/v1/runs/string/state", ended, 200, seed.STATE),
]
EMPTY_BY_NATURE = {"/v1/runs/bulk-cancel"}


def test_every_curl_line_of_the_page_is_asked() -> None:
    """There are 28, each an operation of its own."""
    assert len(seed.LINES) == len(CONTRACT) == 28
    assert {seed.find_line(method, path) for method, path, *_ in CONTRACT} == set(seed.LINES)


async def test_the_description_has_every_line_of_the_page(api: RunningGateway) -> None:
    """With the answer that the page says, and refusals of the system's shape."""
    described = accepted(await api.client.get(f"{BASE}/openapi.json"))
    told = {(verb.upper(), path) for path, verbs in described["paths"].items() for verb in verbs}
    assert told == {(m, p.partition("?")[0].replace("/string", "/{run_id}")) for m, p, *_ in CONTRACT}
    for method, path, _prepare, status, _sample in CONTRACT:
        path = path.partition("?")[0].replace("/string", "/{run_id}")
        assert str(status) in described["paths"][path][method.lower()]["responses"]
    shapes = described["components"]["schemas"]
    assert list(shapes["JobRun"]["properties"]) == list(seed.RUN)
    assert set(shapes["JobRun"]["required"]) == set(seed.RUN)
    assert set(shapes["Refusal"]["required"]) == {"error", "request_id"}


async def test_a_410_is_described_where_it_occurs_only(api: RunningGateway) -> None:
    """What a log says is gone with it; the record and its relations stay."""
    described = accepted(await api.client.get(f"{BASE}/openapi.json"))["paths"]
    run_id = await ended(api)
    accepted(await api.client.post(f"/v1/runs/{run_id}/purge", json={"keep_record": True}))
    for method, path, *_ in CONTRACT:
        if method == "GET" and "/string" in path:
            answer = await api.client.get(BASE + path.replace("string", run_id))
            has_410 = "410" in described[path.replace("/string", "/{run_id}")]["get"]["responses"]
            assert (answer.status_code == 410) is has_410, path


async def test_a_list_that_has_pages_is_described_with_the_header_that_leads_on(api: RunningGateway) -> None:
    """A client that is made from the description learns of it."""
    described = accepted(await api.client.get(f"{BASE}/openapi.json"))["paths"]
    reads = {path: verbs["get"]["responses"]["200"] for path, verbs in described.items() if "get" in verbs}
    paged = {path for path, answer in reads.items() if "headers" in answer}
    assert paged == {"/v1/runs", "/v1/runs/dlq", "/v1/runs/{run_id}/children", "/v1/runs/{run_id}/events"}
    assert all("X-Next-Cursor" in reads[path]["headers"] for path in paged)


async def ask(api: RunningGateway, method: str, path: str, run_id: str) -> httpx.Response:
    """Ask as the page's line does, with another address, key and run."""
    line = seed.find_line(method, path)
    request = seed.read_line(line, api.url + BASE, run_id=run_id, project_id=api.tenant)
    request.headers["authorization"] = f"Bearer {api.key}"
    return await api.client.send(request)


@pytest.mark.parametrize(
    ("method", "path", "prepare", "status", "sample"), CONTRACT, ids=lambda v: v if isinstance(v, str) else ""
)
async def test_the_pages_own_line_is_answered_as_the_page_says(
    api: RunningGateway, method: str, path: str, prepare: Prepare, status: int, sample: Any
) -> None:
    """The address and the key change, nothing else: every field is there, of its type or null."""
    run_id = await prepare(api)
    answer = await ask(api, method, path, run_id)
    assert answer.status_code == status, answer.text
    if status == 204:
        assert answer.content == b""
    elif sample is None:
        assert answer.headers["content-type"] == "text/event-stream"
    else:
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() or path in EMPTY_BY_NATURE
        seed.check_like(answer.json(), sample)


async def test_fields_that_always_have_a_value_are_never_null(api: RunningGateway) -> None:
    """Of a run that has just been created, too."""
    never = {"id", "job_id", "project_id", "status", "attempt", "metadata", "triggered_by", "priority", "job_version"}
    never |= {"retry_backoff", "retry_initial_delay_secs", "retry_max_delay_secs", "execution_trace", "debug_mode"}
    never |= {"lineage_depth", "tags", "created_by", "created_at"}
    run = await get(api, f"/{await queued(api)}")
    assert {name for name, value in run.items() if value is not None} == never
    assert len(run) == 36
