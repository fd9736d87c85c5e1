"""One kind of request, answered from the connection itself: no scope, no layers, no reading of a body in pieces.

Recognised is only what is whole and plain; everything else goes the application's way and is answered there, in the
same words. So a rule needs to be known here only if it says what is plain.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from gateway import telemetry, tracing
from gateway.edge.body import explain_undecodable
from gateway.edge.plain import (
    DEFAULTS,
    HEAD_BYTES,
    NAME_BYTES,
    STATUS_LINES,
    UNUSUAL,
    Headers,
    join_fields,
    parse_headers,
)
from gateway.edge.problems import REQUEST_ID_PATTERN, new_request_id, problem_response
from gateway.edge.stream_connection import EARLY_BYTES, StreamConnection
from gateway.edge.traces import parse_trace
from gateway.errors import GatewayError

if TYPE_CHECKING:
    from gateway.edge.express_stream import ExpressStream

BODY_BYTES: Final = 256 * 1024
"""The largest body that is waited for here; a larger one is read in pieces, elsewhere."""

_KEEP_ALIVE: Final = b"keep-alive"
_JSON: Final = b"application/json"

log = logging.getLogger("gateway.requests")


class Express(msgspec.Struct, frozen=True):
    """A route that is answered so: `POST`, one variable part in its path, a JSON body, 200 with a JSON body.

    Args:
        before, after: The path around its variable part.
        route: The template of the path, for metrics.
        prepare: Makes of a request's headers what `handle` wants to know of them, once for all requests of a
            connection that have the same; a request for which it raises a GatewayError is not answered here.
        handle: Takes that, the variable part, the body, and facts to add to for the log; returns the body of the
            answer, or raises the refusal.
        part_s: How long the rest of a body is waited for here, before the application waits for it in its own way.
    """

    before: str
    after: str
    route: str
    prepare: Callable[[Headers], Any]
    handle: Callable[[Any, str, bytes, dict[str, Any]], Awaitable[bytes]]
    part_s: float = 5.0


class Head(msgspec.Struct, frozen=True):
    """What a request's header lines say."""

    about: Any
    body_bytes: int
    request_id: str | None
    trace_id: str | None = None


