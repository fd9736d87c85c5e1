"""All routes of the native API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.routing import BaseRoute

from gateway.dialects.native.agents import AgentRoutes
from gateway.dialects.native.answers import Problem
from gateway.dialects.native.batches import BatchRoutes
from gateway.dialects.native.bulk import BulkRoutes
from gateway.dialects.native.context import Native
from gateway.dialects.native.control import ControlRoutes
from gateway.dialects.native.described import describe
from gateway.dialects.native.events import EventRoutes
from gateway.dialects.native.files import FileRoutes
from gateway.dialects.native.folds import FoldRoutes
from gateway.dialects.native.keys import AccessRoutes
from gateway.dialects.native.readers import ReaderRoutes
from gateway.dialects.native.runs import RunRoutes
from gateway.dialects.native.schedules import ScheduleRoutes
from gateway.dialects.native.socket import SocketRoutes
from gateway.dialects.native.socket_commands import KINDS
from gateway.dialects.native.streamed import FRAMES
from gateway.dialects.native.streams import StreamRoutes
from gateway.dialects.native.webhooks import WebhookRoutes
from gateway.dialects.native.work import WorkRoutes
from gateway.edge.express import Express
from gateway.edge.express_stream import ExpressStream
from gateway.edge.problems import MEDIA_TYPE
from gateway.entry.asyncapi import Socket, Speaker
from gateway.entry.openapi import Text, document
from gateway.entry.reference import reference_routes

BUSY_PATHS = frozenset({"/v1/runs/{run_id}/events", "/v1/runs/{run_id}/stream"})
"""Of the routes that are asked for all the time."""


def routes(native: Native) -> list[BaseRoute]:
    """Return the routes, and those of their description."""
    found = api_routes(native)
    return [*found, *reference_routes(lambda: openapi(found))]


def express(native: Native) -> tuple[Express, ExpressStream]:
    """Return the routes that are answered without the application: appends, and streams of one run."""
    streams = StreamRoutes(native, RunRoutes(native))
    return EventRoutes(native, streams).express, streams.express


def openapi(found: Sequence[BaseRoute]) -> dict[str, Any]:
    """Return the description of the routes."""
    text = Text(
        title="Run gateway",
        description="Runs of agents: their logs live with a gap-free sequence, control, input, and work for workers.",
        server="/",
        refusal=Problem,
        refusal_media=MEDIA_TYPE,
    )
    return document(text, describe(found))


def streams(found: Sequence[BaseRoute]) -> Speaker:
    """Return what of the routes streams, for the description of all that does."""
    return Speaker("native", "", describe(found), [Socket("/v1/ws", KINDS, FRAMES)])


def api_routes(native: Native) -> list[BaseRoute]:
    """Return the routes of the API; those with longer paths come before `/v1/runs/{id}`."""
    runs = RunRoutes(native)
    streams = StreamRoutes(native, runs)
    return [
        *BatchRoutes(native).routes(),
        *BulkRoutes(native).routes(),
        *streams.routes(),
        *SocketRoutes(native).routes(),
        *EventRoutes(native, streams).routes(),
        *FileRoutes(native).routes(),
        *FoldRoutes(native).routes(),
        *AccessRoutes(native).routes(),
        *ReaderRoutes(native).routes(),
        *AgentRoutes(native).routes(),
        *WorkRoutes(native).routes(),
        *WebhookRoutes(native).routes(),
        *ScheduleRoutes(native).routes(),
        *ControlRoutes(native).routes(),
        *runs.routes(),
    ]
