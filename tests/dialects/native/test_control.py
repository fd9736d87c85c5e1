"""Steering: who asked for it is in the log, the holder learns of it, and time ends what it does not confirm."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.support.native import accepted, act, ask, get_log, get_run, get_types, open_client, refused
from tests.support.running import COMPLETE, LOG, RunningGateway, RunningStore, run_gateway, wait_until

pytestmark = pytest.mark.anyio

ACTIONS = {
    "cancel": ("running", "run.cancel_requested"),
    "pause": ("running", "run.paused"),
    "resume": ("paused", "run.resumed"),
    "restart": ("completed", "run.restarted"),
}


def moment(text: str) -> datetime:
    """Return an API time."""
    return datetime.fromisoformat(text)


@pytest.mark.parametrize("action", ACTIONS)
async def test_an_action_leaves_who_and_why_in_the_log(api: RunningGateway, action: str) -> None:
    """The key's principal, the words it gave for itself and its reason are in the event."""
    status, kind = ACTIONS[action]
    run = await api.run_in(status)
    accepted(await act(api, run["id"], action, reason="too loud", triggered_by="ada@example.org"))
    event = (await get_log(api, run["id"]))[-1]
    assert event["type"] == kind
    assert event["data"]["reason"] == "too loud"
    actor = event["data"]["actor"]
    assert (actor["kind"], actor["name"], actor["triggered_by"]) == ("key", "test", "ada@example.org")


@pytest.mark.parametrize("spelling", ["post", "colon", "delete"])
async def test_cancel_has_three_spellings(api: RunningGateway, spelling: str) -> None:
    """They mean the same, and each takes a reason."""
    run = await api.run_in("running")
    path = f"/v1/runs/{run['id']}"
    method, path = {
        "post": ("POST", f"{path}/cancel"),
        "colon": ("POST", f"{path}:cancel"),
        "delete": ("DELETE", path),
    }[spelling]
    answer = await api.client.request(method, path, json={"reason": "enough"})
    assert accepted(answer)["status"] == "cancelling"
    assert (await get_log(api, run["id"]))[-1]["data"]["reason"] == "enough"


async def test_an_action_needs_no_body(api: RunningGateway) -> None:
    """Everything in it has a default."""
    for action, (status, _) in ACTIONS.items():
        run = await api.run_in(status)
        assert (await api.client.post(f"/v1/runs/{run['id']}/{action}")).status_code == 200


async def test_the_reply_is_the_run_as_it_can_be_read(api: RunningGateway) -> None:
    """What an action answers is what a read answers after it."""
    for action, (status, _) in ACTIONS.items():
        run = await api.run_in(status)
        assert accepted(await act(api, run["id"], action)) == await get_run(api, run["id"]), action


async def test_a_cancel_waits_for_the_holder_until_its_deadline(api: RunningGateway) -> None:
    """The deadline is in the event and the record; the holder's confirmation ends it at once."""
    run = await api.run_in("running")
    cancelling = accepted(await act(api, run["id"], "cancel"))
    (request,) = [e for e in await get_log(api, run["id"]) if e["type"] == "run.cancel_requested"]
    assert request["data"]["deadline_at"] == cancelling["cancel_deadline_at"]
    grace = moment(cancelling["cancel_deadline_at"]) - moment(request["created_at"])
    assert grace == timedelta(seconds=10)
    accepted(await api.append(run["id"], ("run.cancelled", {"reason": "cleaned up"})))
    cancelled = await get_run(api, run["id"])
    assert (cancelled["status"], cancelled["cancel_deadline_at"]) == ("cancelled", None)


async def test_a_second_cancel_changes_nothing_but_a_forced_one_ends_it(api: RunningGateway) -> None:
    """The grace is not given twice, and can be taken back."""
    run = await api.run_in("running")
    first = accepted(await act(api, run["id"], "cancel"))
    assert accepted(await act(api, run["id"], "cancel", reason="again")) == first
    forced = accepted(await act(api, run["id"], "cancel", force=True, reason="now"))
    assert forced["status"] == "cancelled"
    assert (await get_types(api, run["id"]))[-2:] == ["run.cancel_requested", "run.cancelled"]


async def test_a_forced_cancel_skips_the_grace(api: RunningGateway) -> None:
    """A held run ends at once, and its writer learns so."""
    run = await api.run_in("waiting_for_input")
    assert accepted(await act(api, run["id"], "cancel", force=True))["status"] == "cancelled"
    assert (await get_types(api, run["id"]))[-2:] == ["run.input_closed", "run.cancelled"]
    refused(await api.append(run["id"], LOG), 409, "invalid_state")


async def test_twenty_cancels_at_once_are_one(api: RunningGateway) -> None:
    """All are told that it is being cancelled; the log has one request."""
    run = await api.run_in("running")
    answers = await asyncio.gather(*(act(api, run["id"], "cancel") for _ in range(20)))
    assert {accepted(answer)["status"] for answer in answers} == {"cancelling"}
    assert (await get_types(api, run["id"])).count("run.cancel_requested") == 1


async def test_cancels_race_with_the_end_and_both_sides_agree(api: RunningGateway) -> None:
    """Whatever order they fall in, each is either done or refused as coming too late."""
    for _ in range(8):
        run = await api.run_in("running")
        cancel, complete = await asyncio.gather(act(api, run["id"], "cancel"), api.append(run["id"], COMPLETE))
        assert accepted(complete)["status"] == "completed"
        if cancel.status_code == 409:
            assert refused(cancel, 409, "invalid_state")["current_status"] == "completed"
        assert (await get_types(api, run["id"]))[-1] == "run.completed"


