"""The server's WebSocket connections: closed with codes that say why, and bounded whatever the peer does."""

from __future__ import annotations

from enum import IntEnum
from functools import partial
from typing import Any, Final

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets import frames
from websockets.protocol import State
from websockets.server import ServerProtocol

from gateway.edge.peers import peer_of

FLUSH_S: Final = 5.0
SHUTDOWN_FLUSH_S: Final = 0.5
REASON_BYTES: Final = 123


class CloseCode(IntEnum):
    """Why the gateway closes a WebSocket."""

    FAILED = 1011
    RESTARTING = 1012
    TRY_AGAIN = 1013
    NOT_A_FRAME = 4400
    UNAUTHENTICATED = 4401
    SILENT = 4408
    TOO_LARGE = 4413


class _Frames(ServerProtocol):
    """The framing, saying `4413` where a message is too large."""

    def fail(self, code: int, reason: str = "") -> None:
        super().fail(CloseCode.TOO_LARGE if code == frames.CloseCode.MESSAGE_TOO_BIG else code, reason)


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's `ws=`: its own protocol, with the gateway's close codes, and bounds for what a peer may cost.

    `scope["extensions"]["gateway.close"](code, reason)` closes the connection even while it takes nothing.
    `send` also takes `{"type": "gateway.wire", "wire": …}`: frames as they go over the wire, written at once;
    `["gateway.write"](wire)` writes them too, or returns False with nothing written while the peer takes no more.
    `["gateway.waiting"](most)` returns the text frames that have come and that nobody has received yet.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = _Frames(max_size=self.config.ws_max_size, logger=self.logger)
        self.fragments = bytearray()
        self.owed_pongs: list[bytes] = []
        self.took_bytes = False

    async def run_asgi(self) -> None:
        extensions: Any = self.scope["extensions"]
        extensions["gateway.close"] = self.close_with
        extensions["gateway.write"] = self.write
        extensions["gateway.waiting"] = self.take_waiting
        extensions["gateway.unsent"] = self.transport.get_write_buffer_size
        extensions["gateway.peer"] = partial(peer_of, self.transport)
        await super().run_asgi()

    async def send(self, message: Any) -> None:
        if message["type"] != "gateway.wire":
            await super().send(message)
            return
        if not self.writable.is_set():
            await self.writable.wait()
        if self._is_over():
            raise ClientDisconnected
        self.transport.write(message["wire"])

    def write(self, wire: bytes) -> bool:
        """Write whole frames; False, with nothing written, while the transport takes no more."""
        if not self.writable.is_set() or self._is_over():
            return False
        self.transport.write(wire)
        return True

    def take_waiting(self, most: int) -> list[str]:
        """Return text frames that `receive` would return without waiting, at most so many.

        Where no more than that are left, the next ones are read while these are worked on.
        """
        texts: list[str] = []
        while len(texts) < most and not self.queue.empty():
            message: Any = self.queue.get_nowait()
            text = message.get("text")
            if text is None:
                # Whatever it is, `receive` is who tells it.
                rest = [message]
                while not self.queue.empty():
                    rest.append(self.queue.get_nowait())
                for each in rest:
                    self.queue.put_nowait(each)
                break
            texts.append(text)
        if self.read_paused and self.queue.qsize() <= most and not self.transport.is_closing():
            self.read_paused = False
            self.transport.resume_reading()
        return texts

    def _is_over(self) -> bool:
        return self.disconnected or self.close_sent or self.conn.state is not State.OPEN

    def close_with(self, code: int, reason: str = "", flush_s: float = FLUSH_S) -> None:
        """Close the connection after what was written, or by force if the peer has not taken that in `flush_s`."""
        if self.transport.is_closing() or self.close_sent or self.conn.state is not State.OPEN:
            return
        self.conn.send_close(code, reason.encode()[:REASON_BYTES].decode(errors="ignore"))
        self._write_last(code, reason, flush_s)

    def _write_last(self, code: int, reason: str, flush_s: float = FLUSH_S) -> None:
        self.stop_keepalive()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(flush_s, self.transport.abort)

    def shutdown(self) -> None:
        if not self.handshake_complete:
            super().shutdown()
            return
        self.close_with(CloseCode.RESTARTING, "drain")
        self._close_soon(SHUTDOWN_FLUSH_S)

    def _close_soon(self, flush_s: float) -> None:
        self.transport.close()
        # A transport that is closed still waits, for ever, for its peer to take what was written.
        self.loop.call_later(flush_s, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            # Refused while its head was read: uvicorn has no event for that, and would leave it open.
            self.handshake_initiated = True
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    def handle_parser_exception(self) -> None:
        sent = self.conn.close_sent
        if self.close_sent:
            return
        if sent is None:
            self.transport.abort()
            return
        self._write_last(sent.code, sent.reason)
        # Half-closed, and read on: closing while bytes are unread would have the peer lose the close frame.
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def handle_close(self, event: frames.Frame) -> None:
        super().handle_close(event)
        if self.transport.is_closing():
            self.loop.call_later(FLUSH_S, self.transport.abort)

    def handle_cont(self, event: frames.Frame) -> None:
        # In one buffer: a list would grow by an entry for every empty fragment.
        self.fragments += event.data
        if event.fin:
            self.frames.append(bytes(self.fragments))
            self.fragments.clear()
            self.send_receive_event_to_app()

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text" and not _is_utf8(self.frames):
            self.frames = []
            self.close_with(CloseCode.NOT_A_FRAME, "not UTF-8")
            return
        super().send_receive_event_to_app()

    def handle_ping(self) -> None:
        if self.writable.is_set():
            super().handle_ping()
        else:
            # RFC 6455 5.5.3: only the latest need be answered; a peer that reads nothing is not owed more.
            self.owed_pongs = self.conn.data_to_send()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.took_bytes = True
        owed, self.owed_pongs = self.owed_pongs, []
        if owed and not self.close_sent:
            self.transport.write(b"".join(owed))

    def send_keepalive_ping(self) -> None:
        self.took_bytes = False
        super().send_keepalive_ping()

    def keepalive_timeout(self) -> None:
        self.pong_timer = self.pending_ping_payload = None
        if self.read_paused or self.took_bytes:
            # Its pong may wait unread behind commands, or the ping may not have reached it yet behind events.
            self.schedule_ping()
        else:
            self.close_with(CloseCode.SILENT, "no pong")


def _is_utf8(pieces: list[bytes]) -> bool:
    try:
        b"".join(pieces).decode()
    except UnicodeDecodeError:
        return False
    return True
