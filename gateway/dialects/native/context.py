"""What the native routes work with, and what they have in common."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.dialects.native.project import run_body, to_json
from gateway.domain.run import Run
from gateway.edge import query as q
from gateway.edge.body import read_json
from gateway.entry.callers import Callers
from gateway.entry.streaming import SseDoor
from gateway.hub.hub import Hub
from gateway.service.access import Access
from gateway.service.actors import Caller, parse_run_id
from gateway.service.agents import Agents
from gateway.service.bulk import Bulk
from gateway.service.control import Control
from gateway.service.folds import Folds
from gateway.service.listing import Listing
from gateway.service.once import Once
from gateway.service.runs import Runs
from gateway.service.streams import Streams
from gateway.service.webhooks import Webhooks
from gateway.service.work import Work
from gateway.service.writing import Writing
from gateway.store.clock import StoreClock

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Handler = Callable[[Request], Awaitable[Response]]


class Bounds(msgspec.Struct, frozen=True):
    """Limits of requests that the native API enforces itself."""

    body_bytes: int
    batch_bytes: int
    event_bytes: int
    metadata_bytes: int
    list_page: int
    event_page: int
    wait_s: float
    stream_runs: int
    ticket_ttl_s: int


class Native(msgspec.Struct, frozen=True):
    """The services behind the routes."""

    callers: Callers
    access: Access
    runs: Runs
    control: Control
    writing: Writing
    listing: Listing
    folds: Folds
    once: Once
    work: Work
    agents: Agents
    bulk: Bulk
    webhooks: Webhooks
    streams: Streams
    hub: Hub
    door: SseDoor
    clock: StoreClock
    bounds: Bounds

    async def body(self, request: Request, kind: type[T]) -> T:
        """Return a control request's body; none at all is all defaults. Such requests take no query parameters."""
        q.refuse_unknown(q.parse_query(request.scope["query_string"]), ())
        return await read_json(request, kind, limit_bytes=self.bounds.body_bytes)


def run_id_of(request: Request) -> str:
    """Return the run id in the path."""
    return parse_run_id(request.path_params["run_id"])


def answer(value: object, status: int = 200) -> Response:
    """Return a JSON response."""
    return Response(to_json(value), status, media_type="application/json")


def answer_run(run: Run, status: int = 200, **more: Any) -> Response:
    """Return a run as a response."""
    return answer({**run_body(run), **more}, status)


def acting(caller: Caller, triggered_by: str | None) -> Caller:
    """Return the caller with what it says of its own action."""
    return msgspec.structs.replace(caller, triggered_by=triggered_by)


def to_ms(moment: datetime | None) -> int | None:
    """Return a datetime as Unix ms."""
    return None if moment is None else (moment - _EPOCH) // timedelta(milliseconds=1)


def duration_ms(duration_s: float | None) -> int | None:
    """Return a duration in ms; however short, one above zero stays above zero."""
    return None if duration_s is None else max(round(duration_s * 1000), int(duration_s > 0))


_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


def trace_id_of(traceparent: str | None) -> str | None:
    """Return the trace that a W3C `traceparent` header names; None where there is none that can be read."""
    match = _TRACEPARENT.fullmatch(traceparent or "")
    return match[1] if match and match[1].strip("0") else None
