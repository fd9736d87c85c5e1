"""Routes that steer a run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.dialects.native.context import Native, acting, answer, answer_run, run_id_of, to_ms
from gateway.dialects.native.project import dependencies_body
from gateway.dialects.native.wire import Act, Answer, Cancel, DebugMode, Reschedule, Restart
from gateway.domain import access
from gateway.domain.lifecycle import Action
from gateway.domain.run import Run
from gateway.edge import query as q
from gateway.service.actors import Caller


class ControlRoutes:
    """Actions on runs."""

    def __init__(self, native: Native) -> None:
        self._native = native

    def routes(self) -> list[Route]:
        """Return the routes; `{id}:cancel` must come before `{id}`."""
        return [
            Route("/v1/runs/{run_id}:cancel", self.cancel, methods=["POST"]),
            Route("/v1/runs/{run_id}", self.cancel, methods=["DELETE"]),
            Route("/v1/runs/{run_id}/cancel", self.cancel, methods=["POST"]),
            Route("/v1/runs/{run_id}/pause", self.pause, methods=["POST"]),
            Route("/v1/runs/{run_id}/resume", self.resume, methods=["POST"]),
            Route("/v1/runs/{run_id}/restart", self.restart, methods=["POST"]),
            Route("/v1/runs/{run_id}/dlq-replay", self.dlq_replay, methods=["POST"]),
            Route("/v1/runs/{run_id}/debug", self.debug, methods=["POST"]),
            Route("/v1/runs/{run_id}/idempotency-key", self.reset_key, methods=["DELETE"]),
            Route("/v1/runs/{run_id}/dependency-status", self.dependencies, methods=["GET"]),
            Route("/v1/runs/{run_id}/reschedule", self.reschedule, methods=["POST"]),
            Route("/v1/runs/{run_id}/input", self.answer, methods=["POST"]),
        ]

    async def cancel(self, request: Request) -> Response:
        """`POST /v1/runs/{id}/cancel`, `POST /v1/runs/{id}:cancel`, `DELETE /v1/runs/{id}`."""
        caller = await self._native.callers.authenticate(request, access.RUNS_WRITE)
        body = await self._native.body(request, Cancel)
        run = await self._native.control.cancel(
            acting(caller, body.triggered_by), run_id_of(request), reason=body.reason, force=body.force
        )
        return answer_run(run)

    async def pause(self, request: Request) -> Response:
        """`POST /v1/runs/{id}/pause`."""
        control = self._native.control
        return await self._act(request, lambda c, run_id, reason: control.pause(c, run_id, reason=reason))

    async def resume(self, request: Request) -> Response:
        """`POST /v1/runs/{id}/resume`."""
        control = self._native.control
        return await self._act(request, lambda c, run_id, reason: control.resume(c, run_id, reason=reason))

    async def restart(self, request: Request) -> Response:
        """`POST /v1/runs/{id}/restart`: the same run again, as its next attempt."""
        return await self._restart(request, Action.RESTART)

    async def dlq_replay(self, request: Request) -> Response:
        """`POST /v1/runs/{id}/dlq-replay`: a run from the dead letters again, as its first attempt."""
        return await self._restart(request, Action.DLQ_REPLAY)

    async def _restart(self, request: Request, action: Action) -> Response:
        caller = await self._native.callers.authenticate(request, access.RUNS_WRITE)
        body = await self._native.body(request, Restart)
        run = await self._native.control.restart(
            acting(caller, body.triggered_by),
            run_id_of(request),
            reason=body.reason,
            action=action,
            preset=body.preset,
            from_checkpoint=body.from_checkpoint,
        )
        return answer_run(run)

    async def debug(self, request: Request) -> Response:
        """`POST /v1/runs/{id}/debug`: look at a run closely, or no more."""
        caller = await self._native.callers.authenticate(request, access.RUNS_WRITE)
        body = await self._native.body(request, DebugMode)
        caller = acting(caller, body.triggered_by)
        return answer_run(await self._native.control.set_debug_mode(caller, run_id_of(request), body.debug_mode))

    async def reset_key(self, request: Request) -> Response:
        """`DELETE /v1/runs/{id}/idempotency-key`: let the key under which the run was created make another."""
        caller = await self._native.callers.authenticate(request, access.RUNS_WRITE)
        body = await self._native.body(request, Act)
        caller = acting(caller, body.triggered_by)
        return answer_run(await self._native.control.reset_idempotency_key(caller, run_id_of(request)))

    async def dependencies(self, request: Request) -> Response:
        """`GET /v1/runs/{id}/dependency-status`: what the run waits for, and how far that is."""
        caller = await self._native.callers.authenticate(request, access.RUNS_READ)
        q.refuse_unknown(q.parse_query(request.scope["query_string"]), ())
        run = await self._native.runs.get(caller.grant, run_id_of(request))
        return answer(dependencies_body(run, await self._native.runs.dependencies(run)))

    async def _act(self, request: Request, action: Callable[[Caller, str, str | None], Awaitable[Run]]) -> Response:
        caller = await self._native.callers.authenticate(request, access.RUNS_WRITE)
        body = await self._native.body(request, Act)
        return answer_run(await action(acting(caller, body.triggered_by), run_id_of(request), body.reason))

    async def reschedule(self, request: Request) -> Response:
        """`POST /v1/runs/{id}/reschedule`: move the start of a run that has not started."""
        caller = await self._native.callers.authenticate(request, access.RUNS_WRITE)
        body = await self._native.body(request, Reschedule)
        run = await self._native.control.reschedule(
            acting(caller, body.triggered_by), run_id_of(request), scheduled_ms=to_ms(body.scheduled_at) or 0
        )
        return answer_run(run)

    async def answer(self, request: Request) -> Response:
        """`POST /v1/runs/{id}/input`: answer a question; the first valid answer wins."""
        caller = await self._native.callers.authenticate(request, access.RUNS_INPUT)
        body = await self._native.body(request, Answer)
        answered = await self._native.control.answer(
            acting(caller, body.triggered_by),
            run_id_of(request),
            request_id=body.request_id,
            content=body.content,
        )
        return answer({"ok": True, "request_id": answered.request_id, "seq": answered.seq})
