"""Routes of the interrupts API."""

from __future__ import annotations

from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from gateway.dialects.interrupts import project, wire
from gateway.domain import access
from gateway.entry.dialect import About, Dialect, Operation
from gateway.entry.requests import answer, read_query
from gateway.entry.services import Services
from gateway.errors import InvalidBody
from gateway.service.actors import Caller, parse_run_id


def dialect(services: Services) -> Dialect:
    """Return the API of agent runs and their interrupts."""
    routes = InterruptRoutes(services)
    return Dialect(
        name=project.NAME,
        title="Interrupts",
        description="Agent runs that are interrupted by questions and resumed with their answers.",
        operations=routes.operations(),
        tell=project.tell,
        refusal=wire.Refusal,
    )


class InterruptRoutes:
    """Agent runs."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def operations(self) -> list[Operation]:
        """Return the operations."""
        answers = {200: wire.AgentRun}
        got = About(query=wire.Include, answers=answers, refusals=(400, 404, 410))
        resumed = About(query=wire.Include, body=wire.Resume, answers=answers, refusals=(400, 404, 409, 410, 413, 422))
        return [
            Operation("GET", "/v1/runs/{id}", self.get, got),
            Operation("POST", "/v1/runs/{id}/resume", self.resume, resumed),
        ]

    async def get(self, request: Request) -> Response:
        """`GET /v1/runs/{id}`: Retrieve an agent run."""
        caller = await self._services.callers.authenticate(request, access.RUNS_READ)
        query = read_query(request, wire.Include)
        return answer(await self._shown(caller, _run_id_of(request), query))

    async def resume(self, request: Request) -> Response:
        """`POST /v1/runs/{id}/resume`: Answer an interrupt, or go on from a pause."""
        caller = await self._services.callers.authenticate(request, None)
        query = read_query(request, wire.Include)
        body = await self._services.json(request, wire.Resume)
        run_id = _run_id_of(request)
        await self._resume(caller, run_id, body)
        return answer(await self._shown(caller, run_id, query))

    async def _resume(self, caller: Caller, run_id: str, body: wire.Resume) -> None:
        control = self._services.control
        if body.interrupt_id is None and body.input is UNSET:
            access.require(caller.grant, access.RUNS_WRITE)
            await control.resume(caller, run_id, reason=None)
            return
        access.require(caller.grant, access.RUNS_INPUT)
        if body.interrupt_id is None or body.input is UNSET:
            missing = "interrupt_id" if body.interrupt_id is None else "input"
            raise InvalidBody("Name the interrupt and give its input.", path=f"$.{missing}")
        await control.answer(caller, run_id, request_id=body.interrupt_id, content=body.input)

    async def _shown(self, caller: Caller, run_id: str, query: wire.Include) -> wire.AgentRun:
        if not query.include:
            return project.agent_run(await self._services.runs.get(caller.grant, run_id))
        taken = await self._services.folds.snapshot(caller.grant, run_id)
        return project.agent_run(taken.run, taken.state.steps)


def _run_id_of(request: Request) -> str:
    return parse_run_id(project.run_id_from(request.path_params["id"]))
