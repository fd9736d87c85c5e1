"""`Idempotency-Key`: every POST that comes again is answered as the first time, and done once."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from gateway.domain.times import format_time
from tests.support.native import accepted, act, get_log, get_run, get_types, open_client, refused
from tests.support.running import COMPLETE, LOG, RunningGateway, RunningStore, run_gateway, wait_until

pytestmark = pytest.mark.anyio

RUN = {"agent_id": "tester", "mode": "direct", "input": {"a": 1, "b": [1, 2]}}


async def create(client: httpx.AsyncClient, key: str, **body: Any) -> httpx.Response:
    """Create a run under a key."""
    return await client.post("/v1/runs", json={**RUN, **body}, headers={"idempotency-key": key})


async def count_runs(api: RunningGateway) -> int:
    """Return how many runs the tenant's list shows."""
    return len(accepted(await api.client.get("/v1/runs", params={"limit": 100}))["data"])


async def test_a_repeated_create_returns_the_run(gateway: RunningGateway) -> None:
    """The same id, thread and time, and the run as it stands by now; there is one run."""
    first = accepted(await create(gateway.client, "k"), 201)
    assert accepted(await create(gateway.client, "k"), 201) == first
    await gateway.append(first["id"], LOG)
    again = accepted(await create(gateway.client, "k"), 201)
    assert (again["id"], again["thread_id"], again["status"]) == (first["id"], first["thread_id"], "running")
    assert await count_runs(gateway) == 1


async def test_the_order_of_members_does_not_matter(api: RunningGateway) -> None:
    """A client that serialises anew repeats all the same."""
    headers = {"idempotency-key": "order"}
    texts = (
        '{"agent_id":"x","mode":"direct","input":{"a":1,"b":2}}',
        '{"input":{"b":2,"a":1},"mode":"direct","agent_id":"x"}',
    )
    ids = {accepted(await api.client.post("/v1/runs", content=text, headers=headers), 201)["id"] for text in texts}
    assert len(ids) == 1


PROCESS = {"agent_id": "tester", "process_id": "p", "name": "n", "stage": "Draft"}
CREATIONS: dict[str, Any] = {
    "/v1/runs": RUN,
    "/v1/threads/traced/runs": RUN,
    "/compat/threads/v1/threads/traced/runs": {},
    "/runs": PROCESS,
    "/compat/processes/runs": PROCESS,
}
"""Every route that creates a run from a body, and one that it takes."""


@pytest.mark.parametrize("path", CREATIONS)
async def test_a_repeat_under_another_trace_is_a_repeat(api: RunningGateway, path: str) -> None:
    """A client that tries again does so in a span, perhaps in a trace, of its own; the run keeps the first one."""

    async def ask(traceparent: str | None) -> dict[str, Any]:
        told = {} if traceparent is None else {"traceparent": traceparent}
        headers = {"idempotency-key": f"traced {path}", **told}
        return accepted(await api.client.post(path, json=CREATIONS[path], headers=headers), 201)

    first = await ask(f"00-{'a' * 32}-{'b' * 16}-01")
    for traceparent in (f"00-{'a' * 32}-{'c' * 16}-01", f"00-{'d' * 32}-{'b' * 16}-01", None):
        assert await ask(traceparent) == first
    run = await get_run(api, (first.get("id") or first["run_id"]).upper())
    assert run["trace_id"] == "a" * 32


async def test_twenty_creates_at_once_make_one_run(gateway: RunningGateway) -> None:
    """All are told of the same run, with the same thread, and its log begins once."""
    answers = await asyncio.gather(*(create(gateway.client, "race") for _ in range(20)))
    runs = [accepted(answer, 201) for answer in answers]
    assert len({(run["id"], run["thread_id"], run["created_at"]) for run in runs}) == 1
    assert await get_types(gateway, runs[0]["id"]) == ["run.created", "run.queued"]
    assert await count_runs(gateway) == 1
    listed = accepted(await gateway.client.get(f"/v1/threads/{runs[0]['thread_id']}/runs"))["data"]
    assert [run["id"] for run in listed] == [runs[0]["id"]]


