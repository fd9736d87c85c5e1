"""Routes that stream over SSE: one run, its text, several runs, a thread, the feed, a run just created."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.dialects.native.context import Native, answer_run, run_id_of
from gateway.dialects.native.encoders import (
    FeedSse,
    ManySse,
    Places,
    RunSse,
    opened,
    places_of,
    snapshot_frames,
)
from gateway.dialects.native.runs import RunRoutes, check_thread
from gateway.dialects.native.starts import (
    read_feed_start,
    read_linger,
    read_start,
    read_starts,
    read_thread_start,
    read_types,
)
from gateway.dialects.native.threads import ThreadStream
from gateway.dialects.native.webhooks import made_hooks
from gateway.domain import access
from gateway.domain.cursor import START, Cursor
from gateway.domain.events import TypeFilter
from gateway.edge import query as q
from gateway.edge.express_stream import ExpressStream
from gateway.edge.frames import Message
from gateway.edge.plain import find_header
from gateway.entry.streaming import Lane
from gateway.errors import BadRequest
from gateway.hub.outlet import Outlet
from gateway.hub.reader import Encoder
from gateway.service.actors import Caller, parse_run_id
from gateway.service.streams import Start

PLACE = ("after", "after_seq", "ticket")
DELTAS = TypeFilter.parse("message.delta")


class Wish(msgspec.Struct, frozen=True):
    """What a client wants of a stream: which events, a state to begin with, and pauses between what is sent."""

    types: TypeFilter | None = None
    snapshot: bool = False
    linger_s: float | None = None


class StreamRoutes:
    """Streams."""

    def __init__(self, native: Native, runs: RunRoutes) -> None:
        self._native = native
        self._runs = runs

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/v1/runs", self.create, methods=["POST"]),
            Route("/v1/threads/{thread_id}/runs", self.create, methods=["POST"]),
            Route("/v1/runs/{run_id}/stream", self.run, methods=["GET"]),
            Route("/v1/runs/{run_id}/stream/chunks", self.chunks, methods=["GET"]),
            Route("/v1/stream", self.many, methods=["GET"]),
            Route("/v1/threads/{thread_id}/stream", self.thread, methods=["GET"]),
            Route("/v1/feed", self.feed, methods=["GET"]),
        ]

    @property
    def express(self) -> ExpressStream:
        """Streams of one run, as readers open them who come back all the time."""
        return ExpressStream("/v1/runs/{run_id}/stream", self.run, self._native.limits)

    async def create(self, request: Request) -> Response:
        """`POST /v1/runs`, `POST /v1/threads/{t}/runs`: a run, or with `?stream=true` its stream."""
        caller = await self._native.callers.authenticate(request, access.RUNS_WRITE)
        query = q.parse_query(request.scope["query_string"])
        q.refuse_unknown(query, ("stream", "types", "linger_ms"))
        wish, streamed = Wish(read_types(query), linger_s=read_linger(query)), q.read_flag(query, "stream")
        if streamed:
            access.require(caller.grant, access.RUNS_READ)
        run = await self._runs.create(request, caller, streamed=streamed)
        if not streamed:
            return answer_run(run, 201, **await made_hooks(self._native, run))
        response = await self._native.door.hold(lambda: self._one(caller, run.id, Start(START), wish))
        response.headers["Location"] = f"/v1/runs/{run.id}"
        return response

    async def run(self, request: Request) -> Response:
        """`GET /v1/runs/{id}/stream`: the run's events from where the reader stands."""
        query = q.parse_query(request.scope["query_string"])
        q.refuse_unknown(query, (*PLACE, "types", "snapshot", "linger_ms"))
        return await self._run(request, query, read_types(query))

    async def chunks(self, request: Request) -> Response:
        """`GET /v1/runs/{id}/stream/chunks`: the deltas of its messages only."""
        query = q.parse_query(request.scope["query_string"])
        q.refuse_unknown(query, (*PLACE, "snapshot", "linger_ms"))
        return await self._run(request, query, DELTAS)

    async def _run(self, request: Request, query: q.Query, types: TypeFilter | None) -> Response:
        start = read_start(query, find_header(request.scope["headers"], b"last-event-id"))
        wish = Wish(types, q.read_flag(query, "snapshot"), read_linger(query))
        run_id = run_id_of(request)

        async def answer() -> Response:
            caller = await self._native.callers.authenticate(request, access.RUNS_READ, tickets=True)
            return await self._one(caller, run_id, start, wish)

        return await self._native.door.hold(answer)

    async def _one(self, caller: Caller, run_id: str, start: Start, wish: Wish) -> Response:
        lane = await self._open(caller, run_id, start, wish, RunSse(run_id, wish.types))
        return self._native.door.respond(caller.grant, [lane], self._farewell, linger_s=wish.linger_s)

    async def _open(self, caller: Caller, run_id: str, start: Start, wish: Wish, encoder: Encoder) -> Lane:
        """Open a run; with `snapshot`, for a reader that has nothing yet, from its state so far."""
        streams = self._native.streams
        if not wish.snapshot or start.cursor.seq or start.malformed:
            opening = await streams.open_run(caller.grant, run_id, start, wish.types)
            return Lane(opening, encoder, opened(encoder, opening))
        taken = await self._native.folds.snapshot(caller.grant, run_id)
        shown = snapshot_frames(encoder, taken)
        opening = await streams.open_run(caller.grant, run_id, Start(taken.as_of), wish.types)
        # The snapshot itself is something that follows.
        opening = msgspec.structs.replace(opening, nothing_follows=False)
        return Lane(opening, encoder, [*opened(encoder, opening), *shown])

    async def many(self, request: Request) -> Response:
        """`GET /v1/stream?run=…&run=…`: up to sixteen runs on one stream."""
        query = q.parse_query(request.scope["query_string"])
        q.refuse_unknown(query, (*PLACE, "types", "snapshot", "linger_ms", "run"))
        most = self._native.bounds.stream_runs
        run_ids = [parse_run_id(text) for text in q.read_many(query, "run", most=most)]
        if not run_ids or len(set(run_ids)) != len(run_ids):
            raise BadRequest(f"run: name 1 to {most} different runs.", parameter="run")
        starts = read_starts(query, request.headers.get("last-event-id"), len(run_ids))
        wish = Wish(read_types(query), q.read_flag(query, "snapshot"), read_linger(query))

        async def answer() -> Response:
            caller = await self._native.callers.authenticate(request, access.RUNS_READ, tickets=True)
            return await self._many(caller, dict(zip(run_ids, starts, strict=True)), wish)

        return await self._native.door.hold(answer)

    async def _many(self, caller: Caller, starts: dict[str, Start], wish: Wish) -> Response:
        door = self._native.door
        places = Places({run_id: start.cursor for run_id, start in starts.items()})
        lanes: list[Lane] = []
        try:
            for run_id, start in starts.items():
                encoder = ManySse(run_id, wish.types, places)
                lanes.append(await self._open(caller, run_id, start, wish, encoder))
        except BaseException:
            door.release(lanes)
            raise

        def farewell(reason: str, _outlet: Outlet) -> Sequence[Message]:
            return door.closed(reason, places.text)

        return door.respond(caller.grant, lanes, farewell, linger_s=wish.linger_s)

    async def thread(self, request: Request) -> Response:
        """`GET /v1/threads/{t}/stream`: all runs of a thread, those to come included."""
        query = q.parse_query(request.scope["query_string"])
        q.refuse_unknown(query, ("after", "types", "ticket"))
        thread_id = request.path_params["thread_id"]
        check_thread(thread_id)
        start = read_thread_start(query, request.headers.get("last-event-id"))
        types = read_types(query)

        async def answer() -> Response:
            caller = await self._native.callers.authenticate(request, access.RUNS_READ, tickets=True)
            return await ThreadStream(self._native, caller.grant, thread_id, types).respond(start)

        return await self._native.door.hold(answer)

    async def feed(self, request: Request) -> Response:
        """`GET /v1/feed`: status changes of the tenant's runs, as far back as they are kept, or `after=now`."""
        query = q.parse_query(request.scope["query_string"])
        q.refuse_unknown(query, PLACE)
        start = read_feed_start(query, request.headers.get("last-event-id"))

        async def answer() -> Response:
            caller = await self._native.callers.authenticate(request, access.RUNS_READ, tickets=True)
            encoder = FeedSse(caller.grant.agents)
            opening = await self._native.streams.open_feed(caller.grant, start)
            # Who asked for "now" has no other way to say which now it was.
            place = opening.start if start is None else None
            lane = Lane(opening, encoder, encoder.control("stream.open", dict(places_of(opening)), place))
            return self._native.door.respond(caller.grant, [lane], self._farewell, finite=False)

        return await self._native.door.hold(answer)

    def _farewell(self, reason: str, outlet: Outlet) -> Sequence[Message]:
        """Return the last frame of a stream of one log."""
        places = [Cursor(reader.seq, reader.tag).text for reader in outlet.readers]
        return self._native.door.closed(reason, places[0] if places else None)
