"""Requests and answers as every dialect reads and writes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.domain.times import format_time
from gateway.edge import query as q
from gateway.errors import BadRequest
from gateway.service.actors import Caller, parse_run_id

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def run_id_of(request: Request) -> str:
    """Return the run id in the path."""
    return parse_run_id(request.path_params["run_id"])


def read_query(request: Request, kind: type[T]) -> T:
    """Return the query parameters as a `kind`; see `decode_query` for what is refused."""
    return q.decode_query(q.parse_query(request.scope["query_string"]), kind)


def answer(value: object, status: int = 200) -> Response:
    """Return a JSON response."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def acting(caller: Caller, triggered_by: str | None) -> Caller:
    """Return the caller with what it says of its own action."""
    return msgspec.structs.replace(caller, triggered_by=triggered_by)


def at(ms: int | None) -> str | None:
    """Return a time as RFC 3339 UTC with milliseconds."""
    return None if ms is None else format_time(ms)


def to_ms(moment: datetime | None) -> int | None:
    """Return a datetime as Unix ms."""
    return None if moment is None else (moment - _EPOCH) // timedelta(milliseconds=1)


def duration_ms(duration_s: float | None) -> int | None:
    """Return a duration in ms; however short, one above zero stays above zero."""
    return None if duration_s is None else max(round(duration_s * 1000), int(duration_s > 0))


def check_thread(thread_id: str | None) -> None:
    """Refuse a thread id that no run can have."""
    if thread_id is not None and not _fits_thread(thread_id):
        raise BadRequest("A thread id has 1 to 128 letters, digits or ._:@+-.", thread_id=thread_id[:64])


def _fits_thread(thread_id: str) -> bool:
    return 0 < len(thread_id) <= 128 and all(c.isascii() and (c.isalnum() or c in "._:@+-") for c in thread_id)
