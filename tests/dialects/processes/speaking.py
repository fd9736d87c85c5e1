"""Runs of processes as their tests speak of them, in the words of the page's examples."""

from __future__ import annotations

from typing import Any

import httpx

from tests.support.running import RunningGateway

AGENT = "b4fznghynbdemslfd5k044fgd"
PROCESS = "9nvx1hdm9bd74rp585oe81t5i"
BODY = {"agent_id": AGENT, "process_id": PROCESS, "name": "Process invoice 42", "stage": "Draft"}
RUN = {"agent_id", "created_at", "file_ids", "id", "name", "outputs", "process_id", "stage", "status"}


async def start(api: RunningGateway, **changes: Any) -> dict[str, Any]:
    """Start a run of a process and return it."""
    return told(await api.client.post("/runs", json=BODY | changes), 201)


def told(answer: httpx.Response, status: int = 200) -> dict[str, Any]:
    """Return the run that an answer must hold, every field of it there."""
    assert answer.status_code == status, answer.text
    run: dict[str, Any] = answer.json()
    assert run.keys() == RUN
    return run


async def page(api: RunningGateway, **params: Any) -> tuple[list[dict[str, Any]], str | None]:
    """Return a page of the process's runs, and where the next one begins."""
    answer = await api.client.get("/runs", params={"process_id": PROCESS, "agent_id": AGENT, **params})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body.keys() == {"continuation_token", "items"}
    assert all(item.keys() == RUN for item in body["items"])
    return body["items"], body["continuation_token"]


async def walk(api: RunningGateway, **params: Any) -> list[str]:
    """Return the ids of all runs that the pages show."""
    found, token = [], None
    while True:
        items, token = await page(api, **params, **({} if token is None else {"continuation_token": token}))
        assert items or token is None
        found += [item["id"] for item in items]
        if token is None:
            return found


def refused(answer: httpx.Response, status: int) -> Any:
    """Return the detail of an answer that must be this refusal, in the dialect's words."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    refusal = answer.json()
    assert refusal.keys() == {"detail"}
    assert refusal["detail"]
    return refusal["detail"]


def refused_at(answer: httpx.Response, *loc: str | int) -> str:
    """Return what is wrong with the one parameter or member that an answer must be refused for."""
    (fault,) = refused(answer, 422)
    assert fault.keys() == {"type", "loc", "msg"}
    assert fault["loc"] == list(loc), fault
    kind: str = fault["type"]
    return kind
