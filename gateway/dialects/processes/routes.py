"""Routes of process runs: start one, list those of a process, fetch one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.dialects.processes import wire
from gateway.dialects.processes.project import (
    belongs,
    filters_of,
    new_run,
    read_token,
    show,
    tell,
    write_token,
)
from gateway.domain import access
from gateway.domain.access import Grant
from gateway.domain.run import Run
from gateway.edge import query as q
from gateway.entry.dialect import About, Dialect, Operation
from gateway.entry.requests import answer, run_id_of
from gateway.entry.services import Services
from gateway.errors import LogExpired, NotFound
from gateway.service.listing import RunPage

LOOKS = 100
OUTPUT_BYTES = 8 * 1024 * 1024
NULLABLE = ("limit", "stage", "continuation_token")
# How clients spell null in a query.
NULLS = ([""], ["null"])


def dialect(services: Services) -> Dialect:
    """Return the dialect, served below its prefix and at the root."""
    runs = ProcessRuns(services)
    finds = About(query=wire.ListQuery, answers={200: wire.RunList}, refusals=[400, 422])
    creates = About(
        body=wire.CreateRun, answers={201: wire.Run}, refusals=[400, 404, 413, 422], makes={"run_id": "/id"}
    )
    return Dialect(
        name="processes",
        title="Runs of processes",
        description="Start runs of an agent's processes, list them, and fetch one with its outputs.",
        tell=tell,
        refusal=wire.Refusal,
        at_root=True,
        operations=[
            Operation("GET", "/runs", runs.find, finds),
            Operation("POST", "/runs", runs.create, creates),
            Operation("GET", "/runs/{run_id}", runs.get, About(answers={200: wire.Run}, refusals=[404])),
        ],
    )


class ProcessRuns:
    """Runs, each of a process of an agent."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def find(self, request: Request) -> Response:
        """`GET /runs`: List the runs of a process of an agent, newest first."""
        caller = await self._services.callers.authenticate(request, access.RUNS_READ)
        query = _read_query(request)
        page = await self._page(caller.grant, query)
        each_bytes = OUTPUT_BYTES // max(len(page.runs), 1)
        items = [show(run, await self._outputs(caller.grant, run, each_bytes)) for run in page.runs]
        return answer(wire.RunList(continuation_token=write_token(query, page.next_before), items=items))

    async def create(self, request: Request) -> Response:
        """`POST /runs`: Start a run of a process."""
        caller = await self._services.callers.authenticate(request, access.RUNS_WRITE)
        body = await self._services.json(request, wire.CreateRun)
        run = await self._services.runs.create(caller, new_run(body))
        # A repeat is answered with the run that was started then, and with what it has put out since.
        return answer(show(run, await self._outputs(caller.grant, run, OUTPUT_BYTES)), 201)

    async def get(self, request: Request) -> Response:
        """`GET /runs/{run_id}`: Fetch the details of one run."""
        caller = await self._services.callers.authenticate(request, access.RUNS_READ)
        run = await self._services.runs.get(caller.grant, run_id_of(request))
        return answer(show(run, await self._outputs(caller.grant, run, OUTPUT_BYTES)))

    async def _page(self, grant: Grant, query: wire.ListQuery) -> RunPage:
        """Return a page of the query's runs; one without any is the last, unless `LOOKS` found none."""
        before = read_token(query)
        limit = min(query.limit or wire.LIMIT, self._services.bounds.list_page)
        if grant.agents is not None and query.agent_id not in grant.agents:
            return RunPage([], None)
        page = RunPage([], before)
        # Whoever goes through pages may stop at an empty one.
        for _ in range(LOOKS):
            page = await self._services.listing.runs(
                grant, filters_of(query), before=page.next_before, limit=limit, also=lambda run: belongs(query, run)
            )
            if page.runs or page.next_before is None:
                break
        return page

    async def _outputs(self, grant: Grant, run: Run, most_bytes: int) -> Mapping[str, Any]:
        """Return what the run's log sets as outputs; nothing where it sets none, or has expired."""
        if "output" not in run.marks:
            return {}
        try:
            return await self._services.folds.outputs(grant, run.id, most_bytes=most_bytes)
        except (LogExpired, NotFound):
            return {}


def _read_query(request: Request) -> wire.ListQuery:
    query = q.parse_query(request.scope["query_string"])
    given = {name: values for name, values in query.items() if name not in NULLABLE or list(values) not in NULLS}
    return q.decode_query(given, wire.ListQuery)
