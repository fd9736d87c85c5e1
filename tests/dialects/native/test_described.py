"""What the native API really answers, held against what it says of itself: no member more, none less."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support.described import Described
from tests.support.native import accepted, ask
from tests.support.running import COMPLETE, LOG, RunningGateway, wait_until
from tests.support.work import claim_one, put_agent, queue_run, write

pytestmark = pytest.mark.anyio

TALK: list[tuple[str, Any]] = [
    LOG,
    ("step.started", {"step_id": "s", "name": "Plan"}),
    ("tool.call", {"call_id": "c", "name": "grep", "input": {}}),
    ("tool.result", {"call_id": "c", "output": 1, "status": "ok", "duration_ms": 2}),
    ("message.delta", {"content": "a", "message_id": "m"}),
    ("usage.recorded", {"provider": "p", "model": "m", "prompt_tokens": 1, "completion_tokens": 1, "credits": 0.5}),
    ("checkpoint.created", {"source": "s", "state": {"n": 1}}),
    ("output.set", {"key": "k", "value": 1}),
    ("custom.note", {"n": 1}),
]
FOLDS = (
    *("steps", "tool-calls", "messages", "usage", "outputs", "checkpoints", "files", "history"),
    *("snapshot", "state", "debug-bundle", "wait", "children", "lineage", "dependency-status", "events"),
)
LISTS = ("runs", "runs/dlq", "requests", "queues", "agents", "keys", "files", "schedules")


NAMED = ("run_id", "agent_id", "key_id", "hook_id", "schedule_id")


class Judge:
    """Sends requests and checks each answer against the description."""

    def __init__(self, client: httpx.AsyncClient, described: Described) -> None:
        self._client = client
        self._described = described

    async def ask(self, method: str, template: str, status: int, **request: Any) -> Any:
        """Return the body of an answer that has this status and is as described."""
        names = {name: request.pop(name) for name in NAMED if name in request}
        answer = await self._client.request(method, template.format(**names), **request)
        assert answer.status_code == status, (template, answer.text)
        self._described.check_answer(method.lower(), template, answer)
        return answer.json()


@pytest.fixture
async def judge(api: RunningGateway) -> Judge:
    """A judge over the description as it is served."""
    return Judge(api.client, Described(accepted(await api.client.get("/openapi.json"))))


async def busy_run(api: RunningGateway) -> str:
    """Return a run that did a bit of everything, and waits."""
    run = await api.create_run(tags={"a": "b"}, metadata={"m": 1}, title="t", timeout_s=60, heartbeat_s=30)
    accepted(await api.append(run["id"], *TALK))
    await ask(api, run["id"], schema={"type": "integer"}, timeout_s=60, on_timeout="fail")
    return str(run["id"])


async def test_reading_answers_are_as_described(api: RunningGateway, judge: Judge) -> None:
    """The record, every fold, every list, refusals too."""
    run_id = await busy_run(api)
    await put_agent(api, "described", queue="q", presets={"p": 1})
    await judge.ask("GET", "/v1/runs/{run_id}", 200, run_id=run_id, params={"include": "steps"})
    for name in FOLDS:
        params = {"timeout_s": 0} if name == "wait" else {}
        await judge.ask("GET", f"/v1/runs/{{run_id}}/{name}", 200, run_id=run_id, params=params)
    for name in LISTS:
        await judge.ask("GET", f"/v1/{name}", 200)
    await judge.ask("GET", "/v1/agents/{agent_id}", 200, agent_id="described")
    await judge.ask("GET", "/v1/runs/{run_id}", 404, run_id="none")
    await judge.ask("GET", "/v1/runs", 400, params={"limit": 0})
    reset = {"after": "1000-1"}
    page = await judge.ask("GET", "/v1/runs/{run_id}/events", 200, run_id=run_id, params=reset)
    assert page["reset"]


async def test_changing_answers_are_as_described(api: RunningGateway, judge: Judge) -> None:
    """Creating, steering, answering, copying, appending, purging, in bulk too."""
    body = {"agent_id": "a", "mode": "direct"}
    run_id = (await judge.ask("POST", "/v1/runs", 201, json=body))["id"]
    events = [{"type": "run.waiting_for_input", "data": {"prompt": "?"}}]
    written = await judge.ask("POST", "/v1/runs/{run_id}/events", 200, run_id=run_id, json={"events": events})
    assert written["request_ids"]
    for action in ("pause", "resume", "debug"):
        about = {"debug_mode": True} if action == "debug" else {}
        await judge.ask("POST", f"/v1/runs/{{run_id}}/{action}", 200, run_id=run_id, json=about)
    await judge.ask("POST", "/v1/runs/{run_id}/input", 200, run_id=run_id, json={"content": 1})
    await judge.ask("POST", "/v1/runs/{run_id}/input", 409, run_id=run_id, json={"content": 1})
    await judge.ask("POST", "/v1/runs/{run_id}:cancel", 200, run_id=run_id, json={"force": True})
    copy = await judge.ask("POST", "/v1/runs/{run_id}/retry", 201, run_id=run_id)
    cancelled = await judge.ask("POST", "/v1/runs/bulk-cancel", 200, json={"run_ids": [copy["id"], "none"]})
    assert [result["error"] is None for result in cancelled["results"]] == [True, False]
    batch = await judge.ask("POST", "/v1/runs/batch", 200, json={"runs": [body, {"agent_id": "a"}]})
    assert [result["error"] is None for result in batch["results"]] == [True, False]
    await judge.ask("POST", "/v1/runs/bulk-cancel-all", 200, params={"tag": "no:body"})
    await judge.ask("POST", "/v1/runs/{run_id}/purge", 200, run_id=copy["id"], json={"keep_record": True})
    assert (await judge.ask("POST", "/v1/runs/{run_id}/purge", 200, run_id=copy["id"]))["purged"]


async def test_work_and_access_are_as_described(api: RunningGateway, judge: Judge) -> None:
    """Claims with a preset and a checkpoint, heartbeats, releases; tickets and keys."""
    await judge.ask("PUT", "/v1/agents/{agent_id}", 201, agent_id="w", json={"queue": "w", "presets": {"p": {"n": 1}}})
    run_id = await queue_run(api, "w", agent_id="w", preset="p")
    claimed = await claim_one(api, "w")
    accepted(await write(api, claimed, *TALK))
    lease = {"lease": claimed["lease"]["token"]}
    await judge.ask("POST", "/v1/runs/{run_id}/heartbeat", 200, run_id=run_id, headers=lease)
    await judge.ask("POST", "/v1/runs/{run_id}/release", 200, run_id=run_id, headers=lease)
    again = await judge.ask("POST", "/v1/claims", 200, json={"queues": ["w"]})
    (taken,) = again["data"]
    assert taken["preset"] == {"name": "p", "config": {"n": 1}}
    assert taken["checkpoint"]["state"] == {"n": 1}
    accepted(await write(api, taken, COMPLETE))
    await judge.ask("POST", "/v1/tickets", 201, json={"tenant": True})
    key = await judge.ask("POST", "/v1/keys", 201, json={"scopes": ["runs:read"], "principal": {"id": "p"}})
    await judge.ask("DELETE", "/v1/keys/{key_id}", 200, key_id=key["id"])


async def test_webhooks_and_schedules_are_as_described(api: RunningGateway, judge: Judge) -> None:
    """With a secret that is shown once, a try that failed, a tick that failed."""
    hook = {"url": "https://no-such-name.invalid/", "id": "h"}
    await judge.ask("PUT", "/v1/agents/{agent_id}", 201, agent_id="told", json={"webhooks": [hook]})
    await judge.ask("GET", "/v1/agents/{agent_id}", 200, agent_id="told")
    run = await judge.ask("POST", "/v1/runs", 201, json={"agent_id": "told", "mode": "direct", "webhooks": [hook]})
    assert run["webhooks"][0]["secret"]
    accepted(await api.append(run["id"], COMPLETE))

    async def was_tried() -> bool:
        tries = await judge.ask("GET", "/v1/runs/{run_id}/webhook-deliveries", 200, run_id=run["id"])
        return bool(tries["data"])

    await wait_until(was_tried)
    await judge.ask("GET", "/v1/runs/{run_id}/webhooks", 200, run_id=run["id"])
    about = {"run_id": run["id"], "hook_id": "h"}
    await judge.ask("POST", "/v1/runs/{run_id}/webhooks/{hook_id}/redeliver", 200, **about, json={"after_seq": 1})
    path, schedule = "/v1/schedules/{schedule_id}", {"agent_id": "told", "cron": "@daily", "timezone": "Asia/Tokyo"}
    await judge.ask("PUT", path, 201, schedule_id="s", json=schedule)
    await judge.ask("PUT", path, 422, schedule_id="s", json={**schedule, "cron": "never"})
    triggered = await judge.ask("POST", f"{path}/trigger", 201, schedule_id="s", json={})
    assert triggered["schedule_id"] == "s"
    await judge.ask("GET", path, 200, schedule_id="s")
    await judge.ask("GET", "/v1/schedules", 200, params={"limit": 1})
    await judge.ask("DELETE", path, 200, schedule_id="s")