async def test_pauses_and_resumes_at_once_leave_a_consistent_run(api: RunningGateway) -> None:
    """Every one that is told 200 has its event; status is what the last of them says."""
    run = await api.run_in("running")
    answers = await asyncio.gather(*(act(api, run["id"], ("pause", "resume")[n % 2]) for n in range(20)))
    counted = Counter(answer.status_code for answer in answers)
    assert counted.keys() <= {200, 409}
    turns = [kind for kind in await get_types(api, run["id"]) if kind in ("run.paused", "run.resumed")]
    assert len(turns) == counted[200]
    assert turns == ["run.paused", "run.resumed"] * (len(turns) // 2) + ["run.paused"] * (len(turns) % 2)
    assert (await get_run(api, run["id"]))["status"] == ("paused" if len(turns) % 2 else "running")


async def test_a_paused_run_resumes_to_where_it_was(api: RunningGateway) -> None:
    """A run that was never started waits for its start again, within a new deadline."""
    run = await api.create_run()
    accepted(await act(api, run["id"], "pause"))
    assert (await get_run(api, run["id"]))["expires_at"] is None
    resumed = accepted(await act(api, run["id"], "resume"))
    assert (resumed["status"], resumed["expires_at"] >= run["expires_at"]) == ("queued", True)


async def test_resuming_a_run_that_waits_points_to_its_questions(api: RunningGateway) -> None:
    """It needs an answer, not a resume."""
    run = await api.create_run()
    request_id = await ask(api, run["id"])
    assert refused(await act(api, run["id"], "resume"), 409, "input_required")["request_ids"] == [request_id]


async def test_a_rescheduled_run_is_delayed_until_then(api: RunningGateway) -> None:
    """A queued run goes back, a delayed one moves; the times are in the record and the event."""
    for status in ("queued", "delayed"):
        run = await api.run_in(status)
        at = "2027-02-03T04:05:06.789Z"
        moved = accepted(await act(api, run["id"], "reschedule", scheduled_at="2027-02-03T05:05:06.789+01:00"))
        assert (moved["status"], moved["scheduled_at"], moved["expires_at"]) == ("delayed", at, None)
        event = (await get_log(api, run["id"]))[-1]
        assert (event["type"], event["data"]["scheduled_at"]) == ("run.rescheduled", at)
        refused(await api.append(run["id"], LOG), 409, "invalid_state")


@pytest.mark.parametrize(
    "when", ["2020-01-01T00:00:00Z", "2027-01-01", "2027-01-01T00:00:00", "9999-12-31T23:59:59-12:00", 5, None, ""]
)
async def test_a_run_is_not_rescheduled_to_a_time_that_is_none(api: RunningGateway, when: Any) -> None:
    """The past, a time without an offset, what no calendar has: refused, nothing moved."""
    run = await api.run_in("delayed")
    refused(await act(api, run["id"], "reschedule", scheduled_at=when), 422, "invalid_body")
    assert await get_run(api, run["id"]) == run


async def test_a_restart_takes_a_running_run_from_its_writer(api: RunningGateway) -> None:
    """The next append that names its attempt is fenced; one that names none starts the next."""
    run = await api.run_in("running")
    restarted = accepted(await act(api, run["id"], "restart"))
    assert (restarted["status"], restarted["attempt"]) == ("queued", 2)
    refused(await api.append(run["id"], COMPLETE, attempt=1), 409, "fenced")
    assert accepted(await api.append(run["id"], LOG, attempt=2))["status"] == "running"
    # `started_at` is when the run was first started.
    assert (await get_run(api, run["id"]))["started_at"] == run["started_at"]


async def test_control_needs_the_scope_to_write(api: RunningGateway) -> None:
    """Neither a reader nor one who may only answer steers a run."""
    run = await api.run_in("running")
    async with open_client(api, scopes=["runs:read", "runs:input", "work"]) as client:
        for action in ("cancel", "pause", "resume", "restart", "retry", "replay", "reschedule"):
            body = {"scheduled_at": "2027-01-01T00:00:00Z"} if action == "reschedule" else {}
            answer = await client.post(f"/v1/runs/{run['id']}/{action}", json=body)
            assert refused(answer, 403, "forbidden")["required"] == "runs:write"
        refused(await client.delete(f"/v1/runs/{run['id']}"), 403, "forbidden")
    assert await get_run(api, run["id"]) == run


async def test_control_reaches_no_run_beyond_the_key(api: RunningGateway) -> None:
    """Another tenant's run, or another agent's, is not there; that holds under a known idempotency key too."""
    run = await api.run_in("running")
    path = f"/v1/runs/{run['id']}/pause"
    accepted(await act(api, run["id"], "pause", "shared-key"))
    paused = await get_run(api, run["id"])
    strangers: list[dict[str, Any]] = [{"tenant": "strangers"}, {"agents": ["somebody-else"]}]
    for stranger in strangers:
        async with open_client(api, **stranger) as client:
            for headers in ({}, {"idempotency-key": "shared-key"}):
                refused(await client.post(path, headers=headers), 404, "not_found")
    assert await get_run(api, run["id"]) == paused


async def test_two_gateways_agree_on_a_run(store: RunningStore) -> None:
    """An action through one is seen and continued through the other at once."""
    async with run_gateway(store.url) as one, run_gateway(store.url, tenant=one.tenant) as other:
        run = await one.create_run()
        accepted(await other.append(run["id"], LOG))
        accepted(await act(one, run["id"], "pause"))
        assert accepted(await other.append(run["id"], LOG))["status"] == "paused"
        both = (one, other)
        await asyncio.gather(*(act(both[n % 2], run["id"], "resume", reason=str(n)) for n in range(10)))
        assert (await get_types(one, run["id"])).count("run.resumed") == 1

        async def seen() -> bool:
            return bool((await get_run(other, run["id"]))["status"] == "running")

        await wait_until(seen)
