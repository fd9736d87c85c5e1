"""A WebSocket as the gateway speaks it: its subprotocol, what counts as a frame, and the frames that answer one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

import msgspec
from starlette.websockets import WebSocket
from websockets.frames import Frame, Opcode

from gateway.edge.body import check_nesting, load_halved
from gateway.edge.frames import Message
from gateway.edge.problems import problem_bytes, problem_response, request_id_of
from gateway.errors import BadRequest, GatewayError

SUBPROTOCOL: Final = "gateway.v1"
ID_CHARS: Final = 128

_encode: Final = msgspec.json.Encoder().encode
_SURROGATES: Final = re.compile("[\ud800-\udfff]")


class NotAFrame(Exception):
    """What came is no JSON object in a text frame; nothing can be answered to it."""


class Envelope(msgspec.Struct, frozen=True):
    """What every frame of a client has: a type, and an id if it wants to be answered by it."""

    id: Any = None
    type: Any = None

    @property
    def answer_id(self) -> str | None:
        """The id to answer with; none for one that is not 1 to 128 characters."""
        given = isinstance(self.id, str) and 0 < len(self.id) <= ID_CHARS
        return self.id if given and _SURROGATES.search(self.id) is None else None


_read_envelope: Final = msgspec.json.Decoder(Envelope).decode


def read_envelope(raw: bytes) -> Envelope:
    """Return who is to be answered, and what a frame claims to be; its other members are not looked at.

    Raises:
        NotAFrame: not a JSON object.
        BadRequest: nested deeper than 128 levels.
    """
    check_nesting(raw)
    try:
        return _read_envelope(raw)
    except msgspec.ValidationError:
        raise NotAFrame("not a JSON object") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _read_halved(raw)


def _read_halved(raw: bytes) -> Envelope:
    """Return who is to be told that a frame has half of a character: a string that was cut ends no socket."""
    try:
        members = load_halved(raw)
    except ValueError:
        raise NotAFrame("not JSON") from None
    if not isinstance(members, dict):
        raise NotAFrame("not a JSON object")
    return Envelope(members.get("id"), members.get("type"))


def json_frame(value: object) -> Message:
    """Return the message that carries one JSON value as a frame."""
    return _written([_encode(value)])


def error_frame(answer_id: str | None, error: Exception, request_id: str) -> Message:
    """Return the frame that says why a command was not done."""
    problem = problem_bytes(error, request_id)
    return _written([b'{"type":"error","id":%b,"problem":%b}' % (_encode(answer_id), problem)])


def event_frames(head: bytes, events: Iterable[tuple[bytes, bytes]]) -> list[Message]:
    """Return one message of a frame for each (cursor, event) pair, encoded once for all readers; none for no pairs.

    Args:
        head: The first members of each frame, without its brace.
    """
    message = _written([b'{%b,"cursor":"%b","event":%b}' % (head, cursor, event) for cursor, event in events])
    return [message] if message["wire"] else []


def _written(payloads: Iterable[bytes]) -> Message:
    frames = [Frame(Opcode.TEXT, payload).serialize(mask=False) for payload in payloads]
    return {"type": "gateway.wire", "wire": b"".join(frames)}


class Connection:
    """One WebSocket: `send` may be stepped outside of a task, `write` takes frames or says that it does not now,
    `close` reaches a peer that takes nothing."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self.scope = websocket.scope
        self.send = websocket.scope["extensions"]["gateway.send"]
        self.write = websocket.scope["extensions"]["gateway.write"]
        self.close = websocket.scope["extensions"]["gateway.close"]
        self._waiting = websocket.scope["extensions"]["gateway.waiting"]
        self.unsent = websocket.scope["extensions"]["gateway.unsent"]
        self.peer = websocket.scope["extensions"]["gateway.peer"]
        self.request_id = request_id_of(websocket.scope)

    def check_subprotocol(self) -> None:
        """Let clients pass that offer the gateway's subprotocol, or none.

        Raises:
            BadRequest: only others are offered.
        """
        offered = self.scope["subprotocols"]
        if offered and SUBPROTOCOL not in offered:
            detail = f"This WebSocket speaks the subprotocol {SUBPROTOCOL}, which was not offered."
            raise BadRequest(detail, offered=offered[:16], supported=[SUBPROTOCOL])

    async def accept(self) -> None:
        """Open the WebSocket, in the subprotocol if it was offered."""
        offered = SUBPROTOCOL in self.scope["subprotocols"]
        with suppress(OSError):  # it has left already; `receive` will say so
            await self._websocket.accept(SUBPROTOCOL if offered else None)

    async def deny(self, error: GatewayError) -> None:
        """Answer the handshake with a problem instead."""
        with suppress(OSError):
            await self._websocket.receive()
            await self._websocket.send_denial_response(problem_response(error, self.request_id))

    async def receive(self) -> bytes | None:
        """Return the next text frame, None once the connection is gone.

        Raises:
            NotAFrame: it is a binary one.
        """
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            return None
        text: str | None = message.get("text")
        if text is None:
            raise NotAFrame("binary")
        return text.encode()

    def take_waiting(self, most: int) -> list[bytes]:
        """Return text frames that have come meanwhile, at most so many."""
        return [text.encode() for text in self._waiting(most)]
