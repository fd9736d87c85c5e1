"""Routes that show a run's log folded: its steps, calls, usage, outputs, and all of it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.dialects.native.context import Native, answer, run_id_of
from gateway.dialects.native.paging import PAGING
from gateway.dialects.native.project import list_body, run_body
from gateway.domain import access
from gateway.domain.fold_state import Folded
from gateway.edge import query as q
from gateway.service.folds import Snapshot

Endpoint = Callable[[Request], Awaitable[Response]]
Entries = Callable[[Folded], Sequence[Any]]
Show = Callable[[Snapshot], dict[str, Any]]

LISTS: dict[str, Entries] = {
    "steps": lambda state: state.steps,
    "tool-calls": lambda state: state.tool_calls,
    "messages": lambda state: state.messages,
    "usage": lambda state: state.usage,
    "outputs": lambda state: list(state.outputs.values()),
    "checkpoints": lambda state: state.checkpoints,
    "files": lambda state: state.files,
    "history": lambda state: state.history,
}


def snapshot(taken: Snapshot) -> dict[str, Any]:
    """Return the run and all of its folded state."""
    return {"run": run_body(taken.run), "state": taken.state}


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
        "kept_from_seq": state.kept_from_seq,
    }


WHOLES: dict[str, Show] = {"snapshot": snapshot, "state": last_state, "debug-bundle": bundle}


class FoldRoutes:
    """Folds as resources; each says up to which event it holds."""

    def __init__(self, native: Native) -> None:
        self._native = native

    def routes(self) -> list[Route]:
        """Return a route a fold."""
        shown = [(name, self._listing(name, entries)) for name, entries in LISTS.items()]
        shown += [(name, self._showing(show)) for name, show in WHOLES.items()]
        return [Route(f"/v1/runs/{{run_id}}/{name}", endpoint, methods=["GET"]) for name, endpoint in shown]

    def _listing(self, name: str, entries: Entries) -> Endpoint:
        async def fold(request: Request) -> Response:
            caller = await self._native.callers.authenticate(request, access.RUNS_READ)
            query = q.parse_query(request.scope["query_string"])
            q.refuse_unknown(query, PAGING)
            most = self._native.bounds.event_page
            limit = q.read_int(query, "limit", low=1, high=most) or most
            after_seq = q.read_int(query, "cursor", low=0, high=2**53) or 0
            taken = await self._native.folds.snapshot(caller.grant, run_id_of(request))
            page, next_seq = _page(entries(taken.state), after_seq, limit)
            about: dict[str, Any] = {"kept_from_seq": taken.state.kept_from_seq, **_as_of(taken)}
            if name == "usage":
                about["totals"] = taken.state.totals
            return answer(list_body(page, next_seq) | about)

        return fold

    def _showing(self, show: Show) -> Endpoint:
        async def fold(request: Request) -> Response:
            caller = await self._native.callers.authenticate(request, access.RUNS_READ)
            q.refuse_unknown(q.parse_query(request.scope["query_string"]), ())
            taken = await self._native.folds.snapshot(caller.grant, run_id_of(request))
            return answer(show(taken) | _as_of(taken))

        return fold


def _page(entries: Sequence[Any], after_seq: int, limit: int) -> tuple[list[Any], str | None]:
    """Return a page of entries, which are in the order of their seqs, and its last seq if more follow."""
    first = bisect_right(entries, after_seq, key=lambda entry: entry.seq)
    page = list(entries[first : first + limit])
    return page, str(page[-1].seq) if first + limit < len(entries) else None


def _as_of(taken: Snapshot) -> dict[str, Any]:
    return {"as_of_seq": taken.as_of.seq, "as_of": taken.as_of.text}
