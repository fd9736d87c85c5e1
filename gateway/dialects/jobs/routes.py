"""The job system's operations on runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.dialects.jobs import project, wire
from gateway.dialects.jobs.bulk import BulkRoutes
from gateway.dialects.jobs.control import ControlRoutes
from gateway.dialects.jobs.events import CHUNKS, EVENTS
from gateway.dialects.jobs.finding import (
    NEXT_CURSOR,
    answer_runs,
    check_project,
    filters_of,
    find_chain,
    position_of,
)
from gateway.dialects.jobs.logs import find_events, newest_events
from gateway.dialects.jobs.refusals import tell
from gateway.domain import access
from gateway.domain.lifecycle import Status
from gateway.edge import query as q
from gateway.entry.dialect import About, Dialect, Frames, Operation
from gateway.entry.lists import fill_list
from gateway.entry.operations import Handler
from gateway.entry.projection import Projection, stream_run
from gateway.entry.requests import answer, read_query, run_id_of
from gateway.entry.services import Services
from gateway.entry.starts import read_start
from gateway.service.actors import Caller
from gateway.service.folds import Snapshot
from gateway.service.listing import Filters

ONE = "/v1/runs/{run_id}"
RUNS = list[wire.JobRun]


def dialect(services: Services) -> Dialect:
    """Return the job system's API over these services."""
    return Dialect(
        name=project.NAME,
        title="Jobs",
        description="Runs of a project's jobs: lists, dead letters, bulk actions, streams, and what their logs say.",
        operations=[
            *BulkRoutes(services).operations(),
            *RunRoutes(services).operations(),
            *ControlRoutes(services).operations(),
        ],
        tell=tell,
        refusal=wire.Refusal,
    )


