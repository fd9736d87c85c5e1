"""Routes of run management by agent; an agent is the workflow whose runs they are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.dialects.agents.files import output_files
from gateway.dialects.agents.project import (
    ALLOWED,
    WORDS,
    RuntimeNotApplicable,
    record,
    require_word,
    statuses_of,
    step_result,
    summarise,
    tell,
    word_of,
)
from gateway.dialects.agents.wire import ActQuery, ListQuery, Refusal, RunList, RunRecord, StepResult
from gateway.domain import access
from gateway.domain.access import unknown_run
from gateway.domain.agents import CONVERSATIONAL
from gateway.domain.fold_state import File
from gateway.domain.lifecycle import Action, Status
from gateway.domain.run import Run
from gateway.entry.dialect import About, Dialect, Operation
from gateway.entry.lists import find_runs
from gateway.entry.requests import acting, answer, read_query, run_id_of
from gateway.entry.services import Services
from gateway.errors import LogExpired
from gateway.service.actors import Caller
from gateway.service.listing import Filters

RUNS = "/api/agents/{agent_id}/runs"
LIST_BYTES = 8 * 1024 * 1024

Act = Callable[[Caller, str], Awaitable[Run]]


def dialect(services: Services) -> Dialect:
    """Return the dialect, served below its prefix and at the root."""
    runs = AgentRuns(services)
    acts = {"cancel": runs.cancel, "pause": runs.pause, "retry": runs.retry, "resume": runs.resume}
    return Dialect(
        name="agents",
        title="Run management by agent",
        description="List, fetch, pause, resume, retry and cancel the runs of an agent, which is a workflow.",
        tell=tell,
        refusal=Refusal,
        at_root=True,
        operations=[
            Operation("GET", RUNS, runs.find, About(query=ListQuery, answers={200: RunList}, refusals=[400])),
            *(Operation("POST", f"{RUNS}/{{run_id}}/{name}", act, _about(name)) for name, act in acts.items()),
            Operation("GET", f"{RUNS}/{{run_id}}", runs.get, About(answers={200: RunRecord}, refusals=[400, 404])),
        ],
    )


def _about(name: str) -> About:
    """Return what an action takes and answers; a retry makes a run."""
    status = 201 if name == "retry" else 200
    makes = {"run_id": "/run_id"}
    return About(query=ActQuery, answers={status: RunRecord}, refusals=[400, 404, 409, 422], makes=makes)


class AgentRuns:
    """Runs, each reached through the agent that it belongs to."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def find(self, request: Request) -> Response:
        """`GET /api/agents/{agent_id}/runs`: List the runs of an agent, newest first."""
        caller = await self._authenticate(request, access.RUNS_READ)
        query = read_query(request, ListQuery)
        agent_id = request.path_params["agent_id"]
        found: list[msgspec.Raw] = []
        if not _reaches(caller, agent_id):
            return answer({"runs": found})
        filters = Filters(agent_id=agent_id, statuses=statuses_of(query.status))
        left_bytes = LIST_BYTES
        async for run in find_runs(
            self._services,
            caller.grant,
            filters,
            before=None,
            limit=query.limit,
            also=lambda run: query.status in (None, word_of(run)),
        ):
            shown = msgspec.json.encode(summarise(run))
            left_bytes -= len(shown)
            if left_bytes < 0 and found:
                break
            found.append(msgspec.Raw(shown))
        return answer({"runs": found})

    async def get(self, request: Request) -> Response:
        """`GET /api/agents/{agent_id}/runs/{run_id}`: Fetch one run, its output files with fresh signed URLs."""
        caller = await self._authenticate(request, access.RUNS_READ)
        return await self._answer(request, caller, await self._run(request, caller), latest=True)

    async def cancel(self, request: Request) -> Response:
        """`POST /api/agents/{agent_id}/runs/{run_id}/cancel`: Cancel a queued, running or paused run."""
        act = partial(self._services.control.cancel, reason=None, force=False)
        return await self._act(request, partial(act, permitted=partial(require_word, Action.CANCEL)))

    async def pause(self, request: Request) -> Response:
        """`POST /api/agents/{agent_id}/runs/{run_id}/pause`: Pause a running run."""
        act = partial(self._services.control.pause, reason=None)
        return await self._act(request, partial(act, permitted=partial(require_word, Action.PAUSE)))

    async def resume(self, request: Request) -> Response:
        """`POST /api/agents/{agent_id}/runs/{run_id}/resume`: Resume a paused run."""
        act = partial(self._services.control.resume, reason=None)
        return await self._act(request, partial(act, permitted=partial(require_word, Action.RESUME)))

    async def retry(self, request: Request) -> Response:
        """`POST /api/agents/{agent_id}/runs/{run_id}/retry`: Make a new run of a failed or cancelled one's inputs."""
        return await self._act(request, self._retry, status=201)

    async def _retry(self, caller: Caller, run_id: str) -> Run:
        runs = self._services.runs
        run = await runs.get(caller.grant, run_id)
        if run.status is Status.CANCELLING:
            # It shows as cancelled already: the retry waits for its holder's word, or for the end of the grace.
            await runs.wait(caller.grant, run_id, timeout_s=self._services.bounds.wait_s, waiting_counts=False)
        return await runs.copy(caller, run_id, Action.RETRY, permitted=WORDS.select(*ALLOWED[Action.RETRY]))

    async def _act(self, request: Request, act: Act, status: int = 200) -> Response:
        caller = await self._authenticate(request, access.RUNS_WRITE)
        caller = acting(caller, read_query(request, ActQuery).triggered_by)
        run = await self._run(request, caller)
        return await self._answer(request, caller, await act(caller, run.id), status)

    async def _authenticate(self, request: Request, scope: str) -> Caller:
        """Return who asks, unless what they ask for has no runs.

        Raises:
            RuntimeNotApplicable: the path's agent is conversational.
        """
        caller = await self._services.callers.authenticate(request, scope)
        agent_id = request.path_params["agent_id"]
        if _reaches(caller, agent_id):
            agent = await self._services.agents.find(caller.tenant, agent_id)
            if agent.definition.runtime == CONVERSATIONAL:
                raise RuntimeNotApplicable("A conversational agent has no runs.", agent_id=agent_id)
        return caller

    async def _run(self, request: Request, caller: Caller) -> Run:
        """Return the path's run, if it belongs to the path's agent."""
        run_id = run_id_of(request)
        run = await self._services.runs.get(caller.grant, run_id)
        if run.spec.agent_id != request.path_params["agent_id"]:
            raise unknown_run(run_id)
        return run

    async def _answer(
        self, request: Request, caller: Caller, run: Run, status: int = 200, *, latest: bool = False
    ) -> Response:
        """Answer with the full record of `run`, or of what has become of it meanwhile where `latest` is wanted."""
        named: list[File] | None = None
        steps: list[StepResult] = []
        try:
            taken = await self._services.folds.snapshot(caller.grant, run.id)
        except LogExpired:
            # The record outlives the log; so do the files.
            pass
        else:
            run = taken.run if latest else run
            steps = [step_result(step) for step in taken.state.steps if not step.superseded]
            named = [file for file in taken.state.files if not file.superseded]
        files = await output_files(self._services, request, caller.grant, run, named)
        return answer(record(run, steps, files), status)


def _reaches(caller: Caller, agent_id: str) -> bool:
    return caller.grant.agents is None or agent_id in caller.grant.agents
