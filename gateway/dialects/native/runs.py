"""Routes that create, find, wait for, copy and remove runs."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.dialects.native.context import Native, acting, answer, answer_run, run_id_of
from gateway.dialects.native.creation import new_run
from gateway.dialects.native.paging import PAGING, read_limit, read_place, read_position, write_cursor
from gateway.dialects.native.project import STATUS_WORDS, inbox_item, list_body, run_body, status_of
from gateway.dialects.native.webhooks import require_secrets
from gateway.dialects.native.wire import Act, CreateRun, Purge
from gateway.domain import access
from gateway.domain.lifecycle import Action
from gateway.domain.run import Run
from gateway.edge import query as q
from gateway.edge.body import read_json
from gateway.entry.requests import check_thread as check_thread
from gateway.errors import BadRequest, InvalidBody
from gateway.service.actors import Caller
from gateway.service.listing import Filters, RunPage
from gateway.store.indexes import Position

FILTERS = (
    "status",
    "agent_id",
    "thread_id",
    "tag",
    "metadata",
    "payload",
    "trigger",
    "batch_id",
    "schedule_id",
    "parent_run_id",
    "created_after",
    "created_before",
)


class RunRoutes:
    """Runs as resources."""

    def __init__(self, native: Native) -> None:
        self._native = native

    def routes(self) -> list[Route]:
        """Return the routes; longer paths first."""
        return [
            Route("/v1/runs", self.find, methods=["GET"]),
            Route("/v1/threads/{thread_id}/runs", self.find, methods=["GET"]),
            Route("/v1/requests", self.inbox, methods=["GET"]),
            Route("/v1/runs/{run_id}/wait", self.wait, methods=["GET"]),
            Route("/v1/runs/{run_id}/children", self.children, methods=["GET"]),
            Route("/v1/runs/{run_id}/lineage", self.lineage, methods=["GET"]),
            Route("/v1/runs/{run_id}/retry", self.retry, methods=["POST"]),
            Route("/v1/runs/{run_id}/replay", self.replay, methods=["POST"]),
            Route("/v1/runs/{run_id}/purge", self.purge, methods=["POST"]),
            Route("/v1/runs/{run_id}", self.get, methods=["GET"]),
        ]

    async def create(self, request: Request, caller: Caller, *, streamed: bool) -> Run:
        """Create the run that a request's body describes, in the path's thread if it names one."""
        body = await read_json(request, CreateRun, limit_bytes=self._native.bounds.body_bytes)
        if streamed:
            require_secrets(body.webhooks)
        thread_id = request.path_params.get("thread_id", body.thread_id)
        if body.thread_id not in (None, thread_id):
            raise InvalidBody("thread_id differs from the path's.", path="$.thread_id")
        check_thread(thread_id)
        new = new_run(body, thread_id)
        return await self._native.runs.create(acting(caller, body.triggered_by), new)

    async def get(self, request: Request) -> Response:
        """`GET /v1/runs/{id}`: the run; `include=steps` adds its steps."""
        caller = await self._native.callers.authenticate(request, access.RUNS_READ)
        query = q.parse_query(request.scope["query_string"])
        q.refuse_unknown(query, ("include",))
        included = q.read_choices(query, "include", ("steps",))
        if included:
            snapshot = await self._native.folds.snapshot(caller.grant, run_id_of(request))
            return answer_run(snapshot.run, steps=snapshot.state.steps)
        return answer_run(await self._native.runs.get(caller.grant, run_id_of(request)))

    async def find(self, request: Request) -> Response:
        """`GET /v1/runs`, `GET /v1/threads/{t}/runs`: runs, newest first."""
        caller = await self._native.callers.authenticate(request, access.RUNS_READ)
        query = q.parse_query(request.scope["query_string"])
        q.refuse_unknown(query, (*FILTERS, *PAGING))
        filters = read_filters(query, request.path_params.get("thread_id"))
        before, limit = self._paging(query)
        page = await self._native.listing.runs(caller.grant, filters, before=before, limit=limit)
        return _answer_page(page)

    async def inbox(self, request: Request) -> Response:
        """`GET /v1/requests`: every question that waits for an answer."""
        caller = await self._native.callers.authenticate(request, access.RUNS_READ)
        query = q.parse_query(request.scope["query_string"])
        q.refuse_unknown(query, ("status", *PAGING))
        q.read_choice(query, "status", ("open",))
        limit = read_limit(query, self._native.bounds.list_page)
        page = await self._native.listing.questions(caller.grant, after=read_place(query), limit=limit)
        return answer(list_body([inbox_item(asked) for asked in page.questions], write_cursor(page.next_after)))

    async def children(self, request: Request) -> Response:
        """`GET /v1/runs/{id}/children`: runs created with this one as their parent."""
        caller = await self._native.callers.authenticate(request, access.RUNS_READ)
        run = await self._native.runs.get(caller.grant, run_id_of(request))
        before, limit = self._page_only(request)
        filters = Filters(parent_run_id=run.id)
        return _answer_page(await self._native.listing.runs(caller.grant, filters, before=before, limit=limit))

    async def lineage(self, request: Request) -> Response:
        """`GET /v1/runs/{id}/lineage`: the run's family, newest first, its first ancestor last."""
        caller = await self._native.callers.authenticate(request, access.RUNS_READ)
        before, limit = self._page_only(request)
        run_id = run_id_of(request)
        return _answer_page(await self._native.listing.lineage(caller.grant, run_id, before=before, limit=limit))

    async def wait(self, request: Request) -> Response:
        """`GET /v1/runs/{id}/wait`: the run, once it has ended or the time is up."""
        caller = await self._native.callers.authenticate(request, access.RUNS_READ)
        query = q.parse_query(request.scope["query_string"])
        q.refuse_unknown(query, ("timeout_s", "until"))
        longest_s = self._native.bounds.wait_s
        timeout_s = q.read_seconds(query, "timeout_s", low=0, high=longest_s)
        until = q.read_choice(query, "until", ("ended", "waiting"))
        run = await self._native.runs.wait(
            caller.grant,
            run_id_of(request),
            timeout_s=min(30.0, longest_s) if timeout_s is None else timeout_s,
            waiting_counts=until == "waiting",
        )
        return answer_run(run)

    async def retry(self, request: Request) -> Response:
        """`POST /v1/runs/{id}/retry`: a new run of one that did not complete."""
        return await self._copy(request, Action.RETRY)

    async def replay(self, request: Request) -> Response:
        """`POST /v1/runs/{id}/replay`: a new run of any ended one."""
        return await self._copy(request, Action.REPLAY)

    async def _copy(self, request: Request, action: Action) -> Response:
        caller = await self._native.callers.authenticate(request, access.RUNS_WRITE)
        body = await self._native.body(request, Act)
        caller = acting(caller, body.triggered_by)
        return answer_run(await self._native.runs.copy(caller, run_id_of(request), action), 201)

    async def purge(self, request: Request) -> Response:
        """`POST /v1/runs/{id}/purge`: remove an ended run, or some of its log."""
        caller = await self._native.callers.authenticate(request, access.ADMIN)
        body = await self._native.body(request, Purge)
        run_id = run_id_of(request)
        asked = {"run_id": run_id, **msgspec.to_builtins(body)}
        run: Run | None
        match await self._native.once.settled(caller, "purge", asked):
            case "gone":
                run = None
            case "trimmed":
                run = await self._native.runs.get(caller.grant, run_id)
            case _:
                run = await self._native.runs.purge(
                    caller, run_id, through_seq=body.through_seq, keep_record=body.keep_record
                )
                await self._native.once.settle(caller, "purge", asked, "gone" if run is None else "trimmed")
        return answer({"id": run_id, "purged": True}) if run is None else answer_run(run)

    def _page_only(self, request: Request) -> tuple[Position | None, int]:
        query = q.parse_query(request.scope["query_string"])
        q.refuse_unknown(query, PAGING)
        return self._paging(query)

    def _paging(self, query: q.Query) -> tuple[Position | None, int]:
        return read_position(query), read_limit(query, self._native.bounds.list_page)


