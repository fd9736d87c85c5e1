"""Routes that create many runs by one request."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.dialects.native.context import Native, answer
from gateway.dialects.native.creation import new_run
from gateway.dialects.native.project import run_body
from gateway.dialects.native.webhooks import made_hooks
from gateway.dialects.native.wire import CreateRun, NewBatch
from gateway.domain import access
from gateway.domain.run import Run
from gateway.edge.body import decode_json
from gateway.edge.problems import describe_problem, request_id_of
from gateway.entry.requests import check_thread
from gateway.errors import GatewayError, InvalidBody
from gateway.service.batches import Wish


class BatchRoutes:
    """Runs that are created together."""

    def __init__(self, native: Native) -> None:
        self._native = native

    def routes(self) -> list[Route]:
        """Return the routes; they must come before `/v1/runs/{id}`."""
        return [Route("/v1/runs/batch", self.create, methods=["POST"])]

    async def create(self, request: Request) -> Response:
        """`POST /v1/runs/batch`: up to 1,000 runs; what is wrong with one does not stop the others."""
        caller = await self._native.callers.authenticate(request, access.RUNS_WRITE)
        body = await self._native.body(request, NewBatch[msgspec.Raw])
        wishes = [_read(raw, body.batch_id) for raw in body.runs]
        batch = await self._native.batches.create(caller, wishes, batch_id=body.batch_id)
        results = [await self._result(request, index, made) for index, made in enumerate(batch.results)]
        failed = sum(result["error"] is not None for result in results)
        told = {"total": len(results), "succeeded": len(results) - failed, "failed": failed}
        return answer({"batch_id": batch.id, "results": results, **told})

    async def _result(self, request: Request, index: int, made: Run | GatewayError) -> dict[str, Any]:
        if isinstance(made, GatewayError):
            return {"index": index, "run": None, "error": describe_problem(made, request_id_of(request.scope))}
        return {"index": index, "run": run_body(made) | await made_hooks(self._native, made), "error": None}


def _read(raw: msgspec.Raw, batch_id: str | None) -> Wish | GatewayError:
    """Return what one run of a batch is to be, or why it cannot be."""
    try:
        body = decode_json(bytes(raw), CreateRun)
        if body.batch_id not in (None, batch_id):
            raise InvalidBody("batch_id differs from the batch's.", path="$.batch_id")
        check_thread(body.thread_id)
        return Wish(new_run(body, body.thread_id), body.triggered_by)
    except GatewayError as error:
        return error