class Line(Protocol):
    """What a courier needs of its connection: uvicorn's protocol has it."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    flow: Any
    server_state: Any

    def on_response_complete(self) -> None:
        """Go on to the next request."""

    def pass_on(self, data: bytes) -> None:
        """Give bytes to the parser, for the application."""

    def begin_request(self) -> None:
        """Note that the connection is not idle."""

    def begin_stream(self, head: bytes, *, keep_alive: bool) -> StreamConnection | None:
        """Leave the connection to a stream, `head` about to be written; None where the peer has left."""

    def drop(self) -> None:
        """End the connection."""


class Courier:
    """The requests of one connection that go the short way; asked for all bytes that come between two requests."""

    def __init__(self, express: Express, line: Line, streams: ExpressStream | None = None) -> None:
        self._express = express
        self._streams = streams
        self._line = line
        self._begins = b"POST " + express.before.encode()
        self._ends = express.after.encode() + b" HTTP/1.1\r\n"
        self._name = ""
        self._serving: asyncio.Task[None] | None = None
        self._lines, self._head = b"", Head(None, -1, None)
        self._held = b""
        self._part, self._awaited_bytes = bytearray(), 0
        self._patience: asyncio.TimerHandle | None = None
        self._quiet_bytes = 0
        self.busy = False
        self.closing = False

    def take(self, data: bytes) -> None:
        """Take what came, or leave it, and what was held before it, to the application."""
        if self._patience is not None:
            self._part += data
            if len(self._part) < self._awaited_bytes:
                # However it drips, it has no more time for it.
                return
            data = self.forget()
        elif self._held:
            data, self._held = self._held + data, b""
        if self.busy:
            self._held = data
            if len(data) > self._quiet_bytes:
                self._line.flow.pause_reading()
            return
        if self._streams is not None and data.startswith(b"GET "):
            self._attend(self._streams, data)
            return
        length = self._measure(data)
        if length < 0:
            self._line.pass_on(data)
        elif length > len(data):
            self._line.begin_request()
            self._part += data
            self._awaited_bytes = length
            self._patience = self._line.loop.call_later(self._express.part_s, self.give_up)
        else:
            self._begin(data, length)

    def give_up(self) -> None:
        """Leave a request that has come in part to the application."""
        data = self.forget()
        if data:
            self._line.pass_on(data)

    def end(self) -> bool:
        """Have the connection closed after the answer under way, or tell that there is none."""
        self.closing = self.busy
        if not self.busy:
            self.give_up()
        return self.busy

    def forget(self) -> bytes:
        """Wait for nothing more; return what had come of a request."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        data, self._part = bytes(self._part), bytearray()
        return data

    def _measure(self, data: bytes) -> int:
        """Return the length of the request that begins here, -1 when it is none for this way, or in parts."""
        begin = len(self._begins)
        target = data.find(self._ends, begin, begin + NAME_BYTES)
        start = target + len(self._ends)
        end = data.find(b"\r\n\r\n", start, start + HEAD_BYTES)
        if target < 0 or end < 0 or not data.startswith(self._begins) or not data[begin:target].isalnum():
            return -1
        lines = data[start:end]
        if lines != self._lines:
            self._lines, self._head = lines, read_head(lines, self._express.prepare)
        self._name = data[begin:target].decode("ascii")
        return -1 if self._head.body_bytes < 0 else end + 4 + self._head.body_bytes

    def _begin(self, data: bytes, length: int) -> None:
        self._line.begin_request()
        self.busy = True
        self._held = data[length:]
        name = self._name
        body = data[length - self._head.body_bytes : length]
        self._serving = self._line.loop.create_task(self._serve(self._head, name, body))

    def _attend(self, streams: ExpressStream, data: bytes) -> None:
        asked = streams.read(data)
        if asked is None:
            self._line.pass_on(data)
            return
        self._line.begin_request()
        self.busy = True
        self._held = data[asked.size :]
        # A peer that leaves while its stream is opened is only seen by who reads.
        self._quiet_bytes = EARLY_BYTES
        self._serving = self._line.loop.create_task(streams.serve(asked.scope, self))

    async def answer(self, status: int, fields: bytes, payload: bytes) -> None:
        """Write an answer, once the connection takes it, and go on to the next request."""
        line = self._line
        if line.flow.write_paused and not line.transport.is_closing():
            await line.flow.drain()
        self._answer(status, fields, payload)

    def begin_stream(self, fields: bytes) -> StreamConnection | None:
        """Leave the connection to a stream, its head about to be written; None where the peer has left."""
        if self.closing:
            fields += b"connection: close\r\n"
        head = b"%b%b%b\r\n" % (STATUS_LINES[200], DEFAULTS.join(self._line.server_state.default_headers), fields)
        stream = self._line.begin_stream(head, keep_alive=not self.closing)
        if stream is not None and self._held:
            stream.data_received(self._held)
        return stream

    def drop(self) -> None:
        """End the connection without an answer."""
        self._line.drop()

    async def _serve(self, head: Head, name: str, body: bytes) -> None:
        began_s = time.perf_counter()
        request_id = head.request_id or new_request_id()
        facts: dict[str, Any] = {"run_id": name}
        telemetry.request_id.set(request_id)
        telemetry.trace_id.set(head.trace_id)
        telemetry.run_id.set(name)
        try:
            payload = await self._express.handle(head.about, name, body, facts)
        except (GatewayError, msgspec.DecodeError) as error:
            refusal = error if isinstance(error, GatewayError) else explain_undecodable(error)
            response = problem_response(refusal, request_id)
            status, fields, payload = response.status_code, join_fields(response), bytes(response.body)
        except Exception:
            path = f"{self._express.before}{name}{self._express.after}"
            log.exception("request failed", extra={"method": "POST", "path": path})
            response = problem_response(Exception(), request_id)
            status, fields, payload = response.status_code, join_fields(response), bytes(response.body)
        else:
            status, fields = 200, b"content-length: %d\r\ncontent-type: application/json\r\n" % len(payload)
        telemetry.observe_answer(
            route=self._express.route,
            method="POST",
            status=status,
            waited_s=time.perf_counter() - began_s,
        )
        line = self._line
        if line.flow.write_paused and not line.transport.is_closing():
            await line.flow.drain()
        self._answer(
            status, fields + b"x-request-id: %b\r\nx-content-type-options: nosniff\r\n" % request_id.encode(), payload
        )
        facts["bytes"] = len(payload)
        telemetry.tell_answer(
            route=self._express.route,
            method="POST",
            path=f"{self._express.before}{name}{self._express.after}",
            status=status,
            took_s=time.perf_counter() - began_s,
            facts=facts,
        )

    def _answer(self, status: int, fields: bytes, payload: bytes) -> None:
        line = self._line
        self.busy, self._quiet_bytes = False, 0
        if line.transport.is_closing():
            return
        if self.closing:
            fields += b"connection: close\r\n"
        defaults = DEFAULTS.join(line.server_state.default_headers)
        line.transport.write(b"%b%b%b\r\n%b" % (STATUS_LINES[status], defaults, fields, payload))
        line.on_response_complete()
        if self.closing:
            line.transport.close()
        elif self._held:
            self.take(b"")


def read_head(lines: bytes, prepare: Callable[[Headers], Any]) -> Head:
    """Return what header lines say; `body_bytes` is -1 where the request is none for the short way."""
    if tracing.is_on():
        # What a trace wants to know of a request is told by the application's way.
        return _NOT_HERE
    headers = parse_headers(b"POST / HTTP/1.1\r\n" + lines + b"\r\n\r\n")
    named = dict(headers)
    length = named.get(b"content-length", b"")
    kind = named.get(b"content-type", _JSON).partition(b";")[0].strip().lower()
    keeps = named.get(b"connection", _KEEP_ALIVE).lower() == _KEEP_ALIVE
    once = sum(name in (b"content-length", b"content-type", b"connection") for name, _ in headers)
    plain = once == len(named.keys() & {b"content-length", b"content-type", b"connection"})
    if not (plain and length.isdigit() and keeps and kind == _JSON and not named.keys() & UNUSUAL):
        return _NOT_HERE
    if len(length) > 9 or int(length) > BODY_BYTES:
        return _NOT_HERE
    try:
        about = prepare(headers)
    except GatewayError:
        return _NOT_HERE
    shown = (value for name, value in headers if name == b"x-request-id" and REQUEST_ID_PATTERN.fullmatch(value))
    request_id = next(shown, None)
    trace = parse_trace(named.get(b"traceparent", b"").decode("latin-1"))
    return Head(
        about,
        int(length),
        None if request_id is None else request_id.decode("ascii"),
        None if trace is None else trace.trace_id,
    )


_NOT_HERE: Final = Head(None, -1, None)