def _answer_page(page: RunPage) -> Response:
    return answer(list_body([run_body(run) for run in page.runs], write_cursor(page.next_before)))


def read_filters(query: q.Query, thread_id: str | None) -> Filters:
    """Return which runs a query wants, those of the path's thread where it names one."""
    created_after_ms = q.read_time_ms(query, "created_after")
    created_before_ms = q.read_time_ms(query, "created_before")
    named_thread = q.read_text(query, "thread_id")
    if thread_id is not None and named_thread not in (None, thread_id):
        raise BadRequest("thread_id differs from the path's.", parameter="thread_id")
    check_thread(thread_id)
    return Filters(
        statuses=frozenset(map(status_of, q.read_choices(query, "status", STATUS_WORDS))),
        agent_id=q.read_text(query, "agent_id"),
        thread_id=thread_id or named_thread,
        tags=q.read_pairs(query, "tag"),
        metadata=q.read_pairs(query, "metadata"),
        payload=q.read_object(query, "payload"),
        trigger=q.read_text(query, "trigger"),
        batch_id=q.read_text(query, "batch_id"),
        schedule_id=q.read_text(query, "schedule_id"),
        parent_run_id=q.read_text(query, "parent_run_id"),
        created_after_us=None if created_after_ms is None else created_after_ms * 1000 + 999,
        created_before_us=None if created_before_ms is None else created_before_ms * 1000,
    )
