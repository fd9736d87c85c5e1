"""Routes of schedules: runs by the clock."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.dialects.native.context import Native, acting, answer, answer_run
from gateway.dialects.native.paging import PAGING, read_limit, read_name
from gateway.dialects.native.project import at, list_body
from gateway.dialects.native.wire import PutSchedule, TriggerSchedule
from gateway.domain import access
from gateway.domain.schedules import Schedule, ScheduleDefinition, ScheduleError
from gateway.edge import query as q
from gateway.errors import BadRequest, TooLarge

_SCHEDULE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]{0,127}")


class ScheduleRoutes:
    """Schedules as resources."""

    def __init__(self, native: Native) -> None:
        self._native = native

    def routes(self) -> list[Route]:
        """Return the routes."""
        path = "/v1/schedules/{schedule_id}"
        return [
            Route("/v1/schedules", self.find, methods=["GET"]),
            Route(path, self.put, methods=["PUT"]),
            Route(path, self.get, methods=["GET"]),
            Route(path, self.remove, methods=["DELETE"]),
            Route(f"{path}/trigger", self.trigger, methods=["POST"]),
        ]

    async def put(self, request: Request) -> Response:
        """`PUT /v1/schedules/{id}`: make a schedule or change it; `enabled` pauses and resumes it."""
        caller = await self._native.callers.authenticate(request, access.RUNS_WRITE)
        schedule_id = request.path_params["schedule_id"]
        if not _SCHEDULE_ID.fullmatch(schedule_id):
            raise BadRequest("A schedule id has 1 to 128 letters, digits or ._:@+-.", schedule_id=schedule_id[:64])
        body = await self._native.body(request, PutSchedule)
        size, most = len(msgspec.json.encode(body.metadata)), self._native.bounds.metadata_bytes
        if size > most:
            raise TooLarge(f"metadata has {size} bytes; at most {most} are allowed.", path="metadata", limit_bytes=most)
        definition = ScheduleDefinition(**{name: getattr(body, name) for name in body.__struct_fields__})
        schedule, is_new = await self._native.schedules.put(caller, schedule_id, definition)
        return answer(schedule_body(schedule), 201 if is_new else 200)

    async def get(self, request: Request) -> Response:
        """`GET /v1/schedules/{id}`: the schedule, when it ticks next, and what became of its last tick."""
        caller = await self._native.callers.authenticate(request, access.RUNS_READ)
        q.refuse_unknown(q.parse_query(request.scope["query_string"]), ())
        return answer(schedule_body(await self._native.schedules.get(caller.grant, request.path_params["schedule_id"])))

    async def find(self, request: Request) -> Response:
        """`GET /v1/schedules`: the schedules, by id."""
        caller = await self._native.callers.authenticate(request, access.RUNS_READ)
        query = q.parse_query(request.scope["query_string"])
        q.refuse_unknown(query, PAGING)
        limit = read_limit(query, self._native.bounds.list_page)
        after_id = read_name(query)
        schedules, next_after = await self._native.schedules.page(caller.grant, after_id, limit)
        return answer(list_body([schedule_body(schedule) for schedule in schedules], next_after))

    async def remove(self, request: Request) -> Response:
        """`DELETE /v1/schedules/{id}`: no tick any more; the runs that were created stay."""
        caller = await self._native.callers.authenticate(request, access.RUNS_WRITE)
        q.refuse_unknown(q.parse_query(request.scope["query_string"]), ())
        schedule_id = request.path_params["schedule_id"]
        await self._native.schedules.remove(caller, schedule_id)
        return answer({"id": schedule_id, "deleted": True})

    async def trigger(self, request: Request) -> Response:
        """`POST /v1/schedules/{id}/trigger`: a run of it now."""
        caller = await self._native.callers.authenticate(request, access.RUNS_WRITE)
        body = await self._native.body(request, TriggerSchedule)
        caller = acting(caller, body.triggered_by)
        return answer_run(await self._native.schedules.trigger(caller, request.path_params["schedule_id"]), 201)


def schedule_body(schedule: Schedule) -> dict[str, Any]:
    """Return a schedule."""
    definition = schedule.definition
    return {
        "id": schedule.id,
        "agent_id": definition.agent_id,
        "cron": definition.cron,
        "timezone": definition.timezone,
        "enabled": definition.enabled,
        "overlap": definition.overlap,
        "input": definition.input,
        "title": definition.title,
        "tags": definition.tags,
        "metadata": definition.metadata,
        "priority": definition.priority,
        "concurrency_key": definition.concurrency_key,
        "preset": definition.preset,
        "queue": definition.queue,
        "next_at": at(schedule.next_ms),
        "last_tick_at": at(schedule.last_tick_ms),
        "last_run_id": schedule.last_run_id,
        "last_skipped_at": at(schedule.last_skipped_ms),
        "last_error": None if schedule.last_error is None else _error_body(schedule.last_error),
        "created_at": at(schedule.created_ms),
        "updated_at": at(schedule.updated_ms),
    }


def _error_body(error: ScheduleError) -> dict[str, Any]:
    return {"code": error.code, "detail": error.detail, "tick_at": at(error.tick_ms)}
