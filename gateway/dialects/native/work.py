"""Routes of workers: claim runs, keep them, give them back."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.dialects.native.context import Native, answer, answer_run, run_id_of
from gateway.dialects.native.paging import PAGING, read_limit, read_name
from gateway.dialects.native.project import at, claim_body, list_body, queue_body
from gateway.dialects.native.wire import Claim, Heartbeat, KeepUp, Release
from gateway.domain import access
from gateway.edge import query as q
from gateway.edge.presence import watch_client
from gateway.errors import InvalidBody


class WorkRoutes:
    """The queue as workers see it."""

    def __init__(self, native: Native) -> None:
        self._native = native

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/v1/claims", self.claim, methods=["POST"]),
            Route("/v1/queues", self.queues, methods=["GET"]),
            Route("/v1/runs/{run_id}/heartbeat", self.heartbeat, methods=["POST"]),
            Route("/v1/runs/{run_id}/release", self.release, methods=["POST"]),
        ]

    async def claim(self, request: Request) -> Response:
        """`POST /v1/claims`: up to `max` runs that are next; waits up to `wait_s` for the first."""
        caller = await self._native.callers.authenticate(request, access.WORK)
        body = await self._native.body(request, Claim)
        async with watch_client(request) as gone:
            claimed = await self._native.work.claim(
                caller, body.queues, most=body.max, wait_s=body.wait_s, worker=body.worker, gone=gone
            )
            if claimed and gone.is_set():
                await self._native.work.give_back(caller, claimed, "the claimer is gone")
        return answer({"data": [claim_body(taken) for taken in claimed]})

    async def queues(self, request: Request) -> Response:
        """`GET /v1/queues`: the queues that ever had a run, by name, and how much each holds."""
        caller = await self._native.callers.authenticate(request, access.RUNS_READ)
        query = q.parse_query(request.scope["query_string"])
        q.refuse_unknown(query, PAGING)
        limit = read_limit(query, self._native.bounds.list_page)
        depths, next_after = await self._native.work.queues(caller.grant, read_name(query), limit)
        return answer(list_body([queue_body(depth) for depth in depths], next_after))

    async def heartbeat(self, request: Request) -> Response:
        """`POST /v1/runs/{id}/heartbeat`: keep the lease, learn what is pending."""
        caller = await self._native.callers.authenticate(request, access.WORK)
        body = await self._native.body(request, KeepUp)
        beat = await self._native.work.heartbeat(
            caller, run_id_of(request), lease=_lease(request, body), attempt=body.attempt, start=body.start
        )
        return answer(
            {
                "status": beat.status,
                "attempt": beat.attempt,
                "lease": {"expires_at": at(beat.expires_ms)},
                "pending": beat.pending,
            }
        )

    async def release(self, request: Request) -> Response:
        """`POST /v1/runs/{id}/release`: give the run back to its queue, or to its question."""
        caller = await self._native.callers.authenticate(request, access.WORK)
        body = await self._native.body(request, Release)
        run = await self._native.work.release(
            caller,
            run_id_of(request),
            lease=_lease(request, body),
            attempt=body.attempt,
            reason=body.reason,
            expected_seq=body.expected_seq,
        )
        return answer_run(run)


def _lease(request: Request, body: Heartbeat) -> str:
    lease = request.headers.get("lease") or body.lease
    if not lease:
        raise InvalidBody("Name the lease, in the Lease header or as lease.", path="$.lease")
    return lease
