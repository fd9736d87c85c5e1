"""Which runs a request wants, and lists of them that are filled as far as they go."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from starlette.responses import Response

from gateway.dialects.jobs import project, wire
from gateway.domain.access import Grant
from gateway.domain.lifecycle import Status
from gateway.domain.run import Run
from gateway.domain.times import format_time_us
from gateway.edge.query import read_object
from gateway.entry.services import Services
from gateway.errors import BadRequest, Forbidden, NotFound
from gateway.service.listing import Filters
from gateway.store.indexes import Position

LOOKS: Final = 10
"""Pages that one request looks through for runs that match."""

CHAIN_RUNS: Final = 1_000
NEXT_CURSOR: Final = "X-Next-Cursor"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def check_project(grant: Grant, *named: str | None) -> None:
    """Refuse a project that is not the caller's: a project is what a key's tenant is.

    Raises:
        Forbidden: it is another one, whether or not there is such a project.
    """
    for project_id in named:
        if project_id is not None and project_id != grant.tenant:
            raise Forbidden(f"This key does not reach the project {project_id[:64]!r}.", project_id=project_id[:64])


def filters_of(query: wire.WhichRuns, statuses: frozenset[Status] = frozenset()) -> Filters:
    """Return what a query asks for.

    Raises:
        BadRequest: half of a pair, or a payload that is no JSON object.
    """
    return _filters(query, _payload(query), statuses)


def filters_of_both(query: wire.WhichOfAll, body: wire.CancelAll) -> Filters:
    """Return what a query and a body ask for together.

    Raises:
        BadRequest: they contradict each other, or ask for nothing at all, not even for a project.
    """
    given = msgspec.structs.asdict(query) | {"payload_contains": _payload(query)}
    asked = msgspec.structs.asdict(body) | {"status": body.status and (body.status,)}
    both: dict[str, Any] = {}
    for name in given:
        said = [value for value in (given[name], asked[name]) if value is not None]
        if len(said) == 2 and said[0] != said[1]:
            raise BadRequest(f"{name} differs in the query and in the body.", parameter=name)
        both |= {name: said[0]} if said else {}
    if not both:
        raise BadRequest("Name the project or another filter: this cancels every run that matches.")
    payload = both.pop("payload_contains", None)
    return _filters(wire.WhichOfAll(**both), payload, project.WORDS.select(*both.get("status", ())))


def _payload(query: wire.WhichRuns) -> dict[str, Any] | None:
    text = query.payload_contains
    return None if text is None else read_object({"payload_contains": [text]}, "payload_contains")


def _filters(query: wire.WhichRuns, payload: dict[str, Any] | None, statuses: frozenset[Status]) -> Filters:
    return Filters(
        statuses=statuses,
        agent_id=query.job_id,
        trigger=query.triggered_by,
        batch_id=query.batch_id,
        payload=payload,
        # What is no object is shown as one, and found as it is shown.
        payload_member=project.WRAPPED,
        tags=_pair("tag", query.tag_key, query.tag_value),
        metadata=_pair("metadata", query.metadata_key, query.metadata_value),
    )


def _pair(name: str, key: str | None, value: str | None) -> dict[str, str]:
    if (key is None) != (value is None):
        raise BadRequest(f"Give {name}_key and {name}_value together.", parameter=f"{name}_key")
    return {} if key is None or value is None else {key: value}


def position_of(cursor: datetime | None) -> Position | None:
    """Return the place in a list that a time of creation is; no two runs of a project share one."""
    return None if cursor is None else Position((cursor - _EPOCH) // timedelta(microseconds=1), "")


async def find_chain(services: Services, grant: Grant, run_id: str) -> list[Run]:
    """Return the run, those it continues and those that continue it, newest first; at most a thousand."""
    await services.runs.get(grant, run_id)
    links: dict[str, str | None] = {}
    before: Position | None = None
    for _ in range(LOOKS):
        page = await services.listing.lineage(grant, run_id, before=before, limit=CHAIN_RUNS)
        links |= {run.id: project.continuation_of(run) for run in page.runs}
        before = page.next_before
        if before is None:
            break
    members = project.chain(links, run_id)
    chain: list[Run] = []
    for one in sorted(members & links.keys() | {run_id}, reverse=True)[:CHAIN_RUNS]:
        with contextlib.suppress(NotFound):
            chain.append(await services.runs.get(grant, one))
    return sorted(chain, key=lambda run: -run.spec.created_us)


def answer_runs(runs: list[Run], rest: Position | None) -> Response:
    """Return a list of runs; a header says where to go on, where there is more."""
    headers = {} if rest is None else {NEXT_CURSOR: format_time_us(rest.created_us)}
    body = msgspec.json.encode([project.run(run) for run in runs])
    return Response(body, headers=headers, media_type="application/json")
