"""Many runs by one request: each stands for itself, in order, and a repeat makes none twice."""

from __future__ import annotations

import asyncio
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
    """A gateway with a tenant of its own, so that the list holds the runs of one test."""
    async with run_gateway(store.url) as running:
        yield running


def queued(number: int, **fields: Any) -> dict[str, Any]:
    """Return a run of a batch."""
    return {"agent_id": "batcher", "mode": "queued", "queue": "batches", "input": number, **fields}


async def post(api: RunningGateway, body: Any, key: str | None = None, **headers: str) -> Any:
    """Create a batch and return the answer's body."""
    headers |= {} if key is None else {"idempotency-key": key}
    return accepted(await api.client.post("/v1/runs/batch", json=body, headers=headers))


def ids_of(told: Any) -> list[str]:
    """Return the ids of the runs that an answer tells of."""
    return [result["run"]["id"] for result in told["results"]]


async def count_runs(api: RunningGateway) -> int:
    """Return how many runs the tenant's list shows."""
    return len(accepted(await api.client.get("/v1/runs", params={"limit": 100}))["data"])


async def test_runs_are_created_in_order_and_found_by_their_batch(api: RunningGateway) -> None:
    """They are listed and claimed as they were named, over more than one round of creating."""
    told = await post(api, {"runs": [queued(number) for number in range(90)]})
    assert (told["total"], told["succeeded"], told["failed"]) == (90, 90, 0)
    assert [(result["index"], result["run"]["input"]) for result in told["results"]] == [(n, n) for n in range(90)]
    params: dict[str, Any] = {"batch_id": told["batch_id"], "limit": 100}
    listed = accepted(await api.client.get("/v1/runs", params=params))["data"]
    assert [run["id"] for run in listed] == ids_of(told)[::-1]
    claims = accepted(await api.client.post("/v1/claims", json={"queues": ["batches"], "max": 90}))["data"]
    assert [claim["run"]["input"] for claim in claims] == list(range(90))


async def test_what_is_wrong_with_one_does_not_stop_the_others(api: RunningGateway) -> None:
    """Each is told as `POST /v1/runs` tells it: shape, mode, size, what it names, who may."""
    runs: list[Any] = [
        queued(0),
        {"mode": "queued"},
        "nonsense",
        queued(3, mode="sideways"),
        queued(4, depends_on=[{"run_id": UNKNOWN}]),
        queued(5, metadata={"a": "x" * 20_000}),
        queued(6, batch_id="another"),
        queued(7, delay_s=1, scheduled_at="2027-01-01T00:00:00Z"),
        queued(8, preset="none"),
        queued(9),
    ]
    told = await post(api, {"runs": runs, "batch_id": "mixed"})
    assert told["batch_id"] == "mixed"
    codes = [result["error"] and result["error"]["code"] for result in told["results"]]
    body, unknown = "invalid_body", "not_found"
    assert codes == [None, body, body, "unsupported_mode", unknown, "too_large", body, body, body, None]
    assert told["results"][1]["error"]["path"] == "$"
    assert told["results"][4]["error"]["path"] == "$.depends_on[0].run_id"
    assert (told["total"], told["succeeded"], told["failed"]) == (10, 2, 8)
    assert await count_runs(api) == 2
    for wrong, result in zip(runs[1:9], told["results"][1:9], strict=True):
        if "batch_id" not in wrong:
            alone = (await api.client.post("/v1/runs", json=wrong)).json()
            assert alone | {"request_id": ""} == result["error"] | {"request_id": ""}


async def test_a_batch_is_refused_whole_where_it_is_none(api: RunningGateway) -> None:
    """None, too many, unknown members, too large: nothing is created."""
    bodies: list[Any] = [{}, {"runs": []}, {"runs": [queued(0)] * 1001}, {"runs": [queued(0)], "more": 1}, {"runs": {}}]
    for body in bodies:
        refused(await api.client.post("/v1/runs/batch", json=body), 422, "invalid_body")
    refused(await api.client.post("/v1/runs/batch", json={"runs": [queued(0)], "batch_id": " "}), 422, "invalid_body")
    large = {"runs": [queued(0, input="x" * 1_000_000)] * 3}
    refused(await api.client.post("/v1/runs/batch", json=large), 413, "too_large")
    refused(await api.client.post("/v1/runs/batch", content=b'{"runs":[{]}'), 400, "bad_request")
    assert await count_runs(api) == 0


