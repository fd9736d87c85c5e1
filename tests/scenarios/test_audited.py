"""What a gateway's own log says of those who steer, and what it never says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.native import accepted
from tests.support.processes import GatewayProcess, serving

pytestmark = pytest.mark.anyio

SECRET = "whsec_" + "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
PASSWORD = "correct-horse-battery"


def audit_of(gateway: GatewayProcess) -> list[dict[str, Any]]:
    """Return what was told of actions."""
    lines = [json.loads(line) for line in gateway.log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["logger"] == "gateway.audit"]


async def test_every_action_is_told_with_who_did_it(tmp_path: Path) -> None:
    """Done or refused, to a run, an agent, a schedule or a key; under the request's own id."""
    async with serving(tmp_path / "data", log_format="json") as gateway, gateway.client() as client:
        run_id = accepted(await client.post("/v1/runs", json={"agent_id": "a", "mode": "direct"}), 201)["id"]
        asked = {"type": "run.waiting_for_input", "data": {"prompt": "?"}}
        accepted(await client.post(f"/v1/runs/{run_id}/events", json={"events": [asked]}))
        headers = {"x-request-id": "who-asked"}
        accepted(await client.post(f"/v1/runs/{run_id}/pause", json={"triggered_by": "Ada"}, headers=headers))
        accepted(await client.post(f"/v1/runs/{run_id}/resume"))
        accepted(await client.post(f"/v1/runs/{run_id}/input", json={"content": PASSWORD}))
        assert (await client.post(f"/v1/runs/{run_id}/resume")).status_code == 409
        accepted(await client.post(f"/v1/runs/{run_id}/cancel", json={"force": True}))
        accepted(await client.post(f"/v1/runs/{run_id}/retry"), 201)
        assert (await client.put("/v1/agents/a", json={"queue": "q"})).is_success
        key = accepted(await client.post("/v1/keys", json={"scopes": ["runs:read"]}), 201)
        accepted(await client.delete(f"/v1/keys/{key['id']}"))
    told = audit_of(gateway)
    assert [(line["action"], line["subject"], line["outcome"]) for line in told] == [
        ("pause", run_id, "done"),
        ("resume", run_id, "done"),
        ("input", run_id, "done"),
        ("resume", run_id, "invalid_state"),
        ("cancel", run_id, "done"),
        ("retry", run_id, "done"),
        ("put_agent", "a", "done"),
        ("create_key", key["id"], "done"),
        ("revoke_key", key["id"], "done"),
    ]
    assert {(line["tenant"], line["actor"], line["key_id"]) for line in told} == {
        ("default", "developer", "key_development")
    }
    assert (told[0]["request_id"], told[0]["triggered_by"]) == ("who-asked", "Ada")


async def test_no_secret_enters_the_log(tmp_path: Path) -> None:
    """At its most talkative, of keys, tickets, leases, webhooks' secrets and signed URLs: good ones and bad ones."""
    settings: dict[str, Any] = {"log_level": "debug", "access_log": "all", "ticket_secret": PASSWORD * 2}
    settings |= {"webhook_private": "allow", "webhook_http": "allow"}
    secrets: dict[str, str] = {"webhook": SECRET.removeprefix("whsec_"), "ticket secret": PASSWORD}
    async with serving(tmp_path / "data", **settings) as gateway, gateway.client() as client:
        secrets["development key"] = gateway.key
        secrets["key"] = accepted(await client.post("/v1/keys", json={"scopes": ["runs:read", "work"]}), 201)["key"]
        secrets["ticket"] = accepted(await client.post("/v1/tickets", json={"tenant": True}), 201)["ticket"]
        hooks = [{"url": "http://127.0.0.1:9/x", "secret": SECRET}]
        made = {"agent_id": "a", "mode": "queued", "webhooks": hooks}
        run_id = accepted(await client.post("/v1/runs", json=made), 201)["id"]
        (claimed,) = accepted(await client.post("/v1/claims", json={"queues": ["default"], "wait_s": 10}))["data"]
        secrets["lease"] = lease = claimed["lease"]["token"]
        done = {"events": [{"type": "run.completed", "data": {"output": 1}}]}
        accepted(await client.post(f"/v1/runs/{run_id}/events", json=done, headers={"lease": lease}))
        assert (await client.post(f"/v1/runs/{run_id}/heartbeat", headers={"lease": lease})).status_code == 409
        query = {"ticket": secrets["ticket"]}
        for headers in ({"authorization": f"Bearer {secrets['key']}"}, {"x-api-key": secrets["key"] + "x"}, {}):
            bare = gateway.client(headers=headers)
            async with bare:
                await bare.get("/v1/runs", headers=headers)
                await bare.get(f"/v1/runs/{run_id}/stream", params=query if not headers else {})
        stored = accepted(await client.post("/v1/files", params={"name": "a.txt"}, content=b"a"), 201)
        url = accepted(await client.get(f"/v1/files/{stored['file_id']}"))["url"]
        secrets["signature"] = url.rpartition("=")[2]
        assert (await client.get(url)).status_code == 200
        assert (await client.get(url + "x")).status_code == 403
    # The development key is shown at a start, on purpose: those lines have no time.
    logged = "\n".join(line for line in gateway.log.splitlines() if line[:4].isdigit())
    assert f"/v1/runs/{run_id}" in logged, "it is talkative"
    for name, secret in secrets.items():
        assert len(secret) > 10
        assert secret not in logged, name
