"""A client's end of a connection: an ASGI `send`, and what a client makes of the messages that come through it."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from typing import Any

import msgspec

from gateway.domain.cursor import START, Cursor
from gateway.hub.outlet import Message
from gateway.store.log import Entry


class Plain:
    """An encoder that leaves entries as they are; as bytes, for connections that take those, a line of JSON each."""

    def __init__(self, key: Hashable | None = "plain") -> None:
        self.key = key

    def encode(self, entries: Sequence[Entry]) -> list[Message]:
        """Return one message for all entries."""
        return [_with_wire({"entries": list(entries)})]

    def control(self, name: str, facts: dict[str, Any], cursor: Cursor | None = None) -> list[Message]:
        """Return a message of the frame's name and facts."""
        return [_with_wire({"control": name, **facts})]


def _with_wire(message: Message) -> Message:
    return {**message, "wire": msgspec.json.encode(message) + b"\n"}


def _read_wire(line: bytes) -> Message:
    message: Message = msgspec.json.decode(line)
    if "entries" in message:
        message["entries"] = msgspec.convert(message["entries"], list[Entry])
    return message


class Client:
    """Takes messages while `open`; keeps what a client would keep, and fails on what no client could follow.

    `held` is seq → tag of the events that the client believes in, `controls` are the frames that it was told.
    """

    def __init__(self, after: Cursor = START, held: dict[int, int] | None = None) -> None:
        self.at = after
        self.held = dict(held or {})
        self.controls: list[Message] = []
        self.messages: list[Message] = []
        self.waiting = 0
        self.most_waiting = 0
        self.hung_up = False
        self.violations: list[str] = []
        self._open = asyncio.Event()
        self._open.set()

    def stop_reading(self) -> None:
        """Take nothing more for now: a `send` suspends, as one does whose transport is full."""
        self._open.clear()

    def read_on(self) -> None:
        """Take everything again."""
        self._open.set()

    @property
    def blocked(self) -> int:
        """How many sends wait for the client to read on."""
        return 0 if self._open.is_set() else self.waiting

    def hang_up(self) -> None:
        """The gateway ends the connection."""
        self.hung_up = True

    def write(self, wire: bytes) -> bool:
        """Take messages as bytes, or none of them while the client does not read."""
        if not self._open.is_set():
            return False
        for line in wire.splitlines():
            self._take_safely(_read_wire(line))
        return True

    async def send(self, message: Message) -> None:
        """Take one message, suspending while the client does not read."""
        if not self._open.is_set():
            self.waiting += 1
            self.most_waiting = max(self.waiting, self.most_waiting)
            await self._open.wait()
            self.waiting -= 1
        self._take_safely(message)

    def _take_safely(self, message: Message) -> None:
        try:
            self._take(message)
        except AssertionError as error:
            # Whoever sends takes any failure for a lost connection.
            self.violations.append(str(error))
            raise

    def _take(self, message: Message) -> None:
        message = {name: value for name, value in message.items() if name != "wire"}
        self.messages.append(message)
        if "control" in message:
            self.controls.append(message)
            self._obey(message)
        for entry in message.get("entries", ()):
            assert entry.seq == self.at.seq + 1, f"{entry.seq} came after {self.at.seq}"
            self.at = Cursor(entry.seq, entry.tag)
            self.held[entry.seq] = entry.tag

    def _obey(self, message: Message) -> None:
        match message["control"]:
            case "stream.reset":
                valid = message["valid_through"]
                assert valid <= self.at.seq, f"told that {valid} holds, at {self.at.seq}"
                self.at = Cursor(valid, self.held.get(valid))
                self.held = {seq: tag for seq, tag in self.held.items() if seq <= valid}
            case "stream.gap":
                assert self.at.seq + 1 == message["requested"] < message["first_seq"], f"at {self.at.seq}: {message}"
                self.at = Cursor(message["first_seq"] - 1)

    @property
    def seqs(self) -> list[int]:
        """The seq of every event that came, in the order of arrival."""
        return [entry.seq for message in self.messages for entry in message.get("entries", ())]

    @property
    def told(self) -> list[str]:
        """The names of the control frames that came."""
        return [str(message["control"]) for message in self.controls]
