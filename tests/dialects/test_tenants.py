"""Another tenant's key, on every documented operation of every API: it learns nothing, and changes nothing."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from ulid import ULID

from gateway.app import DIALECTS
from tests.support.native import accepted, get_log, get_run, open_client
from tests.support.running import LOG, RunningGateway, RunningStore, run_gateway

pytestmark = pytest.mark.anyio

SECRET = "tideline"
"""What stands in everything that the owner's things say."""
PLACES = ["", *(f"/compat/{name}" for name in DIALECTS)]
BODIES: dict[str, Any] = {
    "/v1/keys/{key_id}/rotate": {"overlap_s": 0},
    "/v1/agents/{agent_id}": {"queue": "theirs"},
    "/v1/schedules/{schedule_id}": {"agent_id": "theirs", "cron": "0 0 1 1 *"},
    "/v1/claims": {"queues": ["default"], "wait_s": 0},
    "/v1/tickets": {"tenant": True},
}
STEERING = [{}, {"events": [{"type": "log", "data": {"level": "info", "message": "m"}}]}, {"content": True}]
"""Bodies that one or another steering operation takes."""


@pytest.fixture(scope="module")
async def owner(store: RunningStore, anyio_backend: object) -> AsyncIterator[RunningGateway]:
    """The tenant whose things are tried."""
    async with run_gateway(store.url) as running:
        yield running


async def make_things(owner: RunningGateway) -> dict[str, str]:
    """Make one of everything that has an id, and return the ids by the names that paths have for them."""
    agent, timetable, queue = (f"{kind}{ULID()}" for kind in "asq")
    assert (await owner.client.put(f"/v1/agents/{agent}", json={"queue": queue, "title": SECRET})).is_success
    hook = {"url": "https://hooks.example/x", "secret": "whsec_" + "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"}
    run = await owner.create_run(
        agent_id=agent, title=SECRET, input={"say": SECRET}, tags={"a": SECRET}, metadata={"a": SECRET}, webhooks=[hook]
    )
    asked = ("run.waiting_for_input", {"prompt": SECRET, "request_id": "q1"})
    step = ("step.started", {"step_id": "s1", "name": SECRET})
    call = ("tool.call", {"call_id": "c1", "name": SECRET, "input": {"a": SECRET}})
    output = ("output.set", {"key": "k", "value": SECRET})
    saved = ("checkpoint.created", {"source": SECRET, "state": {"a": SECRET}})
    accepted(await owner.append(run["id"], LOG, step, call, output, saved, asked))
    named = {"name": f"{SECRET}.txt"}
    stored = accepted(await owner.client.post("/v1/files", params=named, content=SECRET.encode()), 201)
    schedule = {"agent_id": agent, "cron": "0 0 1 1 *", "input": {"say": SECRET}}
    assert (await owner.client.put(f"/v1/schedules/{timetable}", json=schedule)).is_success
    key = accepted(await owner.client.post("/v1/keys", json={"scopes": ["runs:read"], "name": SECRET}), 201)
    hooks = accepted(await owner.client.get(f"/v1/runs/{run['id']}/webhooks"))["data"]
    return {
        "run_id": run["id"],
        "thread_id": run["thread_id"],
        "agent_id": agent,
        "file_id": stored["file_id"],
        "schedule_id": timetable,
        "key_id": key["id"],
        "hook_id": hooks[0]["id"],
        "request_id": "q1",
    }


def fill(path: str, things: dict[str, str], place: str) -> str:
    """Return a path with the owner's ids in it."""
    others = {"id": things["run_id"], "thread_id": things["thread_id"], "interrupt_id": things["request_id"]}
    known = {**others, **things}

    def find(match: re.Match[str]) -> str:
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", match[1]).lower()
        return known.get(name, things["run_id"])

    return place + re.sub(r"\{(\w+)\}", find, path)


async def call(client: httpx.AsyncClient, method: str, path: str, body: Any) -> tuple[int, str]:
    """Return the status and what came of an answer; a stream is not read beyond its first bytes."""
    more: dict[str, Any] = {} if body is None else {"json": body}
    if path.endswith("/wait"):
        more["params"] = {"timeout_s": 0}
    async with client.stream(method, path, **more) as answer:
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            return answer.status_code, (await anext(answer.aiter_bytes(), b"")).decode()
        return answer.status_code, (await answer.aread()).decode("utf-8", "replace")


@pytest.mark.parametrize("place", PLACES)
async def test_another_tenant_learns_nothing_and_changes_nothing(owner: RunningGateway, place: str) -> None:
    """Under no method, path or body; the owner sees with the same requests what was hidden."""
    things = await make_things(owner)
    paths = accepted(await owner.client.get(f"{place}/openapi.json"))["paths"]
    before = await get_run(owner, things["run_id"]), await get_log(owner, things["run_id"])
    hidden = 0
    async with open_client(owner, tenant=f"t{ULID()}") as stranger:
        for path, methods in paths.items():
            target = fill(path, things, place if not path.startswith(place) else "")
            for method in sorted(methods.keys() & {"get", "put", "post", "delete", "patch"}):
                bodies = [None] if method in ("get", "delete") else [BODIES[path]] if path in BODIES else STEERING
                for body in bodies:
                    status, text = await call(stranger, method, target, body)
                    assert status < 500, (method, path, body, text)
                    assert SECRET not in text, (method, path, body, text)
                    if "run_id" in path or "{id}" in path:
                        assert status in (400, 404, 409, 422), (method, path, body, status, text)
                if method == "get":
                    seen = (await call(owner.client, method, target, None))[1]
                    hidden += SECRET in seen or things["run_id"] in seen
    assert hidden >= 1, "the owner sees it"
    after = await get_run(owner, things["run_id"]), await get_log(owner, things["run_id"])
    assert after == before
    assert accepted(await owner.client.get(f"/v1/files/{things['file_id']}"))["file_id"] == things["file_id"]
    keys = accepted(await owner.client.get("/v1/keys"))["data"]
    assert [key["revoked_at"] for key in keys if key["id"] == things["key_id"]] == [None]
