"""What callers see of a run's webhooks, and how they have one told again."""

from __future__ import annotations

from gateway.domain.access import Grant
from gateway.domain.hooks import FixedHook
from gateway.errors import NotFound
from gateway.service.actors import Caller
from gateway.service.audit import audits
from gateway.service.once import Once
from gateway.service.runs import Runs
from gateway.store import keys
from gateway.store.clock import StoreClock
from gateway.store.hooks import HookState, HookStore, KeptTry, read_run_hooks
from gateway.store.timers import TimerStore

Pair = tuple[FixedHook, HookState]


class Webhooks:
    """Webhooks of the runs within reach."""

    def __init__(self, runs: Runs, hooks: HookStore, timers: TimerStore, clock: StoreClock, once: Once) -> None:
        self._runs = runs
        self._hooks = hooks
        self._timers = timers
        self._clock = clock
        self._once = once

    async def of_run(self, grant: Grant, run_id: str) -> list[Pair]:
        """Return a run's webhooks, each with how far it has come.

        Raises:
            NotFound: there is no such run for this caller.
        """
        run = await self._runs.get(grant, run_id)
        return await read_run_hooks(self._hooks, run.id)

    async def tries(self, grant: Grant, run_id: str) -> list[KeptTry]:
        """Return the last tries to tell a run's webhooks, newest first."""
        run = await self._runs.get(grant, run_id)
        return await self._hooks.tries(run.id)

    @audits("redeliver")
    async def redeliver(self, caller: Caller, run_id: str, hook_id: str, after_seq: int) -> Pair:
        """Have a webhook told again of everything after a seq, one that was disabled too.

        Raises:
            NotFound: the run has no such webhook.
            InvalidBody: the log does not reach that far.
        """
        hook = await self._find(caller.grant, run_id, hook_id)
        asked = {"run_id": run_id, "hook_id": hook_id, "after_seq": after_seq}
        if await self._once.settled(caller, "redeliver", asked) is None:
            # Armed first: a crash after the rewind would leave nobody to look.
            await self._timers.arm(keys.hook_timer(run_id), self._clock.now_ms())
            await self._hooks.rewind(run_id, hook_id, after_seq)
            await self._timers.arm_now(keys.hook_timer(run_id), self._clock.now_ms())
            await self._once.settle(caller, "redeliver", asked, hook_id)
        (state,) = await self._hooks.states(run_id, [hook_id])
        return hook, state

    async def _find(self, grant: Grant, run_id: str, hook_id: str) -> FixedHook:
        run = await self._runs.get(grant, run_id)
        for hook in await self._hooks.of_run(run.id):
            if hook.id == hook_id:
                return hook
        raise NotFound(f"The run has no webhook {hook_id[:64]}.", run_id=run_id)
