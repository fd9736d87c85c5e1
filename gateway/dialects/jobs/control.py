"""Routes that steer one run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.dialects.jobs import project, wire
from gateway.domain import access
from gateway.domain.lifecycle import Action
from gateway.domain.run import Run
from gateway.entry.dialect import About, Operation
from gateway.entry.operations import Handler
from gateway.entry.requests import answer, read_query, run_id_of, to_ms
from gateway.entry.services import Services
from gateway.errors import BadRequest
from gateway.service.actors import Caller

ONE = "/v1/runs/{run_id}"


class ControlRoutes:
    """Actions on a run."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def operations(self) -> list[Operation]:
        """Return the operations."""
        return [
            _act("DELETE", "", self.cancel, {204: None}),
            _act("POST", "/replay", self.replay, {201: wire.JobRun}),
            _act("POST", "/dlq-replay", self.dlq_replay),
            _act("POST", "/pause", self.pause),
            _act("POST", "/resume", self.resume),
            _act("POST", "/restart", self.restart, body=wire.Restart),
            _act("POST", "/reschedule", self.reschedule, body=wire.Reschedule),
            _act("POST", "/debug", self.debug, {204: None}, body=wire.DebugMode),
            # It takes nothing that a repeat could differ in.
            _act("DELETE", "/idempotency-key", self.reset_key, {200: wire.KeyReset}, refusals=(400, 404, 409)),
        ]

    async def cancel(self, request: Request) -> Response:
        """`DELETE /v1/runs/{run_id}`: Cancel a run."""
        control = self._services.control
        await self._done(request, lambda caller, run_id: control.cancel(caller, run_id, reason=None, force=False))
        return Response(status_code=204)

    async def replay(self, request: Request) -> Response:
        """`POST /v1/runs/{run_id}/replay`: Replay a failed run."""
        runs = self._services.runs
        run = await self._done(request, lambda caller, run_id: runs.copy(caller, run_id, Action.REPLAY))
        return answer(project.run(run), 201)

    async def dlq_replay(self, request: Request) -> Response:
        """`POST /v1/runs/{run_id}/dlq-replay`: Replay a dead-lettered run."""
        control = self._services.control
        run = await self._done(
            request, lambda caller, run_id: control.restart(caller, run_id, reason=None, action=Action.DLQ_REPLAY)
        )
        return answer(project.run(run))

    async def pause(self, request: Request) -> Response:
        """`POST /v1/runs/{run_id}/pause`: Pause a managed run."""
        control = self._services.control
        run = await self._done(request, lambda caller, run_id: control.pause(caller, run_id, reason=None))
        return answer(project.run(run))

    async def resume(self, request: Request) -> Response:
        """`POST /v1/runs/{run_id}/resume`: Resume a paused run."""
        control = self._services.control
        run = await self._done(request, lambda caller, run_id: control.resume(caller, run_id, reason=None))
        return answer(project.run(run))

    async def restart(self, request: Request) -> Response:
        """`POST /v1/runs/{run_id}/restart`: Restart a managed run with optional preset override."""
        caller = await self._services.callers.authenticate(request, access.RUNS_WRITE)
        body = await self._services.body(request, wire.Restart)
        if None not in (body.preset, body.machine_preset) and body.preset != body.machine_preset:
            raise BadRequest("preset and machine_preset differ; give one.", path="$.preset")
        preset = body.preset or body.machine_preset
        run = await self._services.control.restart(caller, run_id_of(request), reason=None, preset=preset)
        return answer(project.run(run))

    async def reschedule(self, request: Request) -> Response:
        """`POST /v1/runs/{run_id}/reschedule`: Reschedule a run."""
        caller = await self._services.callers.authenticate(request, access.RUNS_WRITE)
        body = await self._services.body(request, wire.Reschedule)
        scheduled_ms = to_ms(body.scheduled_at) or 0
        run = await self._services.control.reschedule(
            caller, run_id_of(request), scheduled_ms=scheduled_ms, past_is_now=True
        )
        return answer(project.run(run))

    async def debug(self, request: Request) -> Response:
        """`POST /v1/runs/{run_id}/debug`: Enable or disable debug mode."""
        caller = await self._services.callers.authenticate(request, access.RUNS_WRITE)
        body = await self._services.body(request, wire.DebugMode)
        await self._services.control.set_debug_mode(caller, run_id_of(request), body.debug_mode)
        return Response(status_code=204)

    async def reset_key(self, request: Request) -> Response:
        """`DELETE /v1/runs/{run_id}/idempotency-key`: Reset idempotency key for a run."""
        run = await self._done(request, self._services.control.reset_idempotency_key)
        return answer(wire.KeyReset(status="reset", run_id=run.id))

    async def _done(self, request: Request, act: Callable[[Caller, str], Awaitable[Run]]) -> Run:
        """Return the run after an action that takes nothing but its caller."""
        caller = await self._services.callers.authenticate(request, access.RUNS_WRITE)
        read_query(request, wire.Nothing)
        return await act(caller, run_id_of(request))


def _act(
    method: str,
    path: str,
    handle: Handler,
    answers: dict[int, Any] | None = None,
    *,
    body: type[Any] | None = None,
    refusals: tuple[int, ...] = (400, 404, 409, 422),
) -> Operation:
    answers = {200: wire.JobRun} if answers is None else answers
    makes = {"run_id": "/id"} if wire.JobRun in answers.values() else {}
    refused = [*refusals, *([413] if body else [])]
    about = About(query=wire.Nothing, body=body, answers=answers, refusals=refused, makes=makes)
    return Operation(method, ONE + path, handle, about)
