"""Streams of a run in a dialect's frames: projected once an entry, shared by all readers of the dialect.

Such a stream carries the dialect's frames and nothing else: `id:` is the cursor, so that `Last-Event-ID` resumes; what
native says in named control frames (a gap, a rollback) is a comment line that no client sees. It is closed as native
streams are: cleanly at the end of the run, cut on a drain or when its credential ends.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.domain import access
from gateway.domain.cursor import Cursor
from gateway.domain.events import Event, TypeFilter, decode, peek_type
from gateway.edge import frames
from gateway.edge.frames import Message
from gateway.entry.services import Services
from gateway.entry.streaming import Lane
from gateway.service.streams import Start
from gateway.store.log import Entry


class Frame(msgspec.Struct, frozen=True):
    """A frame of a dialect: what its data says, and its name where the dialect names frames."""

    data: Any
    name: str | None = None


Project = Callable[[Event], Frame | None]
"""From one event to its frame, None where the dialect does not show it; of this event alone, whatever came before."""


class Projection:
    """Encodes a run's entries as a dialect's frames.

    Args:
        name: Tells this projection from all others: readers of equal name and types share what is encoded.
        project: Pure.
        types: Which types of event are shown at all; the others are not even decoded.
    """

    def __init__(self, name: str, project: Project, types: TypeFilter | None = None) -> None:
        self.key: Hashable = ("projection", name, types)
        self.types = types
        self._project = project

    def encode(self, entries: Sequence[Entry]) -> list[Message]:
        """Return one message for all entries that are shown."""
        chunk = b"".join(map(self._frame, entries))
        return [frames.sse_body(chunk)] if chunk else []

    def _frame(self, entry: Entry) -> bytes:
        if self.types is not None and not self.types.passes(peek_type(entry.line)):
            return b""
        frame = self._project(decode(entry.line))
        if frame is None:
            return b""
        name = b"" if frame.name is None else b"event: %b\n" % frame.name.encode()
        return b"id: %d-%d\n%bdata: %b\n\n" % (entry.seq, entry.tag, name, msgspec.json.encode(frame.data))

    def control(self, name: str, facts: dict[str, Any], cursor: Cursor | None = None) -> list[Message]:
        """Return a comment where the log does not follow what the reader has; nothing else is told."""
        if name not in ("stream.gap", "stream.reset"):
            return []
        return [frames.sse_body(b": %b %b\n" % (name.encode(), msgspec.json.encode(facts)))]


async def stream_run(
    services: Services, request: Request, run_id: str, start: Start, projection: Projection
) -> Response:
    """Return the stream of a run from `start` on, as the projection shows it."""

    async def respond() -> Response:
        caller = await services.callers.authenticate(request, access.RUNS_READ, tickets=True)
        opening = await services.streams.open_run(caller.grant, run_id, start, projection.types)
        return services.door.respond(caller.grant, [Lane(opening, projection)], lambda _reason, _outlet: ())

    return await services.door.hold(respond)