async def test_creates_race_over_two_gateways(store: RunningStore) -> None:
    """The reservation is the store's, not a process's."""
    async with run_gateway(store.url) as one, run_gateway(store.url, tenant=one.tenant) as other:
        both = (one.client, other.client)
        answers = await asyncio.gather(*(create(both[n % 2], "k") for n in range(20)))
        assert len({accepted(answer, 201)["id"] for answer in answers}) == 1
        assert await count_runs(one) == 1


async def test_a_key_with_another_body_is_refused(api: RunningGateway) -> None:
    """422, and no second run; another key makes one."""
    first = accepted(await create(api.client, "body"), 201)
    refused(await create(api.client, "body", title="another"), 422, "idempotency_mismatch")
    refused(await create(api.client, "body", thread_id="elsewhere"), 422, "idempotency_mismatch")
    assert accepted(await create(api.client, "body-2"), 201)["id"] != first["id"]


async def test_keys_of_tenants_are_apart(api: RunningGateway) -> None:
    """What one tenant calls a request is nothing to another."""
    first = accepted(await create(api.client, "mine"), 201)
    async with open_client(api, tenant="strangers") as client:
        second = accepted(await create(client, "mine", title="other"), 201)
    assert second["id"] != first["id"]


async def test_a_key_is_for_one_action(api: RunningGateway) -> None:
    """A client that numbers its requests anew for each route is not punished for it."""
    run = accepted(await create(api.client, "1"), 201)
    accepted(await api.append(run["id"], LOG))
    assert accepted(await act(api, run["id"], "pause", "1"))["status"] == "paused"
    assert accepted(await act(api, run["id"], "resume", "1"))["status"] == "running"
    assert accepted(await act(api, run["id"], "cancel", "1", force=True))["status"] == "cancelled"
    assert accepted(await act(api, run["id"], "replay", "1"), 201)["id"] != run["id"]


