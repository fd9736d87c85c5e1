"""Many runs at once: each stands for itself, nothing is left out, and a repeat does nothing twice."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.native import accepted, get_run, open_client, refused
from tests.support.running import RunningGateway, RunningStore, run_gateway

pytestmark = pytest.mark.anyio

UNKNOWN = "01J00000000000000000000000"


@pytest.fixture
async def api(store: RunningStore, anyio_backend: object) -> AsyncIterator[RunningGateway]:
    """A gateway with a tenant of its own, so that `all` means the runs of one test."""
    async with run_gateway(store.url) as running:
        yield running


async def post(api: RunningGateway, path: str, body: Any = None, key: str | None = None, **params: Any) -> Any:
    """Post to a bulk route and return its answer's body."""
    headers = {} if key is None else {"idempotency-key": key}
    return accepted(await api.client.post(f"/v1/runs/{path}", json=body or {}, params=params, headers=headers))


async def make_dead(api: RunningGateway, agent_id: str = "mortal") -> str:
    """Return a run that ended among the dead letters."""
    accepted(await api.client.put(f"/v1/agents/{agent_id}", json={"dead_letter": True, "queue": agent_id}), 201)
    return await add_dead(api, agent_id)


async def add_dead(api: RunningGateway, agent_id: str = "mortal") -> str:
    """Return one more run that ended among the dead letters."""
    run = accepted(await api.client.post("/v1/runs", json={"agent_id": agent_id, "mode": "queued"}), 201)
    claim = accepted(await api.client.post("/v1/claims", json={"queues": [agent_id]}))["data"][0]
    error = {"type": "run.failed", "data": {"error": {"code": "x", "message": "y"}}}
    headers = {"lease": claim["lease"]["token"]}
    answer = accepted(await api.client.post(f"/v1/runs/{run['id']}/events", json=error, headers=headers))
    assert answer["status"] == "dead_letter"
    run_id: str = run["id"]
    return run_id


async def test_each_named_run_is_cancelled_or_told_why_not(api: RunningGateway) -> None:
    """In the order they were named; one that is named twice, however it is spelt, is told twice."""
    running, done = await api.run_in("running"), await api.run_in("completed")
    queued = await api.create_run()
    named = [queued["id"], done["id"], UNKNOWN, "nonsense", running["id"], queued["id"].lower(), queued["id"]]
    told = await post(api, "bulk-cancel", {"run_ids": named, "reason": "tidy", "force": True})
    assert [result["id"] for result in told["results"]] == named
    codes = [result["error"] and result["error"]["code"] for result in told["results"]]
    assert codes == [None, "invalid_state", "not_found", "not_found", None, None, None]
    assert (told["total"], told["succeeded"], told["failed"]) == (7, 4, 3)
    assert {(await get_run(api, r["id"]))["status"] for r in (running, queued)} == {"cancelled"}
    assert (await get_run(api, done["id"]))["status"] == "completed"


async def test_all_that_match_are_cancelled_over_many_pages(api: RunningGateway) -> None:
    """Whatever their number; runs that do not match, and those that ended, are let alone."""
    mine = [(await api.create_run(tags={"batch": "a"}))["id"] for _ in range(230)]
    other = await api.create_run(tags={"batch": "b"})
    done = await api.run_in("completed")
    told = await post(api, "bulk-cancel-all", {"reason": "r"}, tag="batch:a")
    assert (told["total"], told["succeeded"], told["failed"], told["has_more"]) == (230, 230, 0, False)
    assert sorted(result["id"] for result in told["results"]) == sorted(mine)
    assert (await get_run(api, other["id"]))["status"] == "queued"
    assert (await get_run(api, done["id"]))["status"] == "completed"
    again = await post(api, "bulk-cancel-all", tag="batch:a")
    assert again["total"] == 0


async def test_progress_is_told_line_by_line(api: RunningGateway) -> None:
    """One line a run with how far it is, and the sums at the end."""
    for _ in range(120):
        await api.create_run()
    headers = {"accept": "application/x-ndjson"}
    async with api.client.stream("POST", "/v1/runs/bulk-cancel-all", json={}, headers=headers) as answer:
        assert answer.status_code == 200
        lines = [json.loads(line) async for line in answer.aiter_lines() if line]
    assert [line["done"] for line in lines[:-1]] == list(range(1, 121))
    assert lines[-1] == {"total": 120, "succeeded": 120, "failed": 0}


