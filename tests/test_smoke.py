"""The whole way, once."""

from __future__ import annotations

import pytest

from tests.support.running import COMPLETE, LOG, RunningGateway

pytestmark = pytest.mark.anyio


async def test_a_run_is_created_written_and_read(gateway: RunningGateway) -> None:
    """What is appended is read back in order, and the stream ends with the run."""
    run = await gateway.create_run()
    await gateway.append(run["id"], LOG, LOG)
    await gateway.append(run["id"], COMPLETE)
    stream = await gateway.client.get(f"/v1/runs/{run['id']}/stream")
    assert "event: stream.end" in stream.text
    page = (await gateway.client.get(f"/v1/runs/{run['id']}/events")).json()
    assert [e["seq"] for e in page["data"]] == list(range(1, 7))
    assert page["data"][-1]["type"] == "run.completed"
