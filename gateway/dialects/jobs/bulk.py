"""Routes that act on many runs at once."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from gateway.dialects.jobs import project, wire
from gateway.dialects.jobs.finding import check_project, filters_of_both
from gateway.dialects.jobs.refusals import cancel_result
from gateway.domain import access
from gateway.domain.lifecycle import Status
from gateway.domain.run import Run
from gateway.entry.dialect import About, Operation
from gateway.entry.lists import fill_list
from gateway.entry.requests import answer, read_query
from gateway.entry.services import Services
from gateway.service.bulk import BulkResult
from gateway.service.listing import Filters

RESULTS_TOLD = 1_000


class BulkRoutes:
    """Many runs at once; each stands for itself."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def operations(self) -> list[Operation]:
        """Return the operations; they come before those of one run."""
        runs = list[wire.JobRun]
        return [
            Operation(
                "POST",
                "/v1/runs/bulk-cancel",
                self.cancel,
                About(body=wire.BulkCancel, answers={200: wire.BulkCancelled}, refusals=[400, 413, 422]),
            ),
            Operation(
                "POST",
                "/v1/runs/bulk-cancel-all",
                self.cancel_all,
                About(
                    query=wire.WhichOfAll,
                    body=wire.CancelAll,
                    answers={200: wire.BulkCancelled},
                    refusals=[400, 413, 422],
                ),
            ),
            Operation(
                "POST",
                "/v1/runs/bulk-replay",
                self.replay,
                About(body=wire.BulkReplay, answers={200: runs}, refusals=[400, 404, 409, 413, 422]),
            ),
            Operation(
                "POST",
                "/v1/runs/bulk-dlq-replay",
                self.dlq_replay,
                About(body=wire.BulkDlqReplay, answers={200: wire.BulkReplayed}, refusals=[400, 404, 409, 413, 422]),
            ),
        ]

    async def cancel(self, request: Request) -> Response:
        """`POST /v1/runs/bulk-cancel`: Cancel multiple runs."""
        caller = await self._services.callers.authenticate(request, access.RUNS_WRITE)
        body = await self._services.body(request, wire.BulkCancel)
        return answer(_told(await self._services.bulk.cancel(caller, body.run_ids, reason=None)))

    async def cancel_all(self, request: Request) -> Response:
        """`POST /v1/runs/bulk-cancel-all`: Cancel all runs matching filters."""
        caller = await self._services.callers.authenticate(request, access.RUNS_WRITE)
        query = read_query(request, wire.WhichOfAll)
        body = await self._services.json(request, wire.CancelAll)
        check_project(caller.grant, query.project_id, body.project_id)
        told, total, failed = list[BulkResult](), 0, 0
        pages = await self._services.bulk.cancel_matching(caller, filters_of_both(query, body), reason=None)
        async for page in pages:
            told += page.results[: RESULTS_TOLD - len(told)]
            total += len(page.results)
            failed += sum(result.error is not None for result in page.results)
        results = [cancel_result(result) for result in told]
        return answer(wire.BulkCancelled(results=results, total=total, canceled=total - failed, failed=failed))

    async def replay(self, request: Request) -> Response:
        """`POST /v1/runs/bulk-replay`: Replay multiple runs by ID."""
        caller = await self._services.callers.authenticate(request, access.RUNS_WRITE)
        body = await self._services.body(request, wire.BulkReplay)
        replayed = _done(await self._services.bulk.replay(caller, body.run_ids))
        return answer([project.run(run) for run in replayed])

    async def dlq_replay(self, request: Request) -> Response:
        """`POST /v1/runs/bulk-dlq-replay`: Bulk replay dead-lettered runs."""
        caller = await self._services.callers.authenticate(request, access.RUNS_WRITE)
        body = await self._services.body(request, wire.BulkDlqReplay)
        check_project(caller.grant, body.project_id)
        named = body.run_ids
        if named is None:
            dead = Filters(statuses=frozenset({Status.DEAD_LETTER}))
            limit = body.limit or wire.RUNS_DEAD
            runs, _rest = await fill_list(self._services, caller.grant, dead, before=None, limit=limit)
            named = [run.id for run in runs]
        asked = {"limit": body.limit} if body.run_ids is None else None
        results = await self._services.bulk.dlq_replay(caller, named, asked=asked)
        # One that nobody named may have left the dead letters since they were listed.
        replayed = [r.run for r in results if r.run is not None] if body.run_ids is None else _done(results)
        return answer(wire.BulkReplayed(replayed=[project.run(run) for run in replayed], count=len(replayed)))


def _told(results: Sequence[BulkResult]) -> wire.BulkCancelled:
    told = [cancel_result(result) for result in results]
    failed = sum(result.error is not None for result in told)
    return wire.BulkCancelled(results=told, total=len(told), canceled=len(told) - failed, failed=failed)


def _done(results: Sequence[BulkResult]) -> list[Run]:
    """Return what came of the runs that could be acted on.

    Raises:
        GatewayError: none of them could; this is why the first could not.
    """
    done = [result.run for result in results if result.run is not None]
    refused = [result.error for result in results if result.error is not None]
    if refused and not done:
        raise refused[0]
    return done
