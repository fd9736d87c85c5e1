"""Dialects that permit an action from fewer statuses than the lifecycle does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from gateway.domain.lifecycle import Action, Status
from gateway.domain.run import Run
from gateway.errors import IllegalTransition
from gateway.service.actors import Caller
from gateway.service.narrowing import Permitted
from tests.support.native import get_types
from tests.support.running import RunningGateway

Act = Callable[[RunningGateway, Caller, str, Permitted], Awaitable[Run]]

ACTIONS: dict[str, tuple[str, Act]] = {
    "cancel": (
        "running",
        lambda g, c, i, p: g.gateway.services.control.cancel(c, i, reason=None, force=True, permitted=p),
    ),
    "pause": ("queued", lambda g, c, i, p: g.gateway.services.control.pause(c, i, reason=None, permitted=p)),
    "resume": ("paused", lambda g, c, i, p: g.gateway.services.control.resume(c, i, reason=None, permitted=p)),
    "restart": ("running", lambda g, c, i, p: g.gateway.services.control.restart(c, i, reason=None, permitted=p)),
    "reschedule": (
        "delayed",
        lambda g, c, i, p: g.gateway.services.control.reschedule(
            c, i, scheduled_ms=g.gateway.clock.now_ms() + 60_000, permitted=p
        ),
    ),
    "copy": ("failed", lambda g, c, i, p: g.gateway.services.runs.copy(c, i, Action.RETRY, permitted=p)),
}


@pytest.mark.parametrize("name", ACTIONS)
async def test_a_narrowed_action_is_refused_where_it_would_else_pass(gateway: RunningGateway, name: str) -> None:
    """It names the statuses that are permitted to this caller, changes nothing, and passes from one of them."""
    status, act = ACTIONS[name]
    run = await gateway.run_in(status)
    caller = Caller(await gateway.gateway.access.authenticate(gateway.key, now_ms=gateway.gateway.clock.now_ms()))
    before = await get_types(gateway, run["id"])
    with pytest.raises(IllegalTransition) as refusal:
        await act(gateway, caller, run["id"], frozenset({Status.WAITING, Status.CANCELLED}))
    assert refusal.value.facts["current_status"] == status
    assert status not in refusal.value.facts["permitted"]
    assert await get_types(gateway, run["id"]) == before
    await act(gateway, caller, run["id"], frozenset({Status(status)}))


@pytest.mark.parametrize("name", ACTIONS)
async def test_an_action_may_be_judged_by_the_run_as_it_stands(gateway: RunningGateway, name: str) -> None:
    """What refuses it sees the whole run, at the very change; where it says nothing the action passes."""
    status, act = ACTIONS[name]
    run = await gateway.run_in(status)
    caller = Caller(await gateway.gateway.access.authenticate(gateway.key, now_ms=gateway.gateway.clock.now_ms()))
    before = await get_types(gateway, run["id"])

    def refuse(judged: Run) -> None:
        raise IllegalTransition("Not now.", current_status=str(judged.status), head_seq=judged.head_seq)

    with pytest.raises(IllegalTransition) as refusal:
        await act(gateway, caller, run["id"], refuse)
    assert refusal.value.facts == {"current_status": status, "head_seq": run["head_seq"]}
    assert await get_types(gateway, run["id"]) == before
    await act(gateway, caller, run["id"], lambda judged: None)
