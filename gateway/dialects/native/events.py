"""Routes of a run's log: append to it, page through it."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.dialects.native.context import Native, run_id_of, writing_scope
from gateway.dialects.native.lines import StreamedAppend
from gateway.dialects.native.project import written_body
from gateway.dialects.native.starts import read_start, read_types
from gateway.dialects.native.streams import StreamRoutes
from gateway.dialects.native.wire import Append, AppendOne
from gateway.domain import access
from gateway.edge import query as q
from gateway.edge.accepting import wants
from gateway.edge.auth import Credential, require_credential
from gateway.edge.body import decode_json, read_body, too_large
from gateway.edge.express import Express
from gateway.edge.limits import Visit
from gateway.edge.lines import LineResponse
from gateway.edge.plain import Headers
from gateway.errors import InvalidBody, WriterGap
from gateway.service.actors import Caller, check_idempotency_key, parse_run_id
from gateway.service.writing import Batch
from gateway.store.keys import digest

PAGE_BYTES = 4 * 1024 * 1024
HINT_BYTES = 256
"""Of an append's body, where it is looked for what it is."""


class EventRoutes:
    """The log as a resource."""

    def __init__(self, native: Native, streams: StreamRoutes) -> None:
        self._native = native
        self._streams = streams

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/v1/runs/{run_id}/events", self.append, methods=["POST"]),
            Route("/v1/runs/{run_id}/events", self.read, methods=["GET"]),
        ]

    async def append(self, request: Request) -> Response:
        """`POST /v1/runs/{id}/events`: one event, a batch, or a stream of lines."""
        lease = request.headers.get("lease")
        caller = await self._native.callers.authenticate(request, writing_scope(lease))
        run_id = run_id_of(request)
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type == "application/x-ndjson":
            return await self._append_lines(request, caller, run_id)
        q.refuse_unknown(q.parse_query(request.scope["query_string"]), ())
        raw = await read_body(request, limit_bytes=self._native.bounds.batch_bytes)
        return Response(await self._append_body(caller, run_id, lease, raw), media_type="application/json")

    @property
    def express(self) -> Express:
        """Appends of one event or a batch, as they come from whoever appends all the time."""
        before, after = "/v1/runs/", "/events"
        return Express(before, after, "/v1/runs/{run_id}/events", _read_headers, self._append_express)

    async def _append_express(self, about: _AppendHead, name: str, raw: bytes, facts: dict[str, Any]) -> bytes:
        grant = await self._native.callers.grant_key(about.credential.secret)
        facts |= {"tenant": grant.tenant, "key_id": grant.key_id}
        visit = Visit(self._native.limits)
        try:
            await visit.admit(grant.tenant, grant.key_id, len(raw), operator=access.ADMIN in grant.scopes)
            access.require(grant, writing_scope(about.lease))
            caller = Caller(grant, idempotency_key=about.idempotency_key)
            run_id = parse_run_id(name)
            if len(raw) > self._native.bounds.batch_bytes:
                raise too_large("The body", self._native.bounds.batch_bytes)
            await visit.hold(len(raw))
            return await self._append_body(caller, run_id, about.lease, raw)
        finally:
            visit.end()

    async def _append_body(self, caller: Caller, run_id: str, lease: str | None, raw: bytes) -> bytes:
        body = _decode_append(raw)
        batch = Batch(
            events=[event.new_event() for event in body.events],
            writer=body.writer,
            number=body.writer_seq,
            expected_seq=body.expected_seq,
            attempt=body.attempt,
            lease=lease,
        )
        return msgspec.json.encode(written_body(await self._native.writing.append(caller, run_id, batch)))

    async def _append_lines(self, request: Request, caller: Caller, run_id: str) -> Response:
        query = q.parse_query(request.scope["query_string"])
        q.refuse_unknown(query, ("writer", "writer_seq", "attempt"))
        writer = q.read_text(query, "writer", max_chars=128)
        number = q.read_int(query, "writer_seq", low=1, high=2**53)
        if (writer is None) != (number is None):
            raise InvalidBody("Give writer and writer_seq together.", parameter="writer_seq")
        attempt = q.read_int(query, "attempt", low=1, high=2**53)
        key = caller.idempotency_key if writer is None else None
        if key is not None:
            # A stream of lines is recognised by its writer: the key becomes one, its first line the first.
            writer, number = f"key-{digest(key)}", 1
        caller = msgspec.structs.replace(caller, idempotency_key=None)

        async def look_up() -> int:
            return await self._native.writing.writer_position(
                caller, run_id, writer or "", attempt=attempt, any_attempt=key is not None
            )

        # Asked first: once the answer has begun, a refusal could only be told in it.
        position = await look_up()
        if number is not None and number > position + 1:
            raise WriterGap(f"A number was skipped; the next one is {position + 1}.", expected=position + 1)
        lines = StreamedAppend(
            self._native,
            request,
            caller,
            run_id,
            writer=writer,
            number=number,
            position=position,
            look_up=look_up,
            attempt=attempt,
            lease=request.headers.get("lease"),
        )
        return LineResponse(lines.answers())

    async def read(self, request: Request) -> Response:
        """`GET /v1/runs/{id}/events`: a page, or with `Accept: text/event-stream` the stream."""
        if wants(request, "text/event-stream"):
            return await self._streams.run(request)
        caller = await self._native.callers.authenticate(request, access.RUNS_READ, tickets=True)
        query = q.parse_query(request.scope["query_string"])
        q.refuse_unknown(query, ("after", "after_seq", "limit", "types", "ticket"))
        most = self._native.bounds.event_page
        limit = q.read_int(query, "limit", low=1, high=most)
        start = read_start(query, None)
        page = await self._native.streams.page(
            caller.grant,
            run_id_of(request),
            start.cursor,
            limit=min(100, most) if limit is None else limit,
            payload_bytes=PAGE_BYTES,
            types=read_types(query),
        )
        lines = b",".join([entry.line for entry in page.entries])
        about: dict[str, Any] = {
            "next_after": page.after.text,
            "next_after_seq": page.after.seq,
            "head_seq": page.head.seq,
            "has_more": page.has_more,
        }
        if page.verdict.gap is not None:
            about["gap"] = page.verdict.gap
        if page.verdict.reset is not None:
            about["reset"] = page.verdict.reset
        body = b'{"data":[' + lines + b"]," + msgspec.json.encode(about)[1:]
        return Response(body, media_type="application/json")


