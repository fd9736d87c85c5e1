"""All routes of the native API."""

from __future__ import annotations

from starlette.routing import BaseRoute

from gateway.dialects.native.agents import AgentRoutes
from gateway.dialects.native.bulk import BulkRoutes
from gateway.dialects.native.context import Native
from gateway.dialects.native.control import ControlRoutes
from gateway.dialects.native.events import EventRoutes
from gateway.dialects.native.folds import FoldRoutes
from gateway.dialects.native.keys import AccessRoutes
from gateway.dialects.native.runs import RunRoutes
from gateway.dialects.native.socket import SocketRoutes
from gateway.dialects.native.streams import StreamRoutes
from gateway.dialects.native.webhooks import WebhookRoutes
from gateway.dialects.native.work import WorkRoutes


def routes(native: Native) -> list[BaseRoute]:
    """Return the routes; those with longer paths come before `/v1/runs/{id}`."""
    runs = RunRoutes(native)
    streams = StreamRoutes(native, runs)
    return [
        *BulkRoutes(native).routes(),
        *streams.routes(),
        *SocketRoutes(native).routes(),
        *EventRoutes(native, streams).routes(),
        *FoldRoutes(native).routes(),
        *AccessRoutes(native).routes(),
        *AgentRoutes(native).routes(),
        *WorkRoutes(native).routes(),
        *WebhookRoutes(native).routes(),
        *ControlRoutes(native).routes(),
        *runs.routes(),
    ]