async def test_a_repeat_makes_no_run_twice(api: RunningGateway) -> None:
    """The same runs under the same batch, also at once; another list under the key is refused."""
    body = {"runs": [queued(0), {"mode": "queued"}, queued(2)]}
    told = await asyncio.gather(*(post(api, body, "k") for _ in range(5)))
    assert len({json.dumps([t["batch_id"], [r["run"] and r["run"]["id"] for r in t["results"]]]) for t in told}) == 1
    assert await count_runs(api) == 2
    headers = {"idempotency-key": "k"}
    for other in ({"runs": [queued(0)]}, {"runs": body["runs"], "batch_id": "b"}, {"runs": [queued(1), *body["runs"]]}):
        refused(await api.client.post("/v1/runs/batch", json=other, headers=headers), 422, "idempotency_mismatch")
    # A key of a single run, or of a batch, that looks like one derived from it is its own.
    accepted(await api.client.post("/v1/runs", json=queued(0), headers={"idempotency-key": "k 0"}), 201)
    await post(api, {"runs": [queued(0)]}, "k 0")
    assert await count_runs(api) == 4


async def test_a_repeat_goes_on_where_the_first_was_cut(api: RunningGateway) -> None:
    """What could not be created then is, once it can; what was, is the same."""
    parent = await api.create_run()
    body = {"runs": [queued(0), queued(1, parent_run_id=parent["id"])]}
    first = await post(api, body, "cut")
    accepted(await api.client.delete(f"/v1/runs/{first['results'][1]['run']['id']}/idempotency-key"))
    again = await post(api, body, "cut")
    assert ids_of(again)[0] == ids_of(first)[0]
    assert ids_of(again)[1] != ids_of(first)[1]
    assert again["batch_id"] == first["batch_id"]


async def test_a_repeat_may_come_from_another_trace(api: RunningGateway) -> None:
    """A job that is done again has a trace of its own, and asks for the same run, alone or in a batch."""
    traces = [f"00-{letter * 32}-{letter * 16}-01" for letter in "ab"]
    batches = [await post(api, {"runs": [queued(0)]}, "t", traceparent=trace) for trace in traces]
    assert ids_of(batches[0]) == ids_of(batches[1])
    assert batches[0]["results"][0]["run"]["trace_id"] == "a" * 32
    alone = [
        accepted(
            await api.client.post("/v1/runs", json=queued(0), headers={"idempotency-key": "t", "traceparent": trace}),
            201,
        )
        for trace in traces
    ]
    assert alone[0]["id"] == alone[1]["id"]


async def test_secrets_of_webhooks_are_told_once_each(api: RunningGateway) -> None:
    """As in the answer to a single creation."""
    hook = {"url": "https://no-such-name.invalid/", "id": "h"}
    told = await post(api, {"runs": [queued(0, webhooks=[hook]), queued(1)]})
    hooked, plain = (result["run"] for result in told["results"])
    assert hooked["webhooks"][0]["secret"].startswith("whsec_")
    assert "webhooks" not in plain
    assert "webhooks" not in await get_run(api, hooked["id"])


async def test_a_key_for_some_agents_creates_only_theirs(api: RunningGateway) -> None:
    """The others are told so; a key that may not write creates none at all."""
    async with open_client(api, agents=["batcher"]) as client:
        body = {"runs": [queued(0), queued(1, agent_id="other")]}
        told = accepted(await client.post("/v1/runs/batch", json=body))
        assert [result["error"] and result["error"]["code"] for result in told["results"]] == [None, "forbidden"]
    async with open_client(api, scopes=["runs:read"]) as client:
        refused(await client.post("/v1/runs/batch", json={"runs": [queued(2)]}), 403, "forbidden")
    assert await count_runs(api) == 1