class _AppendHead(msgspec.Struct, frozen=True):
    """What the headers of an append say."""

    credential: Credential
    lease: str | None
    idempotency_key: str | None


def _read_headers(headers: Headers) -> _AppendHead:
    """Return what the headers of an append say.

    Raises:
        BadRequest, Unauthenticated: what `Callers.authenticate` would refuse.
    """
    texts = [(name, value.decode("latin-1")) for name, value in headers]
    lease = next((value for name, value in texts if name == b"lease"), None)
    key = next((value for name, value in texts if name == b"idempotency-key"), None)
    return _AppendHead(require_credential(headers, {}), lease, check_idempotency_key(key))


def _decode_append(raw: bytes) -> Append:
    """Return a batch; a body that is one event is a batch of it."""
    # Most bodies show early what they are; one that was guessed wrong costs a second look.
    guess = b'"events"' in raw[:HINT_BYTES]
    try:
        return _decode_as(raw, batch=guess)
    except InvalidBody as refusal:
        members = decode_json(raw, dict[str, Any])
        if members.keys().isdisjoint(("events", "type")):
            raise InvalidBody("Expected an event with a type, or a batch with events.", path="$.events") from refusal
        if ("events" in members) is guess:
            raise
    return _decode_as(raw, batch=not guess)


def _decode_as(raw: bytes, *, batch: bool) -> Append:
    return decode_json(raw, Append) if batch else decode_json(raw, AppendOne).batch()
