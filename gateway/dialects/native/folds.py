"""Routes that show a run's log folded: its steps, calls, usage, outputs, and all of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.dialects.native.context import Native, answer, run_id_of
from gateway.dialects.native.project import run_body
from gateway.domain import access
from gateway.edge import query as q
from gateway.service.folds import Snapshot

Show = Callable[[Snapshot], dict[str, Any]]

LISTS: dict[str, Show] = {
    "steps": lambda taken: {"data": taken.state.steps},
    "tool-calls": lambda taken: {"data": taken.state.tool_calls},
    "messages": lambda taken: {"data": taken.state.messages},
    "usage": lambda taken: {"data": taken.state.usage, "totals": taken.state.totals},
    "outputs": lambda taken: {"data": list(taken.state.outputs.values())},
    "checkpoints": lambda taken: {"data": taken.state.checkpoints},
    "files": lambda taken: {"data": taken.state.files},
    "history": lambda taken: {"data": taken.state.history},
    "snapshot": lambda taken: {"run": run_body(taken.run), "state": taken.state},
}


def last_state(taken: Snapshot) -> dict[str, Any]:
    """Return where a worker that goes on would go on from."""
    checkpoints = taken.state.checkpoints
    return {
        "run_id": taken.run.id,
        "status": taken.run.status,
        "attempt": taken.run.state.attempt,
        "state": checkpoints[-1].state if checkpoints else None,
        "checkpoint_seq": checkpoints[-1].seq if checkpoints else None,
        "open_requests": run_body(taken.run)["open_requests"],
    }


def bundle(taken: Snapshot) -> dict[str, Any]:
    """Return everything somebody needs who looks for what went wrong."""
    state = taken.state
    return {
        "run": run_body(taken.run),
        "history": state.history,
        "steps": state.steps,
        "tool_calls": state.tool_calls,
        "messages": state.messages,
        "usage": state.usage,
        "totals": state.totals,
        "outputs": list(state.outputs.values()),
        "checkpoints": state.checkpoints,
        "questions": list(state.questions.values()),
        "logs": state.logs,
        "log_count": state.log_count,
    }


class FoldRoutes:
    """Folds as resources; each says up to which event it holds."""

    def __init__(self, native: Native) -> None:
        self._native = native

    def routes(self) -> list[Route]:
        """Return a route a fold."""
        shows = LISTS | {"state": last_state, "debug-bundle": bundle}
        return [
            Route(f"/v1/runs/{{run_id}}/{name}", self._showing(show), methods=["GET"]) for name, show in shows.items()
        ]

    def _showing(self, show: Show) -> Callable[[Request], Awaitable[Response]]:
        async def fold(request: Request) -> Response:
            caller = await self._native.callers.authenticate(request, access.RUNS_READ)
            q.refuse_unknown(q.parse_query(request.scope["query_string"]), ())
            taken = await self._native.folds.snapshot(caller.grant, run_id_of(request))
            return answer({**show(taken), "as_of_seq": taken.as_of.seq, "as_of": taken.as_of.text})

        return fold
