"""The server's HTTP connections: able to be dropped on purpose, and closed on peers that are gone."""

from __future__ import annotations

import asyncio
import socket
import sys
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from starlette.types import Receive, Scope
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.utils import get_local_addr, is_ssl
from uvicorn.server import ServerState

from gateway.edge.express import Courier, Express
from gateway.edge.heads import HEAD_BYTES, HEAD_S, HeadWatch
from gateway.edge.problems import MEDIA_TYPE, find_status, new_request_id, problem_bytes
from gateway.edge.stream_connection import FLUSH_S, StreamConnection
from gateway.edge.unframed import UnframedCycle
from gateway.errors import BadRequest, GatewayError, HeadTooLarge

if TYPE_CHECKING:
    from gateway.edge.express_stream import ExpressStream

SILENT_S: Final = 60
PROBE_S: Final = 15
PROBES: Final = 4
PIPELINED_REQUESTS: Final = 8
UNSENT_BYTES: Final = 128 * 1024
UNREAD_S: Final = 60.0
UNREAD_BYTES: Final = 64 * 1024
"""What a peer has to take, in so long, of answers that are complete, or all that is left of them."""
# Linux's number, which Python's socket module does not have in every version.
_TCP_NOTSENT_LOWAT: Final = 25
INHERIT: Final = sys.platform == "linux"
_LINUX_OPTIONS: Final = {
    "TCP_KEEPIDLE": SILENT_S,
    "TCP_KEEPINTVL": PROBE_S,
    "TCP_KEEPCNT": PROBES,
}


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's `http=`: its httptools protocol, with a way to end a connection without ending its answer.

    `scope["extensions"]["gateway.drop"]` closes the connection once what was written has left;
    `["gateway.abort"]` closes it at once. Either way the client sees an answer that is cut, not one that
    ends, and the application receives `http.disconnect`.
    `["gateway.take_over"](scope)` leaves an answer that has begun to a `StreamConnection`: see `take_over`.

    Args:
        express: A route whose plain requests are answered without the application.
        streams: A route whose streams are begun without it, beside that.
        tuned: Whether its socket is as `tune_socket` has it.
        head_s: How long the head of a request may take.
        unread_s: How long a peer may take next to nothing of answers that are complete.
    """

    def __init__(
        self,
        *args: Any,
        express: Express | None = None,
        streams: ExpressStream | None = None,
        head_s: float = HEAD_S,
        tuned: bool = False,
        unread_s: float = UNREAD_S,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.tuned = tuned
        self.unread_s = unread_s
        self.unread: asyncio.TimerHandle | None = None
        self.unfinished: list[RequestResponseCycle] = []
        self.aborting: asyncio.TimerHandle | None = None
        self.parsing = False
        self.leaving = False
        self.in_head = True
        self.heads = HeadWatch(self.loop, self.give_up, head_s=head_s)
        self.express = express
        self.streams = streams
        self.courier = None if express is None else Courier(express, self, streams)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # As uvicorn does, but for the addresses of both ends: five calls of the system for what hardly anybody asks.
        self.connections.add(self)
        self.transport = transport
        self.flow = FlowControl(transport)
        self.scheme = "https" if is_ssl(transport) else "http"
        if not self.tuned:
            tune_socket(transport.get_extra_info("socket"))
        self.heads.begin()

    def data_received(self, data: bytes) -> None:
        courier = self.courier
        if courier is None or self.parsing or not (self.cycle is None or self.cycle.response_complete):
            self.pass_on(data)
        else:
            courier.take(data)

    def pass_on(self, data: bytes) -> None:
        """Give what a courier does not take to the parser."""
        within = self.in_head
        if within:
            self.heads.begin()
        super().data_received(data)
        if within and self.heads.awaited and self.heads.take(len(data)) and not self.transport.is_closing():
            self.refuse(
                HeadTooLarge(f"The head of a request has at most {HEAD_BYTES:,} bytes.", limit_bytes=HEAD_BYTES)
            )

    def begin_request(self) -> None:
        """Leave the connection open while a request is answered, however long that takes."""
        self.heads.end()
        self._unset_keepalive_if_required()

    def give_up(self) -> None:
        """End a connection on which no request came in time."""
        self.drop()

    def on_message_begin(self) -> None:
        self.parsing = True
        super().on_message_begin()
        scope: Any = self.scope
        scope["extensions"] = {
            "gateway.drop": self.drop,
            "gateway.abort": self.transport.abort,
            "gateway.take_over": self.take_over,
        }

    def on_headers_complete(self) -> None:
        self.in_head = False
        self.heads.end()
        for name, _ in self.headers:
            if name == b"host":
                break
        else:
            # What a URL begins with, then.
            self.scope["server"] = get_local_addr(self.transport)
        super().on_headers_complete()
        if self.cycle is not None:
            self.cycle.keep_alive = self.cycle.keep_alive and not self.leaving
            if self.cycle.scope["http_version"] == "1.0":
                self.cycle.__class__ = UnframedCycle
            waiting = (cycle for cycle in self.unfinished if not cycle.response_complete)
            self.unfinished = [*waiting, self.cycle]
        if len(self.pipeline) > PIPELINED_REQUESTS:
            self.drop()
        elif self.pipeline:
            # uvicorn stops reading behind a request in progress; it would not see the client of a stream go.
            self.flow.resume_reading()

    def on_message_complete(self) -> None:
        self.parsing, self.in_head = False, True
        super().on_message_complete()

    def leave(self) -> None:
        """Close the connection with its next answer, which says so: the client finds another process.

        An answer under way that has begun stays on an open connection.
        """
        self.leaving = True
        if self.courier is not None and not self.courier.end():
            self.courier = None
        for cycle in self.unfinished:
            if not cycle.response_started:
                cycle.keep_alive = False

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.forget_unread()
        if self.transport.get_write_buffer_size():
            self.watch_unread()

    def watch_unread(self) -> None:
        """Have the connection ended if its peer does not take what it asked for: closing alone would wait for ever."""
        left_bytes = self.transport.get_write_buffer_size()
        self.unread = self.loop.call_later(self.unread_s, self.judge_unread, left_bytes)

    def judge_unread(self, before_bytes: int) -> None:
        """End a connection that took next to nothing; one whose next answer has begun is that answer's to judge."""
        self.unread = None
        left_bytes = self.transport.get_write_buffer_size()
        answering = any(cycle.response_started and not cycle.response_complete for cycle in self.unfinished)
        if left_bytes and not answering and left_bytes > before_bytes - UNREAD_BYTES:
            self.transport.abort()
        elif left_bytes:
            self.watch_unread()

    def forget_unread(self) -> None:
        """Wait for no peer any more."""
        if self.unread is not None:
            self.unread.cancel()
            self.unread = None

    def shutdown(self) -> None:
        """Close the connection, after the answer where a request is under way."""
        if self.courier is not None and self.courier.end():
            return
        super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.courier is not None:
            self.courier.forget()
        if self.aborting is not None:
            self.aborting.cancel()
        self.forget_unread()
        self.heads.end()
        self._disconnect()
        super().connection_lost(exc)

    def drop(self, flush_s: float = FLUSH_S) -> None:
        """End the connection without ending its answers: at once for the application, which can send no more,
        and for the peer once it has what was written, or has not taken it within `flush_s`."""
        if not self.transport.is_closing():
            self.aborting = self.loop.call_later(flush_s, self.transport.abort)
            self._disconnect()
            self.transport.close()

    def take_over(self, scope: Scope) -> StreamConnection | None:
        """Leave the rest of an answer to whoever calls; the application must then return, and send nothing more.

        None, and nothing has changed, where the connection is not the answer's alone: another request waits behind
        it or is being read, or the peer has left. The answer must be chunked, and its head must have been sent.
        """
        cycle = self.cycle
        alone = cycle is not None and cycle.scope is scope and self.scope is scope and not self.pipeline
        if not alone or cycle.more_body or cycle.disconnected or not cycle.chunked_encoding:
            return None
        if self.transport.is_closing():
            return None
        stream = self._give_away(keep_alive=cycle.keep_alive)
        # To uvicorn a peer that left: it then expects no end of the answer.
        cycle.disconnected = True
        cycle.scope = None  # type: ignore[assignment]
        return stream

    def begin_stream(self, head: bytes, *, keep_alive: bool) -> StreamConnection | None:
        """Leave the connection to a stream whose head is yet to be written; None where the peer has left."""
        if self.transport.is_closing():
            return None
        stream = self._give_away(keep_alive=keep_alive)
        stream.owe(head)
        return stream

    def _give_away(self, *, keep_alive: bool) -> StreamConnection:
        self.connections.discard(self)
        self.forget_unread()
        options = {"express": self.express, "streams": self.streams}
        go_back = partial(_serve_next, self.config, self.server_state, self.app_state, options)
        stream = StreamConnection(self.transport, self.connections, go_back if keep_alive else None)
        if self.flow.write_paused:
            stream.pause_writing()
        # What only a request needs would live on in circles.
        self.parser = self.cycle = self.scope = self.headers = None  # type: ignore[assignment]
        self.courier = self.heads = None  # type: ignore[assignment]
        self.unfinished = []
        return stream

    def _disconnect(self) -> None:
        # uvicorn tells only the newest request: a stream with another request pipelined behind it would
        # never learn that its client has gone.
        for cycle in self.unfinished:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self.flow.resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse bytes that are not HTTP."""
        self.refuse(BadRequest(msg))

    def refuse(self, error: GatewayError) -> None:
        """Answer instead of the application, and close; an answer that has begun is cut instead of written into."""
        if not any(cycle.response_started and not cycle.response_complete for cycle in self.unfinished):
            self.transport.write(_refuse_bytes(error))
        self.drop()


def _serve_next(
    config: Config,
    server_state: ServerState,
    app_state: dict[str, Any],
    options: dict[str, Any],
    transport: asyncio.Transport,
    early: bytes,
) -> None:
    """Serve the next request of a connection whose stream is complete, from what came of it meanwhile."""
    fresh = HttpProtocol(config, server_state, app_state, tuned=True, **options)
    transport.set_protocol(fresh)
    fresh.connection_made(transport)
    fresh.on_response_complete()
    if early:
        fresh.data_received(early)


def _refuse_bytes(error: GatewayError) -> bytes:
    request_id = new_request_id()
    body = problem_bytes(error, request_id)
    status = HTTPStatus(find_status(error))
    head = f"""HTTP/1.1 {status.value} {status.phrase}
content-type: {MEDIA_TYPE}
content-length: {len(body)}
x-request-id: {request_id}
connection: close

"""
    return head.replace("\n", "\r\n").encode("ascii") + body


async def drop(scope: Scope, receive: Receive, *, flush_s: float = FLUSH_S) -> None:
    """End the connection of `scope` without ending its answer; see `HttpProtocol.drop`."""
    scope["extensions"]["gateway.drop"](flush_s)
    while (await receive())["type"] != "http.disconnect":
        pass


def tune_socket(sock: socket.socket | None) -> None:
    """Send small frames at once, and notice a silent peer that vanished: after `SILENT_S` and four lost probes.

    The kernel takes `UNSENT_BYTES` for a peer that does not read, not the megabytes that it would let a buffer grow to;
    what is on its way to one that reads is not counted.

    One that owes an acknowledgement is given up by TCP's own retransmission limit: a shorter user timeout would
    also end a reader that lives and only does not read.

    Where connections `INHERIT`, a listening socket that is tuned spares each of them these calls of the system.
    """
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    for name, value in _LINUX_OPTIONS.items():
        if (option := getattr(socket, name, None)) is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
