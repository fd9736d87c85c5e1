"""The native API as its tests speak it: refusals checked whole, logs read whole, keys for strangers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import httpx

from gateway.domain.access import SCOPES
from tests.support.running import RunningGateway

PROBLEM = {"type", "title", "status", "detail", "code", "request_id"}


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Return the problem document of an answer that must be this refusal, whole and well-formed."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem.keys() >= PROBLEM, problem
    assert (problem["status"], problem["code"]) == (status, code), problem
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["detail"]
    return problem


def accepted(answer: httpx.Response, status: int = 200) -> dict[str, Any]:
    """Return the body of an answer that must have this status."""
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def get_run(api: RunningGateway, run_id: str) -> dict[str, Any]:
    """Return a run's record."""
    return accepted(await api.client.get(f"/v1/runs/{run_id}"))


async def get_log(api: RunningGateway, run_id: str, *, after_seq: int = 0) -> list[dict[str, Any]]:
    """Return a run's events after a seq, all pages of them; their seqs must be dense."""
    events: list[dict[str, Any]] = []
    while True:
        params = {"after_seq": after_seq, "limit": 1000}
        page = accepted(await api.client.get(f"/v1/runs/{run_id}/events", params=params))
        events += page["data"]
        if not page["has_more"]:
            break
        after_seq = page["next_after_seq"]
    assert [e["seq"] for e in events] == list(range(page["head_seq"] - len(events) + 1, page["head_seq"] + 1))
    return events


async def get_types(api: RunningGateway, run_id: str, *, after_seq: int = 0) -> list[str]:
    """Return the types of a run's events after a seq."""
    return [event["type"] for event in await get_log(api, run_id, after_seq=after_seq)]


async def act(api: RunningGateway, run_id: str, action: str, key: str | None = None, **body: Any) -> httpx.Response:
    """Post an action on a run, under an idempotency key if one is given."""
    headers = {} if key is None else {"idempotency-key": key}
    return await api.client.post(f"/v1/runs/{run_id}/{action}", json=body, headers=headers)


async def ask(api: RunningGateway, run_id: str, **data: Any) -> str:
    """Have a run ask a question and return its request id."""
    body = accepted(await api.append(run_id, ("run.waiting_for_input", {"prompt": "Go on?", **data})))
    request_id: str = body["request_ids"][0]
    return request_id


@asynccontextmanager
async def open_client(
    api: RunningGateway,
    *,
    tenant: str | None = None,
    scopes: Iterable[str] = SCOPES,
    agents: Iterable[str] | None = None,
) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client with a key of its own: of the same tenant, or of another one."""
    key, _ = await api.gateway.access.create_key(
        tenant=tenant or api.tenant,
        name=None,
        principal=None,
        scopes=frozenset(scopes),
        agents=None if agents is None else frozenset(agents),
        now_ms=api.gateway.clock.now_ms(),
    )
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=api.url, headers=headers, timeout=20) as client:
        yield client
