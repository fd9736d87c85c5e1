"""Routes of the threads API."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from gateway.dialects.threads import project, wire
from gateway.domain import access
from gateway.domain.lifecycle import QUEUED
from gateway.domain.times import parse_time_us
from gateway.edge import query as q
from gateway.entry.dialect import About, Dialect, Frames, Operation
from gateway.entry.lists import find_runs
from gateway.entry.projection import Projection, stream_run
from gateway.entry.requests import answer, check_thread, read_query, run_id_of
from gateway.entry.services import Services
from gateway.entry.starts import start_after
from gateway.errors import BadRequest, NotFound
from gateway.service.actors import Caller, is_run_id, parse_run_id, run_id_ms
from gateway.service.listing import Filters
from gateway.service.runs import NewRun
from gateway.store.indexes import Position

REMOVED_MS = 1_000
MADE = {"run_id": "/run_id"}
EVENTS = Projection(project.NAME, project.frame_of, project.SHOWN)


def dialect(services: Services) -> Dialect:
    """Return the API of threads and their runs."""
    routes = ThreadRoutes(services)
    return Dialect(
        name=project.NAME,
        title="Threads",
        description="Threads, the runs of an agent in them, its input, and its events with after_seq.",
        operations=routes.operations(),
        tell=project.tell,
        refusal=wire.Refusal,
    )


class ThreadRoutes:
    """Runs of threads."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def operations(self) -> list[Operation]:
        """Return the operations; `{run_id}:cancel` comes before `{run_id}`."""
        created = About(body=wire.CreateRun, answers={201: wire.Created}, refusals=(400, 404, 413, 422), makes=MADE)
        of_thread = About(query=wire.FindOfThread, answers={200: list[wire.ThreadRun]}, refusals=(400,))
        listed = About(query=wire.Find, answers={200: list[wire.ListedRun]}, refusals=(400,))
        cancelled = About(answers={200: wire.Done}, refusals=(400, 404, 409))
        given = About(body=wire.Input, answers={200: wire.Done}, refusals=(400, 404, 409, 413, 422))
        streamed = About(query=wire.Follow, answers={200: Frames(wire.RunEvent), 204: None}, refusals=(400, 404, 410))
        return [
            Operation("POST", "/v1/threads/{thread_id}/runs", self.create, created),
            Operation("GET", "/v1/threads/{thread_id}/runs", self.find_of_thread, of_thread),
            Operation("GET", "/v1/runs", self.find, listed),
            Operation("POST", "/v1/runs/{run_id}:cancel", self.cancel, cancelled),
            Operation("POST", "/v1/runs/{run_id}/input", self.give_input, given),
            Operation("GET", "/v1/runs/{run_id}/events", self.events, streamed),
            Operation("GET", "/v1/runs/{run_id}", self.get, About(answers={200: wire.Run}, refusals=(404,))),
        ]

    async def create(self, request: Request) -> Response:
        """`POST /v1/threads/{thread_id}/runs`: Start an agent's execution in the thread."""
        caller = await self._services.callers.authenticate(request, access.RUNS_WRITE)
        thread_id = _thread_id_of(request)
        body = await self._services.body(request, wire.CreateRun)
        persona_id = body.persona_id or None
        given = {"route_id": body.route_id or None, "persona_id": persona_id}
        new = NewRun(
            agent_id=persona_id.partition("@")[0] if persona_id else self._services.bounds.default_agent,
            mode=QUEUED,
            thread_id=thread_id,
            extensions={project.NAME: {name: value for name, value in given.items() if value is not None}},
        )
        return answer(project.created(await self._services.runs.create(caller, new)), 201)

    async def find_of_thread(self, request: Request) -> Response:
        """`GET /v1/threads/{thread_id}/runs`: List the runs of a thread, newest first."""
        caller = await self._services.callers.authenticate(request, access.RUNS_READ)
        query = read_query(request, wire.FindOfThread)
        filters = Filters(thread_id=_thread_id_of(request))
        found = find_runs(self._services, caller.grant, filters, before=None, limit=query.limit)
        return answer([project.thread_run(run) async for run in found])

    async def find(self, request: Request) -> Response:
        """`GET /v1/runs`: List all runs of the organization, newest first."""
        caller = await self._services.callers.authenticate(request, access.RUNS_READ)
        query = read_query(request, wire.Find)
        statuses = frozenset() if query.status is None else project.WORDS.select(query.status)
        before = None if query.before is None else await self._position(caller, query.before)
        found = find_runs(self._services, caller.grant, Filters(statuses=statuses), before=before, limit=query.limit)
        return answer([project.listed_run(run) async for run in found])

    async def _position(self, caller: Caller, before: str) -> Position:
        """Return where a page begins, for the run that the last one ended with or for a time.

        Raises:
            BadRequest: it is neither.
        """
        if not is_run_id(before):
            try:
                return Position(parse_time_us(q.restore_plus(before)), "")
            except BadRequest:
                told = "before is neither the run_id of the last item nor a time such as 2026-11-22T08:00:00Z."
                raise BadRequest(told, parameter="before", value=before) from None
        run_id = parse_run_id(before)
        try:
            run = await self._services.runs.get(caller.grant, run_id)
        except NotFound:
            # It was removed meanwhile. Its id tells nearly when it was created: a few are listed again, none is lost.
            return Position((run_id_ms(run_id) + REMOVED_MS) * 1000, "")
        return Position(run.spec.created_us, run.id)

    async def get(self, request: Request) -> Response:
        """`GET /v1/runs/{run_id}`: Get a run's details."""
        caller = await self._services.callers.authenticate(request, access.RUNS_READ)
        return answer(project.whole_run(await self._services.runs.get(caller.grant, run_id_of(request))))

    async def cancel(self, request: Request) -> Response:
        """`POST /v1/runs/{run_id}:cancel`: Cancel a run."""
        caller = await self._services.callers.authenticate(request, access.RUNS_WRITE)
        await self._services.control.cancel(caller, run_id_of(request), reason=None, force=False)
        return answer(wire.Done(ok=True))

    async def give_input(self, request: Request) -> Response:
        """`POST /v1/runs/{run_id}/input`: Submit the input that a run waits for."""
        caller = await self._services.callers.authenticate(request, access.RUNS_INPUT)
        body = await self._services.body(request, wire.Input)
        await self._services.control.answer(
            caller, run_id_of(request), request_id=None, content=body.content, as_text=True
        )
        return answer(wire.Done(ok=True))

    async def events(self, request: Request) -> Response:
        """`GET /v1/runs/{run_id}/events`: Receive a run's events as they happen."""
        query = read_query(request, wire.Follow)
        start = start_after(query.after_seq, request.headers.get("last-event-id"))
        return await stream_run(self._services, request, run_id_of(request), start, EVENTS)


def _thread_id_of(request: Request) -> str:
    thread_id: str = request.path_params["thread_id"]
    check_thread(thread_id)
    return thread_id