class RunRoutes:
    """Runs and their logs, to be read."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def operations(self) -> list[Operation]:
        """Return the operations; longer paths first, the dead letters before any one run."""
        return [
            _read("/v1/runs", self.find, RUNS, wire.FindRuns, logged=False),
            _read("/v1/runs/dlq", self.find_dead, RUNS, wire.FindDead, logged=False),
            _read(f"{ONE}/stream/chunks", self.chunks, Frames(wire.Chunk), wire.Follow),
            _read(f"{ONE}/stream", self.stream, Frames(wire.RunEvent), wire.Follow),
            _read(f"{ONE}/children", self.children, RUNS, wire.FindChildren, logged=False),
            _read(f"{ONE}/lineage", self.lineage, RUNS, logged=False),
            _read(f"{ONE}/events", self.events, list[wire.RunEvent], wire.FindEvents),
            _read(f"{ONE}/checkpoints", self.checkpoints, list[wire.Checkpoint]),
            _read(f"{ONE}/usage", self.usage, list[wire.Usage]),
            _read(f"{ONE}/tool-calls", self.tool_calls, list[wire.ToolCall]),
            _read(f"{ONE}/outputs", self.outputs, list[wire.Output]),
            _read(f"{ONE}/debug-bundle", self.debug_bundle, wire.DebugBundle),
            _read(f"{ONE}/dependency-status", self.dependency_status, wire.DependencyStatus, logged=False),
            _read(f"{ONE}/state", self.state, wire.RunState),
            _read(ONE, self.get, wire.JobRun, logged=False),
        ]

    async def find(self, request: Request) -> Response:
        """`GET /v1/runs`: List runs."""
        caller = await self._services.callers.authenticate(request, access.RUNS_READ)
        query = read_query(request, wire.FindRuns)
        return await self._find(caller, query, project.WORDS.select(*query.status or ()))

    async def find_dead(self, request: Request) -> Response:
        """`GET /v1/runs/dlq`: List dead-lettered runs."""
        caller = await self._services.callers.authenticate(request, access.RUNS_READ)
        query = read_query(request, wire.FindDead)
        return await self._find(caller, query, frozenset({Status.DEAD_LETTER}))

    async def _find(self, caller: Caller, query: wire.FindDead, statuses: frozenset[Status]) -> Response:
        check_project(caller.grant, query.project_id)
        filters, before = filters_of(query, statuses), position_of(query.cursor)
        return answer_runs(*await fill_list(self._services, caller.grant, filters, before=before, limit=query.limit))

    async def get(self, request: Request) -> Response:
        """`GET /v1/runs/{run_id}`: Get a run."""
        caller = await self._services.callers.authenticate(request, access.RUNS_READ)
        read_query(request, wire.Nothing)
        return answer(project.run(await self._services.runs.get(caller.grant, run_id_of(request))))

    async def children(self, request: Request) -> Response:
        """`GET /v1/runs/{run_id}/children`: List child runs."""
        caller = await self._services.callers.authenticate(request, access.RUNS_READ)
        query = read_query(request, wire.FindChildren)
        run = await self._services.runs.get(caller.grant, run_id_of(request))
        filters, before = Filters(parent_run_id=run.id), position_of(query.cursor)
        return answer_runs(*await fill_list(self._services, caller.grant, filters, before=before, limit=query.limit))

    async def lineage(self, request: Request) -> Response:
        """`GET /v1/runs/{run_id}/lineage`: List run continuation lineage."""
        caller = await self._services.callers.authenticate(request, access.RUNS_READ)
        read_query(request, wire.Nothing)
        return answer_runs(await find_chain(self._services, caller.grant, run_id_of(request)), None)

    async def events(self, request: Request) -> Response:
        """`GET /v1/runs/{run_id}/events`: List run events."""
        caller = await self._services.callers.authenticate(request, access.RUNS_READ)
        query = read_query(request, wire.FindEvents)
        events, rest = await find_events(self._services, caller.grant, run_id_of(request), query)
        response = answer(events)
        if rest is not None:
            response.headers[NEXT_CURSOR] = rest
        return response

    async def stream(self, request: Request) -> Response:
        """`GET /v1/runs/{run_id}/stream`: SSE event stream."""
        return await self._stream(request, EVENTS)

    async def chunks(self, request: Request) -> Response:
        """`GET /v1/runs/{run_id}/stream/chunks`: SSE stream of LLM chunks."""
        return await self._stream(request, CHUNKS)

    async def _stream(self, request: Request, projection: Projection) -> Response:
        read_query(request, wire.Follow)
        query = q.parse_query(request.scope["query_string"])
        start = read_start(query, request.headers.get("last-event-id"))
        return await stream_run(self._services, request, run_id_of(request), start, projection)

    async def checkpoints(self, request: Request) -> Response:
        """`GET /v1/runs/{run_id}/checkpoints`: List run checkpoints."""
        return await self._show(request, project.checkpoints)

    async def usage(self, request: Request) -> Response:
        """`GET /v1/runs/{run_id}/usage`: List run AI model usage."""
        return await self._show(request, project.usage)

    async def tool_calls(self, request: Request) -> Response:
        """`GET /v1/runs/{run_id}/tool-calls`: List run tool calls."""
        return await self._show(request, project.tool_calls)

    async def outputs(self, request: Request) -> Response:
        """`GET /v1/runs/{run_id}/outputs`: List run structured outputs."""
        return await self._show(request, project.outputs)

    async def state(self, request: Request) -> Response:
        """`GET /v1/runs/{run_id}/state`: List run state."""
        return await self._show(request, project.state)

    async def _show(self, request: Request, shown: Callable[[Snapshot], Any]) -> Response:
        """Return what a run's log folds to."""
        caller = await self._services.callers.authenticate(request, access.RUNS_READ)
        read_query(request, wire.Nothing)
        return answer(shown(await self._services.folds.snapshot(caller.grant, run_id_of(request))))

    async def debug_bundle(self, request: Request) -> Response:
        """`GET /v1/runs/{run_id}/debug-bundle`: Get debug bundle."""
        caller = await self._services.callers.authenticate(request, access.RUNS_READ)
        read_query(request, wire.Nothing)
        events = await newest_events(self._services, caller.grant, run_id_of(request))
        # The fold is shared, and shown before anything else is waited for.
        return answer(project.bundle(await self._services.folds.snapshot(caller.grant, run_id_of(request)), events))

    async def dependency_status(self, request: Request) -> Response:
        """`GET /v1/runs/{run_id}/dependency-status`: Get dependency status for a run."""
        caller = await self._services.callers.authenticate(request, access.RUNS_READ)
        read_query(request, wire.Nothing)
        run = await self._services.runs.get(caller.grant, run_id_of(request))
        return answer(project.dependency_status(run, await self._services.runs.dependencies(run)))


def _read(
    path: str, handle: Handler, answered: Any, query: type[Any] = wire.Nothing, *, logged: bool = True
) -> Operation:
    """Return a GET.

    Args:
        logged: Whether it is answered from the run's log, which may be gone before the run is.
    """
    answers = {200: answered, 204: None} if isinstance(answered, Frames) else {200: answered}
    # Of the lists, those that hold a run for sure wherever there is one.
    first = {"run_id": "/0/id"} if path in ("/v1/runs", f"{ONE}/lineage") else {}
    makes = {"run_id": "/id"} if answered is wire.JobRun else first
    refusals = [400, *([404] if "{" in path else []), *([410] if logged else [])]
    tells = {NEXT_CURSOR: "Where the list goes on, as `cursor` takes it; left out at its end."}
    pages = "cursor" in query.__struct_fields__
    about = About(query=query, answers=answers, refusals=refusals, makes=makes, tells=tells if pages else {})
    return Operation("GET", path, handle, about)
