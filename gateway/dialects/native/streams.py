"""Routes that stream over SSE: one run, its text, several runs, a thread, the feed, a run just created."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.dialects.native.context import Native, answer_run, run_id_of
from gateway.dialects.native.encoders import FeedSse, ManySse, Places, RunSse
from gateway.dialects.native.runs import RunRoutes
from gateway.dialects.native.threads import ThreadStream
from gateway.domain import access
from gateway.domain.cursor import START, Cursor, parse, parse_many
from gateway.domain.events import TypeFilter
from gateway.edge import query as q
from gateway.edge.frames import Message, sse_control
from gateway.entry.streaming import Lane
from gateway.errors import BadRequest, GatewayError
from gateway.hub.outlet import Outlet
from gateway.hub.reader import Encoder
from gateway.service.actors import Caller, parse_run_id
from gateway.service.folds import Snapshot
from gateway.service.streams import Opening, Start

POSITION = ("after", "after_seq", "types", "snapshot", "ticket")
DELTAS = TypeFilter.parse("message.delta")


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

    async def create(self, request: Request) -> Response:
        """`POST /v1/runs`, `POST /v1/threads/{t}/runs`: a run, or with `?stream=true` its stream."""
        caller = await self._native.callers.authenticate(request, access.RUNS_WRITE)
        query = q.parse_query(request.scope["query_string"])
        q.refuse_unknown(query, ("stream", "types"))
        types, streamed = read_types(query), q.read_flag(query, "stream")
        if streamed:
            access.require(caller.grant, access.RUNS_READ)
        run = await self._runs.create(request, caller)
        if not streamed:
            return answer_run(run, 201)
        response = await self._native.door.hold(lambda: self._one(caller, run.id, Start(START), types, snapshot=False))
        response.headers["Location"] = f"/v1/runs/{run.id}"
        return response

    async def run(self, request: Request) -> Response:
        """`GET /v1/runs/{id}/stream`: the run's events from where the reader stands."""
        return await self._run(request, None)

    async def chunks(self, request: Request) -> Response:
        """`GET /v1/runs/{id}/stream/chunks`: the deltas of its messages only."""
        return await self._run(request, DELTAS)

    async def _run(self, request: Request, only: TypeFilter | None) -> Response:
        query = q.parse_query(request.scope["query_string"])
        q.refuse_unknown(query, POSITION)
        start = read_start(query, request.headers.get("last-event-id"))
        types = only or read_types(query)
        snapshot = q.read_flag(query, "snapshot")
        run_id = run_id_of(request)

        async def answer() -> Response:
            caller = await self._native.callers.authenticate(request, access.RUNS_READ, tickets=True)
            return await self._one(caller, run_id, start, types, snapshot=snapshot)

        return await self._native.door.hold(answer)

    async def _one(
        self, caller: Caller, run_id: str, start: Start, types: TypeFilter | None, *, snapshot: bool
    ) -> Response:
        encoder = RunSse(run_id, types)
        taken = None
        if snapshot and start.cursor.seq == 0 and not start.malformed:
            taken = await self._native.folds.snapshot(caller.grant, run_id)
            preface = snapshot_frames(encoder, taken)
            start = Start(taken.as_of)
        opening = await self._native.streams.open_run(caller.grant, run_id, start, types)
        lane = Lane(opening, encoder, [*opened(encoder, opening), *(preface if taken else ())])
        if taken:
            # The snapshot itself is something that follows.
            lane = Lane(_expecting(opening), encoder, lane.preface)
        return self._native.door.respond(caller.grant, [lane], _farewell)

    async def many(self, request: Request) -> Response:
        """`GET /v1/stream?run=…&run=…`: up to sixteen runs on one stream."""
        query = q.parse_query(request.scope["query_string"])
        q.refuse_unknown(query, (*POSITION, "run"))
        most = self._native.bounds.stream_runs
        run_ids = [parse_run_id(text) for text in q.read_many(query, "run", most=most)]
        if not run_ids or len(set(run_ids)) != len(run_ids):
            raise BadRequest(f"run: name 1 to {most} different runs.", parameter="run")
        starts = _read_starts(query, request.headers.get("last-event-id"), len(run_ids))
        types, snapshot = read_types(query), q.read_flag(query, "snapshot")

        async def answer() -> Response:
            caller = await self._native.callers.authenticate(request, access.RUNS_READ, tickets=True)
            return await self._many(caller, dict(zip(run_ids, starts, strict=True)), types, snapshot=snapshot)

        return await self._native.door.hold(answer)

    async def _many(
        self, caller: Caller, starts: dict[str, Start], types: TypeFilter | None, *, snapshot: bool
    ) -> Response:
        places = Places({run_id: start.cursor for run_id, start in starts.items()})
        lanes: list[Lane] = []
        try:
            for run_id, start in starts.items():
                encoder = ManySse(run_id, types, places)
                shown: Sequence[Message] = ()
                if snapshot and start.cursor.seq == 0 and not start.malformed:
                    taken = await self._native.folds.snapshot(caller.grant, run_id)
                    shown, start = snapshot_frames(encoder, taken), Start(taken.as_of)
                opening = await self._native.streams.open_run(caller.grant, run_id, start, types)
                opening = _expecting(opening) if shown else opening
                lanes.append(Lane(opening, encoder, [*opened(encoder, opening), *shown]))
        except BaseException:
            self._native.door.release(lanes)
            raise

        def farewell(reason: str, _outlet: Outlet) -> Sequence[Message]:
            return [sse_control("stream.closed", {"reason": reason, "resume_after": places.text})]

        return self._native.door.respond(caller.grant, lanes, farewell)

    async def thread(self, request: Request) -> Response:
        """`GET /v1/threads/{t}/stream`: all runs of a thread, those to come included."""
        query = q.parse_query(request.scope["query_string"])
        q.refuse_unknown(query, ("after", "types", "ticket"))
        thread_id = request.path_params["thread_id"]
        position = request.headers.get("last-event-id") or q.read_text(query, "after", max_chars=8_192)
        types = read_types(query)

        async def answer() -> Response:
            caller = await self._native.callers.authenticate(request, access.RUNS_READ, tickets=True)
            stream = ThreadStream(self._native, caller.grant, thread_id, types)
            return await stream.respond(position)

        return await self._native.door.hold(answer)

    async def feed(self, request: Request) -> Response:
        """`GET /v1/feed`: status changes of the tenant's runs, from now on unless a position is given."""
        query = q.parse_query(request.scope["query_string"])
        q.refuse_unknown(query, ("after", "after_seq", "ticket"))
        start = read_start(query, request.headers.get("last-event-id"))

        async def answer() -> Response:
            caller = await self._native.callers.authenticate(request, access.RUNS_READ, tickets=True)
            encoder = FeedSse(caller.grant.agents)
            opening = await self._native.streams.open_feed(caller.grant, start)
            facts = {"first_seq": opening.head.first_seq, "head_seq": opening.head.seq, "after_seq": start.cursor.seq}
            lane = Lane(opening, encoder, encoder.control("stream.open", facts))
            return self._native.door.respond(caller.grant, [lane], _farewell, finite=False)

        return await self._native.door.hold(answer)


