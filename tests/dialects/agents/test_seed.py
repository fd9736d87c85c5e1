"""The page's own lines, run as they stand: only the base address, the key and the elided ids are replaced."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.dialects.agents.speaking import RECORD, SUMMARY
from tests.support.native import accepted
from tests.support.processes import GatewayProcess, serving
from tests.support.running import FAIL, LOG

pytestmark = pytest.mark.anyio

AGENT = "agt_01HAKZ..."
KEY = "ak_3f9c2b7d"

LIST = """
curl "https://webhook.olbrain.com/api/agents/agt_01HAKZ.../runs?limit=20&status=failed" \\
  -H "Authorization: Bearer ak_<your-access-key>"
"""
CANCEL = """
curl -X POST "https://webhook.olbrain.com/api/agents/agt_01HAKZ.../runs/run_01HZQ7K9.../cancel?triggered_by=ops-dashboard" \\
  -H "Authorization: Bearer ak_<your-access-key>"
"""  # noqa: E501 - the page's own line
RESPONSE = """
{
  "run_id": "run_01HZQ7K9...",
  "workflow_id": "agt_01HAKZ...",
  "status": "succeeded",
  "started_at": "2026-05-26T11:42:19Z",
  "completed_at": "2026-05-26T11:43:07Z",
  "inputs": { "...": "..." },
  "output_files": [
    {
      "name": "report.pdf",
      "size_bytes": 184320,
      "url": "https://storage.googleapis.com/...",
      "url_expires_at": "2026-05-26T12:00:00Z"
    }
  ]
}
"""
CONTROL = """
POST /api/agents/{agent_id}/runs/{run_id}/cancel
POST /api/agents/{agent_id}/runs/{run_id}/pause
POST /api/agents/{agent_id}/runs/{run_id}/retry
POST /api/agents/{agent_id}/runs/{run_id}/resume
"""


@pytest.fixture(scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory, anyio_backend: object) -> AsyncIterator[GatewayProcess]:
    """A gateway as its operator runs it, with an access key in the form of the page."""
    folder: Path = tmp_path_factory.mktemp("seed")
    async with serving(folder / "data", dev_key=KEY) as gateway:
        yield gateway


@pytest.fixture
async def client(served: GatewayProcess) -> AsyncIterator[httpx.AsyncClient]:
    """A client of it."""
    async with served.client() as client:
        yield client


async def curl(served: GatewayProcess, line: str, *, prefix: str = "", run_id: str = "") -> dict[str, Any]:
    """Run a line of the page and return what it prints."""
    line = line.replace("https://webhook.olbrain.com", served.url + prefix)
    line = line.replace("ak_<your-access-key>", KEY).replace("run_01HZQ7K9...", run_id).replace("\\\n", " ")
    words = [*shlex.split(line), "--silent", "--show-error"]
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    printed, _ = await process.communicate()
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(printed)
    return found


async def make(client: httpx.AsyncClient, *events: tuple[str, Any], agent: str = AGENT) -> str:
    """Create a run of the page's agent, append events, and return its id."""
    body = {"agent_id": agent, "mode": "direct", "input": {"order": "42"}}
    run_id: str = accepted(await client.post("/v1/runs", json=body), 201)["id"]
    for kind, data in events:
        accepted(await client.post(f"/v1/runs/{run_id}/events", json={"type": kind, "data": data}))
    return run_id


@pytest.mark.parametrize("prefix", ["", "/compat/agents"])
async def test_the_list_of_the_page(served: GatewayProcess, client: httpx.AsyncClient, prefix: str) -> None:
    """It shows the failed runs of the agent, as a key of the page's form may see them."""
    failed, _ = await make(client, LOG, FAIL), await make(client, LOG)
    printed = await curl(served, LIST, prefix=prefix)
    assert printed.keys() == {"runs"}
    assert printed["runs"][0]["run_id"] == failed
    assert all(run.keys() == SUMMARY for run in printed["runs"])
    assert {run["status"] for run in printed["runs"]} == {"failed"}


@pytest.mark.parametrize("prefix", ["", "/compat/agents"])
async def test_the_cancel_of_the_page(served: GatewayProcess, client: httpx.AsyncClient, prefix: str) -> None:
    """It cancels the run and attributes that in the run's audit trail; the second time it is refused."""
    run_id = await make(client, LOG)
    printed = await curl(served, CANCEL, prefix=prefix, run_id=run_id)
    assert (printed["run_id"], printed["status"]) == (run_id, "cancelled")
    log = accepted(await client.get(f"/v1/runs/{run_id}/events"))["data"]
    assert log[-1]["data"]["actor"]["triggered_by"] == "ops-dashboard"
    again = await curl(served, CANCEL, prefix=prefix, run_id=run_id)
    assert (again["error"], again["details"]["current_status"]) == ("invalid_state", "cancelled")


async def test_a_record_has_the_fields_of_the_page_in_their_forms(
    served: GatewayProcess, client: httpx.AsyncClient
) -> None:
    """Each has the type that it has in the example; there is nothing beyond it but the step results of its text."""
    run_id = await make(client, LOG)
    path = f"/v1/runs/{run_id}/files"
    accepted(await client.post(path, params={"name": "report.pdf"}, content=b"x" * 184_320), 201)
    accepted(
        await client.post(
            f"/v1/runs/{run_id}/events", json={"events": [{"type": "run.completed", "data": {"output": 1}}]}
        )
    )
    record = accepted(await client.get(f"/api/agents/{AGENT}/runs/{run_id}"))
    example = json.loads(RESPONSE)
    assert record.keys() == RECORD == example.keys() | {"step_results"}
    for name, shown in example.items():
        assert type(record[name]) is type(shown), name
    for name, shown in example["output_files"][0].items():
        assert type(record["output_files"][0][name]) is type(shown), name
    assert (record["workflow_id"], record["status"]) == (AGENT, "succeeded")
    assert (record["output_files"][0]["name"], record["output_files"][0]["size_bytes"]) == ("report.pdf", 184_320)
    for moment in (record["started_at"], record["completed_at"], record["output_files"][0]["url_expires_at"]):
        assert len(moment) == len("2026-05-26T11:42:19Z")
        assert moment.endswith("Z")
    async with httpx.AsyncClient() as nobody:
        assert (await nobody.get(record["output_files"][0]["url"])).content == b"x" * 184_320


@pytest.mark.parametrize("line", CONTROL.strip().splitlines())
async def test_the_control_endpoints_of_the_page(served: GatewayProcess, client: httpx.AsyncClient, line: str) -> None:
    """Each takes an empty body and answers with the run it led to."""
    method, path = line.split()
    action = path.rpartition("/")[2]
    run_id = await make(client, LOG, *([FAIL] if action == "retry" else []))
    if action == "resume":
        accepted(await client.post(f"/v1/runs/{run_id}/pause"))
    answer = await client.request(method, path.format(agent_id=AGENT, run_id=run_id))
    record = accepted(answer, 201 if action == "retry" else 200)
    leads_to = {"cancel": "cancelled", "pause": "paused", "retry": "queued", "resume": "running"}
    assert record["status"] == leads_to[action]


async def test_a_wrong_key_opens_nothing(served: GatewayProcess) -> None:
    """Whatever its form."""
    async with httpx.AsyncClient(base_url=served.url) as nobody:
        for headers in ({}, {"authorization": "Bearer ak_other"}, {"authorization": f"Basic {KEY}"}):
            answer = await nobody.get(f"/api/agents/{AGENT}/runs", headers=headers)
            assert (answer.status_code, answer.json()["error"]) == (401, "unauthenticated")
