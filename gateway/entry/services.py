"""What the routes of every dialect work with."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from starlette.requests import Request

from gateway.edge import query as q
from gateway.edge.body import read_json
from gateway.edge.limits import Limits
from gateway.entry.callers import Callers
from gateway.entry.files import FileDoor
from gateway.entry.streaming import SseDoor
from gateway.hub.hub import Hub
from gateway.service.access import Access
from gateway.service.agents import Agents
from gateway.service.batches import Batches
from gateway.service.bulk import Bulk
from gateway.service.control import Control
from gateway.service.files import Files
from gateway.service.folds import Folds
from gateway.service.listing import Listing
from gateway.service.once import Once
from gateway.service.readers import Readers
from gateway.service.runs import Runs
from gateway.service.schedules import Schedules
from gateway.service.streams import Streams
from gateway.service.webhooks import Webhooks
from gateway.service.work import Work
from gateway.service.writing import Writing
from gateway.store.clock import StoreClock

T = TypeVar("T")


class Bounds(msgspec.Struct, frozen=True):
    """Limits of requests that the dialects enforce themselves, and what a request that names no agent is for."""

    body_bytes: int
    batch_bytes: int
    batch_events: int
    event_bytes: int
    metadata_bytes: int
    list_page: int
    event_page: int
    wait_s: float
    stream_runs: int
    ticket_ttl_s: int
    default_agent: str
    file_bytes: int
    socket_runs: int


class Services(msgspec.Struct, frozen=True):
    """The services behind the routes."""

    callers: Callers
    access: Access
    runs: Runs
    control: Control
    writing: Writing
    listing: Listing
    folds: Folds
    files: Files
    file_door: FileDoor
    once: Once
    work: Work
    agents: Agents
    batches: Batches
    bulk: Bulk
    webhooks: Webhooks
    schedules: Schedules
    streams: Streams
    readers: Readers
    hub: Hub
    door: SseDoor
    clock: StoreClock
    limits: Limits
    bounds: Bounds

    async def body(self, request: Request, kind: type[T]) -> T:
        """Return the body of a request that takes no query parameters; none at all is all defaults."""
        q.refuse_unknown(q.parse_query(request.scope["query_string"]), ())
        return await self.json(request, kind)

    async def json(self, request: Request, kind: type[T]) -> T:
        """Return a request's body; none at all is all defaults."""
        return await read_json(request, kind, limit_bytes=self.bounds.body_bytes)
