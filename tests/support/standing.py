"""Runs in every status that a run can stand in, brought there as callers, workers and time bring them."""

from __future__ import annotations

from typing import Any

from ulid import ULID

from tests.support.native import accepted, act, get_run
from tests.support.running import ASK, COMPLETE, FAIL, LOG, RunningGateway, wait_until
from tests.support.work import claim_one, queue_run, write

SOON_S = 0.05

# What a direct run is created with, and what happens to it then: events, and actions by their names.
_DIRECT: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "delayed": ({"delay_s": 3600}, []),
    "queued": ({}, []),
    "running": ({}, [LOG]),
    "waiting_for_input": ({}, [LOG, ASK]),
    "paused": ({}, [LOG, "pause"]),
    "cancelling": ({}, [LOG, "cancel"]),
    "completed": ({}, [LOG, COMPLETE]),
    "failed": ({}, [LOG, FAIL]),
    "cancelled": ({}, ["cancel"]),
    "timed_out": ({"timeout_s": SOON_S}, [LOG]),
    "expired": ({"queue_expiry_s": SOON_S}, []),
}


async def standing(api: RunningGateway, status: str, **about: Any) -> str:
    """Return the id of a new run that stands in `status`.

    Args:
        about: What else it is created with.
    """
    if status in _DIRECT:
        created, steps = _DIRECT[status]
        run_id: str = (await api.create_run(**created, **about))["id"]
        for step in steps:
            accepted(await (act(api, run_id, step) if isinstance(step, str) else api.append(run_id, step)))
    elif status == "system_failed":
        needed = await standing(api, "failed")
        run_id = (await api.create_run(depends_on=[{"run_id": needed}], **about))["id"]
    else:
        run_id = await _claimed(api, status, about)

    async def stands() -> bool:
        return bool((await get_run(api, run_id))["status"] == status)

    await wait_until(stands)
    return run_id


async def _claimed(api: RunningGateway, status: str, about: dict[str, Any]) -> str:
    queue = f"q{ULID()}"
    policies: dict[str, dict[str, Any]] = {"crashed": {"lease_s": 0.5}, "dead_letter": {"dead_letter": True}}
    run_id = await queue_run(api, queue, **policies.get(status, {}), **about)
    claimed = await claim_one(api, queue)
    if status == "crashed":
        accepted(await write(api, claimed, LOG))
    if status == "dead_letter":
        accepted(await write(api, claimed, FAIL))
    return run_id
