"""Run management as its tests speak it."""

from __future__ import annotations

from typing import Any

import httpx

from tests.support.running import RunningGateway

AGENT = "agt_01HAKZ"

SUMMARY = {"run_id", "workflow_id", "status", "started_at", "completed_at", "inputs"}
RECORD = SUMMARY | {"step_results", "output_files"}
STEP = {"step_id", "name", "status", "started_at", "completed_at", "output", "error"}
FILE = {"name", "size_bytes", "url", "url_expires_at"}


def path_of(run_id: str = "", action: str = "", *, agent: str = AGENT) -> str:
    """Return the path of an agent's runs, of one of them, or of an action on it."""
    return "/".join(part for part in (f"/api/agents/{agent}/runs", run_id, action) if part)


async def fetch(api: RunningGateway, run_id: str, *, agent: str = AGENT) -> dict[str, Any]:
    """Return the full record of a run."""
    return told(await api.client.get(path_of(run_id, agent=agent)))


def told(answer: httpx.Response, status: int = 200) -> dict[str, Any]:
    """Return the full record that an answer must hold, every field of it there."""
    assert answer.status_code == status, answer.text
    record: dict[str, Any] = answer.json()
    assert record.keys() == RECORD
    assert all(step.keys() == STEP for step in record["step_results"])
    assert all(file.keys() == FILE for file in record["output_files"])
    return record


def refused(answer: httpx.Response, status: int, error: str) -> dict[str, Any]:
    """Return the details of an answer that must be this refusal, in the dialect's words."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    refusal = answer.json()
    assert refusal.keys() == {"error", "message", "request_id", "details"}
    assert refusal["error"] == error, refusal
    assert refusal["request_id"] == answer.headers["x-request-id"]
    assert refusal["message"]
    details: dict[str, Any] = refusal["details"]
    return details
