"""Appends answered from the connection: what the route says, the short way says too."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support.native import accepted, get_types
from tests.support.running import RunningGateway

pytestmark = pytest.mark.anyio

LOG = {"type": "log", "data": {"level": "info", "message": "m"}}
HELD = "00000000000000000000000000"


def told(answer: httpx.Response) -> tuple[int, dict[str, str], Any]:
    """Return status, headers and body without what differs from request to request."""
    body = answer.json()
    for name in ("request_id", "first_seq", "last_seq"):
        body.pop(name, None)
    headers = {name: value for name, value in answer.headers.items() if name not in ("date", "content-length")}
    assert headers.pop("x-request-id")
    return answer.status_code, headers, body


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b'{"events":[{"type":"log","data":{"level":"info","message":"m"}}]}', {}),
        (b'{"type":"log","data":{"level":"info","message":"m"}}', {}),
        (b'{"events":[]}', {}),
        (b"", {}),
        (b"{", {}),
        (b'{"events":[{"type":"lag"}]}', {}),
        (b'{"events":[{"type":"log"}]}', {}),
        (b'{"events":[{"type":"run.created"}]}', {}),
        (b'{"events":[{"type":"custom.x","date":1}]}', {}),
        (b'{"events":[{"type":"custom.x"}],"expected_seq":9}', {}),
        (b'{"events":[{"type":"custom.x"}],"writer":"w"}', {}),
        (b'{"events":[{"type":"custom.x"}],"writer":"w","writer_seq":2}', {}),
        (b'{"events":[{"type":"custom.x"}],"attempt":2}', {}),
        (b'{"events":[{"type":"custom.x"}]}', {"Lease": "none"}),
        (b'{"events":[{"type":"custom.x"}]}', {"Authorization": "Bearer gwk_unknown"}),
        (b'{"events":[{"type":"custom.x"}]}', {"Authorization": "Basic eDp5"}),
        (b'{"events":[{"type":"custom.x"}]}', {"Idempotency-Key": "é"}),
        (b"[" * 200 + b"]" * 200, {}),
    ],
)
async def test_both_ways_say_the_same(api: RunningGateway, body: bytes, headers: dict[str, str]) -> None:
    """The same append to a running run, by the short way and by the route: status, headers and body."""
    answers = []
    for query in ("", "?"):
        run = await api.run_in("running")
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        answer = await api.client.post(f"/v1/runs/{run['id']}/events{query}", content=body, headers=raw)
        text = answer.text.replace(run["id"], HELD)
        answers.append(told(httpx.Response(answer.status_code, headers=answer.headers, text=text)))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("name", ["nothing", HELD, HELD.lower()])
async def test_a_run_that_is_not_there_is_told_alike(api: RunningGateway, name: str) -> None:
    """An id that no run can have, one that no run has, and its other spelling."""
    answers = [told(await api.client.post(f"/v1/runs/{name}/events{query}", json=LOG)) for query in ("", "?")]
    assert answers[0] == answers[1]
    assert answers[0][0] == 404


async def test_a_key_needs_its_scope_on_both_ways(api: RunningGateway) -> None:
    """A reader's key appends by neither."""
    run = await api.run_in("running")
    made = accepted(await api.client.post("/v1/keys", json={"scopes": ["runs:read"]}), 201)
    headers = {"Authorization": f"Bearer {made['key']}"}
    for query in ("", "?"):
        answer = await api.client.post(f"/v1/runs/{run['id']}/events{query}", json=LOG, headers=headers)
        assert (answer.status_code, answer.json()["required"]) == (403, "runs:write")


async def test_a_revoked_key_is_refused_on_the_connection_that_knew_it(api: RunningGateway) -> None:
    """What a connection remembers of its headers is never that they are allowed."""
    run = await api.run_in("running")
    before = await get_types(api, run["id"])
    made = accepted(await api.client.post("/v1/keys", json={"scopes": ["runs:write"]}), 201)
    path, headers = f"/v1/runs/{run['id']}/events", {"Authorization": f"Bearer {made['key']}"}
    async with httpx.AsyncClient(base_url=api.url, headers=headers) as client:
        accepted(await client.post(path, json=LOG))
        accepted(await client.post(path, json=LOG))
        await api.client.delete(f"/v1/keys/{made['id']}")
        answer = await client.post(path, json=LOG)
    assert (answer.status_code, answer.json()["reason"]) == (401, "key_revoked")
    assert len(await get_types(api, run["id"])) == len(before) + 2


async def test_both_ways_count_as_one_route(api: RunningGateway) -> None:
    """The metrics name the template, whichever way a request went."""
    run = await api.run_in("running")
    sample = 'gateway_http_requests_total{method="POST",route="/v1/runs/{run_id}/events",status="200"}'

    async def read() -> float:
        lines = (await api.client.get("/metrics")).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(sample))

    before = await read()
    for query in ("", "?"):
        accepted(await api.client.post(f"/v1/runs/{run['id']}/events{query}", json=LOG))
    assert await read() == before + 2
