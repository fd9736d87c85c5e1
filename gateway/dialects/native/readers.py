"""The route of whoever watches over readers: which streams are open, what each lacks, why, and since when."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.dialects.native.context import Native, answer
from gateway.dialects.native.paging import PAGING, read_limit
from gateway.dialects.native.project import list_body, reader_body
from gateway.domain import access
from gateway.edge import query as q
from gateway.errors import BadRequest
from gateway.service.actors import parse_run_id
from gateway.service.readers import EVERY_TENANT, Place, Wish, parse_place

MOST_BEHIND_S = 86_400


class ReaderRoutes:
    """Open streams, SSE and WebSocket alike."""

    def __init__(self, native: Native) -> None:
        self._native = native

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [Route("/v1/readers", self.list, methods=["GET"])]

    async def list(self, request: Request) -> Response:
        """`GET /v1/readers`: the streams that are open, in all processes, longest open first."""
        caller = await self._native.callers.authenticate(request, access.ADMIN)
        query = q.parse_query(request.scope["query_string"])
        q.refuse_unknown(query, (*PAGING, "tenant", "run_id", "behind_s"))
        run_id = q.read_text(query, "run_id")
        wish = Wish(
            tenant=_read_tenant(query) or caller.tenant,
            limit=read_limit(query, self._native.bounds.list_page),
            after=_read_place(query),
            run_id=None if run_id is None else parse_run_id(run_id),
            behind_s=q.read_seconds(query, "behind_s", low=0, high=MOST_BEHIND_S),
        )
        found = await self._native.readers.list(caller.grant, wish)
        page = list_body([reader_body(standing) for standing in found.readers], found.next_after)
        return answer({**page, "processes": {"asked": found.asked, "answered": found.answered}})


def _read_tenant(query: q.Query) -> str | None:
    tenant = q.read_text(query, "tenant")
    if tenant is not None and tenant != EVERY_TENANT and not access.is_tenant(tenant):
        raise BadRequest(f"tenant: {tenant[:64]!r} is neither a tenant's name nor *.", parameter="tenant")
    return tenant


def _read_place(query: q.Query) -> Place | None:
    cursor = q.read_text(query, "cursor")
    if cursor is None:
        return None
    place = parse_place(cursor)
    if place is None:
        raise BadRequest(f"cursor: {cursor[:64]!r} is not a next_cursor of this list.", parameter="cursor")
    return place
