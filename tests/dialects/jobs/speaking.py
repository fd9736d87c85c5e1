"""The job system's API as its tests speak it."""

from __future__ import annotations

import itertools
from typing import Any

import httpx

from tests.support.native import accepted
from tests.support.running import RunningGateway
from tests.support.work import claim_one, put_agent, queue_run, write

BASE = "/compat/jobs"
UNKNOWN = "01J00000000000000000000000"
FAILED = ("run.failed", {"error": {"code": "broken", "message": "It broke."}})

_NUMBERS = itertools.count()


def own_queue() -> str:
    """Return the name of a queue that no other test uses."""
    return f"q{next(_NUMBERS)}"


async def get(api: RunningGateway, path: str, **params: Any) -> Any:
    """Return what the API answers to a GET that must succeed."""
    return accepted(await api.client.get(f"{BASE}/v1/runs{path}", params=params))


async def post(api: RunningGateway, path: str, body: Any = None, *, expect: int = 200, **params: Any) -> Any:
    """Return what the API answers to a POST that must have this status."""
    answer = await api.client.post(f"{BASE}/v1/runs{path}", json=body, params=params)
    assert answer.status_code == expect, answer.text
    return answer.json() if answer.content else None


def refused(answer: httpx.Response, status: int) -> str:
    """Return what a refusal says; it must have this status and the system's shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body: dict[str, str] = answer.json()
    assert body.keys() == {"error", "request_id"}
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["error"]
    return body["error"]


async def make_dead(api: RunningGateway, **body: Any) -> str:
    """Return a run that ended among the dead letters."""
    queue = own_queue()
    await put_agent(api, f"mortal-{queue}", dead_letter=True, queue=queue, presets={"small": 1, "large": 2})
    run_id = await queue_run(api, queue, **{"agent_id": f"mortal-{queue}", **body})
    answer = accepted(await write(api, await claim_one(api, queue), FAILED))
    assert answer["status"] == "dead_letter"
    return run_id


async def make_running(api: RunningGateway, *events: tuple[str, Any], **body: Any) -> tuple[str, dict[str, Any]]:
    """Return a run that a worker holds and has written something to, and the worker's claim."""
    queue = own_queue()
    run_id = await queue_run(api, queue, **body)
    claimed = await claim_one(api, queue)
    accepted(await write(api, claimed, ("log", {"level": "warn", "message": "working"}), *events))
    return run_id, claimed
