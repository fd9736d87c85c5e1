"""Every API held against its own description by requests that were made up from it, good ones and bad ones."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from gateway.app import DIALECTS
from tests.support.fuzz_hooks import AGENT, RUNS
from tests.support.native import accepted
from tests.support.processes import GatewayProcess
from tests.support.running import ASK, COMPLETE, FAIL, LOG

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

CASES = 3
SEED = 1
"""The same requests each time: what is let in must not depend on the day."""

ROOT = Path(__file__).parents[2]
PLACES = ["", *(f"/compat/{name}" for name in DIALECTS)]
# What no schema can say, since it is about several members at once or about the run: a good shape is refused then.
TOGETHER = (
    "/v1/runs",
    "/v1/threads/{thread_id}/runs",
    "/v1/runs/dlq",
    "/v1/runs/bulk-cancel-all",
    "/v1/runs/bulk-dlq-replay",
    "/v1/runs/{run_id}/events",
    "/v1/runs/{run_id}/heartbeat",
    "/v1/runs/{run_id}/release",
    "/v1/runs/{run_id}/reschedule",
    "/v1/runs/{run_id}/restart",
    "/v1/runs/{run_id}/dlq-replay",
    "/v1/runs/{run_id}/input",
    "/v1/runs/{run_id}/files",
    "/v1/files",
    "/v1/files/{file_id}/content",
    "/v1/agents/{agent_id}",
    "/v1/schedules/{schedule_id}",
    "/v1/runs/{id}/resume",
    "/v1/tickets",
    "/runs",
)
# To delete a run, or a key, is to end it: its record can be looked at as before.
UNMEANT = "use_after_free"
OPERATION = """
[[operations]]
include-path = "{path}"
checks.positive_data_acceptance.expected-statuses = ["2xx", 401, 403, 404, 409, 410, 400, 416, 422]
"""
# A batch is taken whatever is wrong with one of its runs: that is told of the one.
EACH_BY_ITSELF = """
[[operations]]
include-path = "/v1/runs/batch"
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 401, 403, 422]
checks.negative_data_rejection.expected-statuses = [200, "4xx"]
"""
CONFIG = """
hooks = "tests.support.fuzz_hooks"
checks.positive_data_acceptance.expected-statuses = ["2xx", 401, 403, 404, 409, 410]
[auth.openapi]
bearer = {{ bearer = "{key}" }}
key = {{ api_key = "{key}" }}
"""


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory, anyio_backend: object) -> AsyncIterator[GatewayProcess]:
    """A gateway in a process of its own: the fuzzer is one, too."""
    process = GatewayProcess(tmp_path_factory.mktemp("fuzz") / "data", log_level="warning")
    await process.start()
    yield process
    process.clean_up()


async def make_runs(server: GatewayProcess) -> list[str]:
    """Return runs in several states, for operations to act on."""
    made = []
    async with server.client() as client:
        for steps in ([], [LOG, ASK], [LOG, COMPLETE], [LOG, FAIL]):
            run_id = accepted(await client.post("/v1/runs", json={"agent_id": AGENT, "mode": "direct"}), 201)["id"]
            events: list[dict[str, Any]] = [{"type": kind, "data": data} for kind, data in steps]
            if events:
                accepted(await client.post(f"/v1/runs/{run_id}/events", json={"events": events}))
            made.append(run_id)
    return made


def fuzz(server: GatewayProcess, place: str, runs: Iterable[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the fuzzer over one description: all of its checks, in all of its ways."""
    paths = httpx.get(f"{server.url}{place}/openapi.json").json()["paths"]
    refusing = [OPERATION.format(path=path) for path in TOGETHER if path in paths]
    config = folder / "schemathesis.toml"
    each = EACH_BY_ITSELF if "/v1/runs/batch" in paths else ""
    config.write_text(CONFIG.format(key=server.key) + "".join(refusing) + each)
    arguments = ["-m", "schemathesis.cli", "--config-file", str(config), "run", f"{server.url}{place}/openapi.json"]
    arguments += ["--checks", "all", "--exclude-checks", UNMEANT, "-n", str(CASES), "--seed", str(SEED)]
    arguments += ["--request-timeout", "20", "--suppress-health-check", "all", "--no-color"]
    for path in filter(lambda path: only_streams(paths[path]), paths):
        arguments += ["--exclude-path", path]
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), RUNS: ",".join(runs), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def only_streams(methods: dict[str, Any]) -> bool:
    """Whether a path does nothing but stream: that does not end while its run goes on, and has tests of its own."""
    contents = [each["responses"].get("200", {}).get("content", {}) for each in methods.values()]
    return all(list(content) == ["text/event-stream"] for content in contents)


@pytest.mark.parametrize("place", PLACES)
async def test_an_api_keeps_to_its_description(server: GatewayProcess, place: str, tmp_path: Path) -> None:
    """No 5xx, no undocumented answer, nothing bad let in, nothing good kept out, also step after step."""
    runs = await make_runs(server)
    done = await anyio.to_thread.run_sync(fuzz, server, place, runs, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in server.log
