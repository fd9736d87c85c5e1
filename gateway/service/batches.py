"""Many new runs by one request: each stands for itself, and all is safe to repeat."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
from ulid import ULID

from gateway.domain.run import Run
from gateway.errors import GatewayError, StoreUnavailable
from gateway.service.actors import Caller
from gateway.service.new_runs import NewRun
from gateway.service.once import Once
from gateway.service.runs import Planned, Runs

ACTION, ITEM = "batch", "batch-run"
AT_ONCE = 32


class Wish(msgspec.Struct, frozen=True):
    """A run to create, and on whose behalf."""

    new: NewRun
    triggered_by: str | None = None


class Batch(msgspec.Struct, frozen=True):
    """What all runs of a batch are found by, and what came of each: the run, or why there is none."""

    id: str
    results: list[Run | GatewayError]


class Batches:
    """Runs created together; each as by a request of its own, under a key derived from the caller's."""

    def __init__(self, runs: Runs, once: Once) -> None:
        self._runs = runs
        self._once = once

    async def create(self, caller: Caller, wishes: Sequence[Wish | GatewayError], *, batch_id: str | None) -> Batch:
        """Create runs in this order; what fails for one does not stop the others.

        Args:
            wishes: What could not even be read is told as it is.
            batch_id: Made up where none is given.

        Raises:
            IdempotencyMismatch: the caller's key was used for other runs.
            StoreUnavailable: what was created stays, and `outcome` is then `unknown`; under the same key a repeat
                creates the rest.
        """
        asked = [_said(wish) for wish in wishes]
        settled = await self._once.settle(caller, ACTION, [batch_id, asked], batch_id or str(ULID()))
        results: list[Run | GatewayError] = []
        for start in range(0, len(wishes), AT_ONCE):
            some = [_of_batch(wish, settled) for wish in wishes[start : start + AT_ONCE]]
            results += await self._create_some([_for_one(caller, start + n) for n in range(len(some))], some)
            _check_stored(results)
        return Batch(settled, results)

    async def _create_some(
        self, callers: Sequence[Caller], wishes: Sequence[Wish | GatewayError]
    ) -> list[Run | GatewayError]:
        planned = await asyncio.gather(*map(self._plan, callers, wishes))
        return await asyncio.gather(*map(self._carry_out, planned))

    async def _plan(self, caller: Caller, wish: Wish | GatewayError) -> Run | Planned | GatewayError:
        if isinstance(wish, GatewayError):
            return wish
        caller = msgspec.structs.replace(caller, triggered_by=wish.triggered_by)
        try:
            return await self._runs.plan(caller, wish.new, action=ITEM)
        except GatewayError as error:
            return error

    async def _carry_out(self, planned: Run | Planned | GatewayError) -> Run | GatewayError:
        if not isinstance(planned, Planned):
            return planned
        try:
            return await self._runs.carry_out(planned)
        except GatewayError as error:
            return error


def _check_stored(results: Sequence[Run | GatewayError]) -> None:
    """Refuse the whole batch where the store was away for one: of others, something may have been written."""
    failed = [result for result in results if isinstance(result, StoreUnavailable)]
    if not failed:
        return
    in_doubt = any(error.facts["outcome"] != "not_written" for error in failed)
    if in_doubt or any(isinstance(result, Run) for result in results):
        raise StoreUnavailable(failed[0].detail, outcome="unknown") from failed[0]
    raise failed[0]


def _said(wish: Wish | GatewayError) -> object:
    """Return what a repeat of a batch is recognised by."""
    return str(wish) if isinstance(wish, GatewayError) else [msgspec.to_builtins(wish.new), wish.triggered_by]


def _of_batch(wish: Wish | GatewayError, batch_id: str) -> Wish | GatewayError:
    if isinstance(wish, GatewayError):
        return wish
    return msgspec.structs.replace(wish, new=msgspec.structs.replace(wish.new, batch_id=batch_id))


def _for_one(caller: Caller, index: int) -> Caller:
    if caller.idempotency_key is None:
        return caller
    return msgspec.structs.replace(caller, idempotency_key=f"{caller.idempotency_key} {index}")