@pytest.mark.parametrize(
    ("action", "status", "kind"),
    [
        ("cancel", "running", "run.cancel_requested"),
        ("pause", "running", "run.paused"),
        ("resume", "paused", "run.resumed"),
        ("restart", "running", "run.restarted"),
        ("restart", "completed", "run.restarted"),
    ],
)
async def test_a_repeated_action_is_done_once(api: RunningGateway, action: str, status: str, kind: str) -> None:
    """Though the status it left does not permit it a second time; with another body it is refused."""
    run = await api.run_in(status)
    first = accepted(await act(api, run["id"], action, "k", reason="r"))
    assert accepted(await act(api, run["id"], action, "k", reason="r")) == first
    refused(await act(api, run["id"], action, "k", reason="other"), 422, "idempotency_mismatch")
    answers = await asyncio.gather(*(act(api, run["id"], action, "k", reason="r") for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    assert (await get_types(api, run["id"])).count(kind) == 1


async def test_a_repeated_cancel_is_answered_when_the_run_has_ended(api: RunningGateway) -> None:
    """By then it is cancelled, which is what was asked for."""
    run = await api.run_in("running")
    accepted(await act(api, run["id"], "cancel", "k"))
    accepted(await api.append(run["id"], ("run.cancelled", {})))
    assert accepted(await act(api, run["id"], "cancel", "k"))["status"] == "cancelled"
    refused(await act(api, run["id"], "cancel", "other"), 409, "invalid_state")


async def test_a_repeated_reschedule_is_answered_when_its_time_has_passed(api: RunningGateway) -> None:
    """What was in the future when it was asked was right."""
    run = await api.run_in("delayed")
    soon = api.gateway.clock.now_ms() + 800
    body = {"scheduled_at": format_time(soon)}
    accepted(await act(api, run["id"], "reschedule", "k", **body))
    await wait_until(lambda: api.gateway.clock.now_ms() > soon)
    accepted(await act(api, run["id"], "reschedule", "k", **body))
    refused(await act(api, run["id"], "reschedule", **body), 422, "invalid_body")
    assert (await get_types(api, run["id"])).count("run.rescheduled") == 1


@pytest.mark.parametrize("action", ["retry", "replay"])
async def test_a_repeated_copy_is_one_run(api: RunningGateway, action: str) -> None:
    """Also when many ask at once, and when the source has gone on since."""
    run = await api.run_in("failed")
    answers = await asyncio.gather(*(act(api, run["id"], action, f"{action}-k") for _ in range(10)))
    ids = {accepted(answer, 201)["id"] for answer in answers}
    assert len(ids) == 1
    accepted(await act(api, run["id"], "restart"))
    assert {accepted(await act(api, run["id"], action, f"{action}-k"), 201)["id"]} == ids
    another = await api.run_in("failed")
    refused(await act(api, another["id"], action, f"{action}-k"), 422, "idempotency_mismatch")


async def test_a_repeated_ticket_is_the_same_ticket(api: RunningGateway) -> None:
    """Its time of expiry is not put off."""
    run = await api.run_in("running")

    async def make(**body: Any) -> httpx.Response:
        return await api.client.post("/v1/tickets", json=body, headers={"idempotency-key": "ticket"})

    first = accepted(await make(runs=[run["id"]]), 201)
    assert accepted(await make(runs=[run["id"]]), 201) == first
    refused(await make(thread_id="t"), 422, "idempotency_mismatch")


async def test_a_refused_request_does_not_spend_its_key(api: RunningGateway) -> None:
    """Whoever was told what is wrong may put it right under the same key."""
    headers = {"idempotency-key": "spent?"}
    stranger = "01J00000000000000000000000"
    refused(await api.client.post("/v1/tickets", json={"runs": [stranger]}, headers=headers), 404, "not_found")
    accepted(await api.client.post("/v1/tickets", json={"thread_id": "t"}, headers=headers), 201)
    refused(await create(api.client, "spent?", mode="sideways"), 422, "unsupported_mode")
    accepted(await create(api.client, "spent?"), 201)
    run = await api.run_in("running")
    refused(await act(api, run["id"], "resume", "spent?"), 409, "invalid_state")
    accepted(await act(api, run["id"], "pause"))
    accepted(await act(api, run["id"], "resume", "spent?", reason="now it can"))
    refused(await act(api, run["id"], "purge", "spent?"), 409, "invalid_state")
    accepted(await api.append(run["id"], COMPLETE))
    accepted(await act(api, run["id"], "purge", "spent?", keep_record=True))


async def test_a_repeated_purge_is_done_once(api: RunningGateway) -> None:
    """A run that is gone stays gone, and nobody's later log is trimmed by a repeat."""
    gone = await api.run_in("completed")
    first = accepted(await act(api, gone["id"], "purge", "gone"))
    assert accepted(await act(api, gone["id"], "purge", "gone")) == first
    kept = await api.run_in("completed")
    accepted(await act(api, kept["id"], "purge", "kept", keep_record=True))
    refused(await act(api, kept["id"], "purge", "kept"), 422, "idempotency_mismatch")
    accepted(await act(api, kept["id"], "restart"))
    accepted(await act(api, kept["id"], "purge", "kept", keep_record=True))
    accepted(await api.append(kept["id"], LOG, COMPLETE, attempt=2))
    accepted(await act(api, kept["id"], "purge", "kept", keep_record=True))
    assert [event["type"] for event in await get_log(api, kept["id"])][-1] == "run.completed"
    assert (await get_run(api, kept["id"]))["log_expired"] is False


async def test_a_key_says_nothing_of_runs_beyond_reach(api: RunningGateway) -> None:
    """An unknown or foreign run is 404 under any key, however often it is asked."""
    run = await api.run_in("completed")
    async with open_client(api, tenant="strangers") as client:
        for action in ("purge", "cancel", "retry", "replay", "restart", "pause", "resume"):
            for _ in range(2):
                headers = {"idempotency-key": "k"}
                answer = await client.post(f"/v1/runs/{run['id']}/{action}", headers=headers)
                refused(answer, 404, "not_found")


@pytest.mark.parametrize("key", ["", "x" * 257, "with\ttab"])
async def test_a_malformed_key_is_refused(api: RunningGateway, key: str) -> None:
    """Empty, too long or unprintable: before anything is done."""
    refused(await create(api.client, key), 400, "bad_request")
    run = await api.run_in("running")
    refused(await act(api, run["id"], "pause", key), 400, "bad_request")
    assert await get_run(api, run["id"]) == run


async def test_a_key_is_forgotten_after_its_time(store: RunningStore) -> None:
    """Then the same request is a new one."""
    async with run_gateway(store.url, idempotency_s=1) as api:
        first = accepted(await create(api.client, "k"), 201)

        async def another() -> bool:
            return bool(accepted(await create(api.client, "k"), 201)["id"] != first["id"])

        await wait_until(another)
        assert await count_runs(api) == 2