async def test_a_replay_of_many_makes_new_runs_once(api: RunningGateway) -> None:
    """Under one idempotency key the same runs come back; one that has not ended is told why not."""
    done = [(await api.run_in("completed"))["id"] for _ in range(3)]
    queued = await api.create_run()
    body = {"run_ids": [*done, queued["id"]]}
    first, again = await post(api, "bulk-replay", body, "k"), await post(api, "bulk-replay", body, "k")
    assert [r["run_id"] for r in first["results"]] == [r["run_id"] for r in again["results"]]
    made = [result["run_id"] for result in first["results"][:3]]
    assert len({*made, *done}) == 6
    assert [(await get_run(api, run_id))["replay_of"] for run_id in made] == done
    assert first["results"][3]["error"]["code"] == "invalid_state"


async def test_a_key_stands_for_one_bulk_request(api: RunningGateway) -> None:
    """The same again is answered as before; another body, or other filters, under it is refused and does nothing."""
    ended, queued = await api.run_in("completed"), await api.create_run()
    headers = {"idempotency-key": "k"}

    async def send(path: str, body: Any, status: int, **params: Any) -> None:
        answer = await api.client.post(f"/v1/runs/{path}", json=body, params=params, headers=headers)
        assert answer.status_code == status, answer.text
        if status != 200:
            refused(answer, 422, "idempotency_mismatch")

    await send("bulk-replay", {"run_ids": [ended["id"]]}, 200)
    await send("bulk-replay", {"run_ids": [ended["id"], queued["id"]]}, 422)
    await send("bulk-cancel-all", {}, 200, tag="no:body")
    await send("bulk-cancel-all", {}, 200, tag="no:body")
    await send("bulk-cancel-all", {}, 422)
    await send("bulk-cancel", {"run_ids": [queued["id"]]}, 422)
    await send("bulk-dlq-replay", {"run_ids": [ended["id"]]}, 200)
    await send("bulk-dlq-replay", {}, 422)
    assert (await get_run(api, queued["id"]))["status"] == "queued"


async def test_dead_letters_are_listed_and_come_back_as_their_first_attempt(api: RunningGateway) -> None:
    """The same run, queued again; it is no dead letter any more, and a second replay is refused."""
    dead = await make_dead(api)
    assert [run["id"] for run in accepted(await api.client.get("/v1/runs/dlq"))["data"]] == [dead]
    run = accepted(await api.client.post(f"/v1/runs/{dead}/dlq-replay"))
    assert (run["id"], run["status"], run["attempt"], run["error"]) == (dead, "queued", 1, None)
    refused(await api.client.post(f"/v1/runs/{dead}/dlq-replay"), 409, "invalid_state")
    assert accepted(await api.client.get("/v1/runs/dlq"))["data"] == []
    claim = accepted(await api.client.post("/v1/claims", json={"queues": ["mortal"]}))["data"][0]
    assert (claim["run"]["id"], claim["lease"]["attempt"]) == (dead, 1)


async def test_many_dead_letters_are_replayed_by_name_or_all(api: RunningGateway) -> None:
    """Those that are no dead letters are told; without names all that match come back."""
    dead = [await make_dead(api), await add_dead(api), await add_dead(api)]
    done = await api.run_in("completed")
    told = await post(api, "bulk-dlq-replay", {"run_ids": [dead[0], done["id"]]})
    assert [r["error"] and r["error"]["code"] for r in told["results"]] == [None, "invalid_state"]
    told = await post(api, "bulk-dlq-replay", agent_id="mortal")
    assert sorted(result["id"] for result in told["results"]) == sorted(dead[1:])
    assert {(await get_run(api, run_id))["status"] for run_id in dead} == {"queued"}


async def test_other_tenants_runs_are_out_of_reach(api: RunningGateway) -> None:
    """Named, they are not found; of all, they are none."""
    run = await api.create_run()
    async with open_client(api, tenant="someone-else") as client:
        told = accepted(await client.post("/v1/runs/bulk-cancel", json={"run_ids": [run["id"]]}))
        assert told["results"][0]["error"]["code"] == "not_found"
        assert accepted(await client.post("/v1/runs/bulk-cancel-all", json={}))["total"] == 0
    assert (await get_run(api, run["id"]))["status"] == "queued"
