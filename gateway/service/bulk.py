"""One action on many runs: each stands for itself, and all is safe to repeat."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

import msgspec

from gateway.domain import access
from gateway.domain.lifecycle import LIVE, Action, Status
from gateway.domain.run import Run
from gateway.errors import GatewayError, StoreUnavailable
from gateway.service.actors import Caller, parse_run_id
from gateway.service.control import Control
from gateway.service.listing import Filters, Listing
from gateway.service.once import Once
from gateway.service.runs import Runs
from gateway.store.indexes import Position

AT_ONCE = 16
PAGE_RUNS = 100


class BulkResult(msgspec.Struct, frozen=True):
    """What came of one run: the run after it (for a replay the new one), or why not.

    `id` is the run that was named, as it was named.
    """

    id: str
    run: Run | None = None
    error: GatewayError | None = None


class BulkPage(msgspec.Struct, frozen=True):
    """What came of some of the runs that match; `next_before` is where to go on, None at the end."""

    results: list[BulkResult]
    next_before: Position | None


Act = Callable[[Caller, str], Awaitable[Run]]


class Bulk:
    """Actions on many runs; each is changed as by a request of its own, under a key derived from the caller's."""

    def __init__(self, control: Control, runs: Runs, listing: Listing, once: Once) -> None:
        self._once = once
        self._control = control
        self._runs = runs
        self._listing = listing

    async def cancel(
        self, caller: Caller, run_ids: Sequence[str], *, reason: str | None, force: bool = False
    ) -> list[BulkResult]:
        """Cancel each of these runs.

        Raises:
            IdempotencyMismatch: the caller's key was used before for something else, as everywhere here.
        """
        await self._recognise(caller, "bulk-cancel", {"run_ids": run_ids, "reason": reason, "force": force})
        return await self._each(caller, run_ids, self._canceller(reason, force))

    async def replay(self, caller: Caller, run_ids: Sequence[str]) -> list[BulkResult]:
        """Make a new run of each of these; the same ones again under the same idempotency key."""
        await self._recognise(caller, "bulk-replay", {"run_ids": run_ids})
        return await self._each(caller, run_ids, lambda c, run_id: self._runs.copy(c, run_id, Action.REPLAY))

    async def dlq_replay(self, caller: Caller, run_ids: Sequence[str], *, asked: object = None) -> list[BulkResult]:
        """Queue each of these dead-lettered runs again, as its first attempt.

        Args:
            asked: What a repeat is recognised by where the caller did not name the runs; it is then of the same runs
                as the first time, whatever dead letters there are by now.
        """
        if asked is None:
            await self._recognise(caller, "bulk-dlq-replay", {"run_ids": run_ids})
        else:
            kept = await self._once.settle(caller, "bulk-dlq-replay", asked, ",".join(run_ids))
            run_ids = kept.split(",") if kept else []
        return await self._each(caller, run_ids, self._replay_dead)

    async def cancel_matching(
        self,
        caller: Caller,
        filters: Filters,
        *,
        reason: str | None,
        force: bool = False,
        before: Position | None = None,
    ) -> AsyncGenerator[BulkPage, None]:
        """Cancel every run that matches and has not ended, newest first, a page at a time.

        Runs that are created meanwhile are not among them; done again, it takes what is left.
        """
        await self._recognise(caller, "bulk-cancel", {"matching": filters, "reason": reason, "force": force})
        statuses = filters.statuses & LIVE if filters.statuses else LIVE
        return self._pages(caller, filters, statuses, before, self._canceller(reason, force))

    async def dlq_replay_matching(
        self, caller: Caller, filters: Filters, *, before: Position | None = None
    ) -> AsyncGenerator[BulkPage, None]:
        """Queue every dead-lettered run again that matches, newest first, a page at a time."""
        await self._recognise(caller, "bulk-dlq-replay", {"matching": filters})
        return self._pages(caller, filters, {Status.DEAD_LETTER}, before, self._replay_dead)

    async def _recognise(self, caller: Caller, action: str, body: object) -> None:
        """Refuse a key that stands for something else; where a page went on from is no difference."""
        await self._once.settle(caller, action, body, "")

    def _canceller(self, reason: str | None, force: bool) -> Act:
        async def cancel(caller: Caller, run_id: str) -> Run:
            return await self._control.cancel(caller, run_id, reason=reason, force=force)

        return cancel

    async def _replay_dead(self, caller: Caller, run_id: str) -> Run:
        return await self._control.restart(caller, run_id, reason=None, action=Action.DLQ_REPLAY)

    async def _pages(
        self,
        caller: Caller,
        filters: Filters,
        statuses: set[Status] | frozenset[Status],
        before: Position | None,
        act: Act,
    ) -> AsyncGenerator[BulkPage, None]:
        access.require(caller.grant, access.RUNS_WRITE)
        filters = msgspec.structs.replace(filters, statuses=frozenset(statuses))
        while statuses:
            page = await self._listing.runs(caller.grant, filters, before=before, limit=PAGE_RUNS)
            yield BulkPage(await self._each(caller, [run.id for run in page.runs], act), page.next_before)
            before = page.next_before
            if before is None:
                return

    async def _each(self, caller: Caller, run_ids: Sequence[str], act: Act) -> list[BulkResult]:
        """Act on each run, a few at once; a run that is named twice is acted on once and told twice."""
        room = asyncio.Semaphore(AT_ONCE)

        async def one(named: str) -> BulkResult:
            async with room:
                try:
                    run_id = parse_run_id(named)
                    return BulkResult(named, await act(_for_one(caller, run_id), run_id))
                except StoreUnavailable:
                    # What was done stays done, and the whole is repeated.
                    raise
                except GatewayError as error:
                    return BulkResult(named, error=error)

        # An id is the same in small letters.
        distinct = {run_id.upper(): run_id for run_id in run_ids}
        done = dict(zip(distinct, await asyncio.gather(*map(one, distinct.values())), strict=True))
        return [msgspec.structs.replace(done[run_id.upper()], id=run_id) for run_id in run_ids]


def _for_one(caller: Caller, run_id: str) -> Caller:
    if caller.idempotency_key is None:
        return caller
    return msgspec.structs.replace(caller, idempotency_key=f"{caller.idempotency_key} {run_id}")