def opened(encoder: Encoder, opening: Opening) -> Sequence[Message]:
    """Return the first frame of a run's stream."""
    head = opening.head
    facts: dict[str, Any] = {"status": head.status, "first_seq": head.first_seq, "head_seq": head.seq}
    return encoder.control("stream.open", facts | {"after_seq": opening.verdict.after_seq})


def snapshot_frames(encoder: Encoder, taken: Snapshot) -> Sequence[Message]:
    """Return the frame of a folded state; encoded at once, since the fold grows on."""
    facts = {"as_of_seq": taken.as_of.seq, "state": taken.state}
    return encoder.control("stream.snapshot", facts, taken.as_of)


def _expecting(opening: Opening) -> Opening:
    return Opening(opening.channel, opening.head, opening.start, opening.verdict, nothing_follows=False)


def _farewell(reason: str, outlet: Outlet) -> Sequence[Message]:
    resume_after = None
    for reader in outlet.readers:
        resume_after = Cursor(reader.seq, reader.tag).text
    return [sse_control("stream.closed", {"reason": reason, "resume_after": resume_after})]


def read_types(query: q.Query) -> TypeFilter | None:
    """Return the filter that `types=` spells."""
    text = q.read_text(query, "types")
    return TypeFilter.parse(text) if text else None


def read_start(query: q.Query, last_event_id: str | None) -> Start:
    """Return where a reader begins: `Last-Event-ID`, `after`, `after_seq`, else the beginning.

    Raises:
        BadRequest: a malformed parameter; a malformed header is told in the stream.
    """
    return _read_starts(query, last_event_id, 1)[0]


def _read_starts(query: q.Query, last_event_id: str | None, count: int) -> list[Start]:
    after = q.read_text(query, "after", max_chars=8_192)
    after_seq = q.read_int(query, "after_seq", low=0, high=2**53)
    asked = [START] * count if after_seq is None else [Cursor(after_seq)] * count
    if after is not None:
        asked = parse_many(after, count) if count > 1 else [parse(after)]
    if not last_event_id:
        return [Start(cursor) for cursor in asked]
    try:
        return [Start(cursor) for cursor in parse_many(last_event_id, count)]
    except GatewayError:
        return [Start(START, malformed=True)] * count
