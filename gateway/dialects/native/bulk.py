"""Routes that act on many runs at once, and the dead letters."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.dialects.native.context import Native, acting, answer
from gateway.dialects.native.paging import PAGING, read_limit, read_position, write_cursor
from gateway.dialects.native.project import list_body, run_body
from gateway.dialects.native.runs import FILTERS, read_filters
from gateway.dialects.native.wire import BulkCancel, BulkCancelAll, BulkDlqReplay, BulkReplay
from gateway.domain import access
from gateway.domain.lifecycle import Status
from gateway.edge import query as q
from gateway.edge.accepting import wants
from gateway.edge.body import read_json
from gateway.edge.lines import LineResponse
from gateway.edge.problems import describe_problem, request_id_of
from gateway.errors import GatewayError
from gateway.service.bulk import BulkPage, BulkResult
from gateway.service.listing import Filters

Pages = AsyncGenerator[BulkPage, None]

MOST_RUNS = 1_000
"""Runs that one answer tells of; a stream of lines tells of all."""


class BulkRoutes:
    """Many runs at once."""

    def __init__(self, native: Native) -> None:
        self._native = native

    def routes(self) -> list[Route]:
        """Return the routes; they must come before `/v1/runs/{id}`."""
        return [
            Route("/v1/runs/dlq", self.dead_letters, methods=["GET"]),
            Route("/v1/runs/bulk-cancel", self.cancel, methods=["POST"]),
            Route("/v1/runs/bulk-cancel-all", self.cancel_all, methods=["POST"]),
            Route("/v1/runs/bulk-replay", self.replay, methods=["POST"]),
            Route("/v1/runs/bulk-dlq-replay", self.dlq_replay, methods=["POST"]),
        ]

    async def dead_letters(self, request: Request) -> Response:
        """`GET /v1/runs/dlq`: dead-lettered runs, newest first."""
        caller = await self._native.callers.authenticate(request, access.RUNS_READ)
        query = q.parse_query(request.scope["query_string"])
        q.refuse_unknown(query, (*(name for name in FILTERS if name != "status"), *PAGING))
        filters = msgspec.structs.replace(read_filters(query, None), statuses=frozenset({Status.DEAD_LETTER}))
        limit = read_limit(query, self._native.bounds.list_page)
        page = await self._native.listing.runs(caller.grant, filters, before=read_position(query), limit=limit)
        return answer(list_body([run_body(run) for run in page.runs], write_cursor(page.next_before)))

    async def cancel(self, request: Request) -> Response:
        """`POST /v1/runs/bulk-cancel`: these runs."""
        caller = await self._native.callers.authenticate(request, access.RUNS_WRITE)
        body = await self._native.body(request, BulkCancel)
        caller = acting(caller, body.triggered_by)
        results = await self._native.bulk.cancel(caller, body.run_ids, reason=body.reason, force=body.force)
        return answer(_told(request, results))

    async def replay(self, request: Request) -> Response:
        """`POST /v1/runs/bulk-replay`: a new run of each of these."""
        caller = await self._native.callers.authenticate(request, access.RUNS_WRITE)
        body = await self._native.body(request, BulkReplay)
        return answer(_told(request, await self._native.bulk.replay(acting(caller, body.triggered_by), body.run_ids)))

    async def cancel_all(self, request: Request) -> Response:
        """`POST /v1/runs/bulk-cancel-all`: every run that matches the filters of the query and has not ended."""
        caller = await self._native.callers.authenticate(request, access.RUNS_WRITE)
        query = self._query(request)
        body = await read_json(request, BulkCancelAll, limit_bytes=self._native.bounds.body_bytes)
        pages = await self._native.bulk.cancel_matching(
            acting(caller, body.triggered_by),
            _filters(query),
            reason=body.reason,
            force=body.force,
            before=read_position(query),
        )
        return await _answer_pages(request, pages)

    async def dlq_replay(self, request: Request) -> Response:
        """`POST /v1/runs/bulk-dlq-replay`: these dead letters, or every one that matches the filters of the query."""
        caller = await self._native.callers.authenticate(request, access.RUNS_WRITE)
        query = self._query(request)
        body = await read_json(request, BulkDlqReplay, limit_bytes=self._native.bounds.body_bytes)
        caller = acting(caller, body.triggered_by)
        if body.run_ids is not None:
            q.refuse_unknown(query, ())
            return answer(_told(request, await self._native.bulk.dlq_replay(caller, body.run_ids)))
        pages = await self._native.bulk.dlq_replay_matching(caller, _filters(query), before=read_position(query))
        return await _answer_pages(request, pages)

    def _query(self, request: Request) -> q.Query:
        query = q.parse_query(request.scope["query_string"])
        q.refuse_unknown(query, (*FILTERS, "cursor"))
        return query


def _filters(query: q.Query) -> Filters:
    return read_filters(query, None)


async def _answer_pages(request: Request, pages: Pages) -> Response:
    """Tell of all pages as lines where the client takes lines, else of the first thousand runs, and where to go on."""
    if wants(request, "application/x-ndjson"):
        return LineResponse(_lines(request, pages))
    results: list[BulkResult] = []
    async for page in pages:
        results += page.results
        if len(results) >= MOST_RUNS or page.next_before is None:
            cursor = write_cursor(page.next_before)
            return answer(_told(request, results) | {"next_cursor": cursor, "has_more": cursor is not None})
    return answer(_told(request, results) | {"next_cursor": None, "has_more": False})


async def _lines(request: Request, pages: Pages) -> AsyncGenerator[bytes, None]:
    done = {"total": 0, "succeeded": 0, "failed": 0}
    try:
        async for page in pages:
            for result in page.results:
                done["total"] += 1
                done["failed" if result.error else "succeeded"] += 1
                yield _line({"result": _result(request, result), "done": done["total"]})
    except GatewayError as error:
        yield _line({"error": describe_problem(error, request_id_of(request.scope)), **done})
        return
    yield _line(done)


def _line(value: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def _told(request: Request, results: Iterable[BulkResult]) -> dict[str, Any]:
    told = [_result(request, result) for result in results]
    failed = sum(result["error"] is not None for result in told)
    return {"results": told, "total": len(told), "succeeded": len(told) - failed, "failed": failed}


def _result(request: Request, result: BulkResult) -> dict[str, Any]:
    """Return what came of one run; `run_id` is that of the new run where a replay made one."""
    error, run = result.error, result.run
    return {
        "id": result.id,
        "run_id": None if run is None else run.id,
        "status": None if run is None else run.status,
        "error": None if error is None else describe_problem(error, request_id_of(request.scope)),
    }
