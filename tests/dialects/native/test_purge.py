"""Removing: an ended run goes whole or in part when it is asked for, and only then."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.native import accepted, act, get_log, get_run, open_client, refused
from tests.support.running import COMPLETE, LOG, RunningGateway

pytestmark = pytest.mark.anyio

LOG_ROUTES = ("/events", "/stream", "/stream/chunks", "/steps", "/usage", "/snapshot", "/state", "/debug-bundle")


async def listed(api: RunningGateway, **params: Any) -> list[str]:
    """Return the ids on the first page of a list."""
    return [run["id"] for run in accepted(await api.client.get("/v1/runs", params=params))["data"]]


async def test_a_purged_run_is_gone(gateway: RunningGateway) -> None:
    """From every route and list; its children stay."""
    run = await gateway.create_run(thread_id="t", tags={"a": "b"}, batch_id="batch")
    child = await gateway.create_run(parent_run_id=run["id"])
    await gateway.append(run["id"], LOG, COMPLETE)
    assert accepted(await act(gateway, run["id"], "purge")) == {"id": run["id"], "purged": True}
    for route in ("", *LOG_ROUTES, "/wait", "/children", "/lineage"):
        refused(await gateway.client.get(f"/v1/runs/{run['id']}{route}"), 404, "not_found")
    for action in ("purge", "cancel", "restart", "retry"):
        refused(await act(gateway, run["id"], action), 404, "not_found")
    refused(await gateway.append(run["id"], LOG), 404, "not_found")
    for filters in ({}, {"thread_id": "t"}, {"tag": "a:b"}, {"batch_id": "batch"}, {"status": "completed"}):
        assert run["id"] not in await listed(gateway, **filters)
    assert await listed(gateway) == [child["id"]]
    assert [r["id"] for r in accepted(await gateway.client.get(f"/v1/runs/{child['id']}/lineage"))["data"]] == [
        child["id"]
    ]


async def test_the_log_can_go_while_the_record_stays(api: RunningGateway) -> None:
    """Log routes answer 410 and say so; the record, and what is known from it, stays."""
    run = await api.run_in("completed")
    kept = accepted(await act(api, run["id"], "purge", keep_record=True))
    assert kept == {**run, "log_expired": True, "first_seq": run["head_seq"] + 1}
    assert await get_run(api, run["id"]) == kept
    for route in LOG_ROUTES:
        refused(await api.client.get(f"/v1/runs/{run['id']}{route}"), 410, "log_expired")
    refused(await api.client.get(f"/v1/runs/{run['id']}", params={"include": "steps"}), 410, "log_expired")
    assert accepted(await api.client.get(f"/v1/runs/{run['id']}/wait"))["status"] == "completed"
    assert run["id"] in await listed(api, status="completed")
    refused(await act(api, run["id"], "purge", through_seq=1), 410, "log_expired")
    accepted(await act(api, run["id"], "purge"))
    refused(await api.client.get(f"/v1/runs/{run['id']}"), 404, "not_found")


async def test_the_beginning_of_a_log_can_go(api: RunningGateway) -> None:
    """Readers from before it are told of the gap; seqs stay what they were."""
    run = await api.create_run()
    await api.append(run["id"], *[LOG] * 10, COMPLETE)
    trimmed = accepted(await act(api, run["id"], "purge", through_seq=6))
    assert (trimmed["first_seq"], trimmed["head_seq"], trimmed["log_expired"]) == (7, 14, False)
    page = accepted(await api.client.get(f"/v1/runs/{run['id']}/events", params={"after_seq": 2}))
    assert page["gap"] == {"requested": 3, "first_seq": 7}
    assert [event["seq"] for event in page["data"]] == list(range(7, 15))
    # Trimming less than is trimmed already changes nothing; trimming all there is leaves an empty log.
    assert accepted(await act(api, run["id"], "purge", through_seq=3)) == trimmed
    assert accepted(await act(api, run["id"], "purge", through_seq=1000))["first_seq"] == 15
    page = accepted(await api.client.get(f"/v1/runs/{run['id']}/events", params={"after_seq": 0}))
    assert (page["data"], page["has_more"], page["gap"]["first_seq"]) == ([], False, 15)


@pytest.mark.parametrize("body", [{"through_seq": 0}, {"through_seq": -1}, {"through_seq": "all"}, {"keep": True}])
async def test_a_bad_purge_removes_nothing(api: RunningGateway, body: dict[str, Any]) -> None:
    """Least of all everything."""
    run = await api.run_in("completed")
    refused(await act(api, run["id"], "purge", **body), 422, "invalid_body")
    assert await get_run(api, run["id"]) == run


async def test_a_purge_needs_the_administrator(api: RunningGateway) -> None:
    """Whoever may write runs may not make them disappear."""
    run = await api.run_in("completed")
    async with open_client(api, scopes=["runs:read", "runs:write", "runs:input", "work"]) as client:
        refused(await client.post(f"/v1/runs/{run['id']}/purge"), 403, "forbidden")


async def test_a_restart_takes_the_expiry_of_the_log_back(api: RunningGateway) -> None:
    """The log goes on where it ended; readers from the beginning are told what is missing."""
    run = await api.run_in("completed")
    accepted(await act(api, run["id"], "purge", keep_record=True))
    restarted = accepted(await act(api, run["id"], "restart"))
    assert (restarted["log_expired"], restarted["first_seq"]) == (False, run["head_seq"] + 1)
    accepted(await api.append(run["id"], LOG, attempt=2))
    page = accepted(await api.client.get(f"/v1/runs/{run['id']}/events"))
    assert page["gap"] == {"requested": 1, "first_seq": run["head_seq"] + 1}
    assert [event["seq"] for event in page["data"]] == list(range(run["head_seq"] + 1, page["head_seq"] + 1))


async def test_purges_and_restarts_at_once_end_in_one_of_the_two(api: RunningGateway) -> None:
    """Either it is gone, and stays gone, or it runs on with its log whole."""
    for _ in range(10):
        run = await api.run_in("completed")
        answers = await asyncio.gather(
            act(api, run["id"], "restart"), act(api, run["id"], "purge"), act(api, run["id"], "restart")
        )
        statuses = [answer.status_code for answer in answers]
        found = await api.client.get(f"/v1/runs/{run['id']}")
        if statuses[1] == 200:
            assert found.status_code == 404
        else:
            refused(answers[1], 409, "invalid_state")
            assert sorted([statuses[0], statuses[2]]) == [200, 409]
            assert (await get_log(api, run["id"]))[0]["seq"] == 1
