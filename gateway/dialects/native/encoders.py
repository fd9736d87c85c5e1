"""How the native API shows a log on its transports: stored bytes as they are, named control frames around them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import msgspec

from gateway.dialects.native.thread_position import ThreadPosition
from gateway.domain.cursor import Cursor, format_many
from gateway.domain.events import TypeFilter, decode, parse_time, peek_type
from gateway.edge import frames, ws
from gateway.edge.frames import Message
from gateway.hub.reader import Encoder
from gateway.service.folds import Snapshot
from gateway.service.streams import Opening
from gateway.store.log import Entry


class RunSse:
    """One run over SSE: events without a name, `id:` is the cursor."""

    def __init__(self, run_id: str, types: TypeFilter | None) -> None:
        self._run_id = run_id
        self._types = types
        self.key: Hashable = ("native.sse", types)

    def encode(self, entries: Sequence[Entry]) -> list[Message]:
        """Return one message for all entries that pass."""
        shown = entries if self._types is None else passing(entries, self._types)
        chunk = b"".join([b"id: %d-%d\ndata: %b\n\n" % (entry.seq, entry.tag, entry.line) for entry in shown])
        return [frames.sse_body(chunk)] if chunk else []

    def control(self, name: str, facts: dict[str, Any], cursor: Cursor | None = None) -> list[Message]:
        """Return a named frame that says which run it is about."""
        event_id = None if cursor is None else cursor.text
        return [frames.sse_control(name, {"run_id": self._run_id, **facts}, event_id=event_id)]


class FeedSse:
    """The tenant's feed over SSE; a key bound to some agents sees theirs."""

    def __init__(self, agents: frozenset[str] | None) -> None:
        self._agents = agents
        self.key: Hashable = ("native.feed", agents)

    def encode(self, entries: Sequence[Entry]) -> list[Message]:
        """Return one message for all entries within reach."""
        return frames.sse_events((b"%d-%d" % (e.seq, e.tag), e.line) for e in entries if self._reaches(e))

    def _reaches(self, entry: Entry) -> bool:
        return self._agents is None or msgspec.json.decode(entry.line)["data"]["agent_id"] in self._agents

    def control(self, name: str, facts: dict[str, Any], cursor: Cursor | None = None) -> list[Message]:
        """Return a named frame."""
        return [frames.sse_control(name, facts, event_id=None if cursor is None else cursor.text)]


class Places:
    """Where each run of a many-run stream stands, in the order in which their cursors are joined."""

    def __init__(self, cursors: dict[str, Cursor]) -> None:
        self.cursors = cursors

    @property
    def text(self) -> str:
        """The stream's `id:`."""
        return format_many(self.cursors.values())


class ManySse:
    """One of several runs over one SSE stream; `id:` is all cursors, data says which run an event is of."""

    def __init__(self, run_id: str, types: TypeFilter | None, places: Places) -> None:
        self._run_id = run_id
        self._types = types
        self._places = places
        self.key: Hashable | None = None

    def encode(self, entries: Sequence[Entry]) -> list[Message]:
        """Return one message for all entries that pass, each with the place of every run as of it."""
        return frames.sse_events([self._pair(entry) for entry in passing(entries, self._types)])

    def _pair(self, entry: Entry) -> tuple[bytes, bytes]:
        cursor = Cursor(entry.seq, entry.tag)
        self._places.cursors[self._run_id] = cursor
        head = f'{{"run_id":"{self._run_id}","cursor":"{cursor.text}","event":'
        return self._places.text.encode(), head.encode() + entry.line + b"}"

    def control(self, name: str, facts: dict[str, Any], cursor: Cursor | None = None) -> list[Message]:
        """Return a named frame that says which run it is about."""
        place = cursor or place_after(name, facts)
        if place is not None:
            self._places.cursors[self._run_id] = place
        event_id = None if cursor is None else self._places.text
        return [frames.sse_control(name, {"run_id": self._run_id, **facts}, event_id=event_id)]


class RunOfThread:
    """One run of the thread over its stream."""

    def __init__(self, run_id: str, types: TypeFilter | None, position: ThreadPosition, *, closing: bool) -> None:
        self.run_id = run_id
        self.closing = closing
        self.key: Hashable | None = None
        self._types = types
        self._position = position
        self._last: Entry | None = None

    @property
    def ended_ms(self) -> int:
        """When the run ended, once all of it was encoded; 0 when nothing of it was."""
        return 0 if self._last is None else parse_time(decode(self._last.line).created_at)

    def encode(self, entries: Sequence[Entry]) -> list[Message]:
        """Return one message for all entries that pass, each with the place in every run as of it."""
        self._last = entries[-1]
        return frames.sse_events([self._pair(entry) for entry in passing(entries, self._types)])

    def _pair(self, entry: Entry) -> tuple[bytes, bytes]:
        cursor = Cursor(entry.seq, entry.tag)
        self._position.cursors[self.run_id] = cursor
        head = f'{{"run_id":"{self.run_id}","cursor":"{cursor.text}","event":'
        return self._position.text.encode(), head.encode() + entry.line + b"}"

    def control(self, name: str, facts: dict[str, Any], cursor: Cursor | None = None) -> list[Message]:
        """Return a named frame that says which run it is about."""
        place = place_after(name, facts)
        if place is not None:
            self._position.cursors[self.run_id] = place
        return [frames.sse_control(name, {"run_id": self.run_id, **facts})]


class RunSocket:
    """One run over a WebSocket."""

    def __init__(self, run_id: str, types: TypeFilter | None) -> None:
        self._run_id = run_id
        self._types = types
        self.key: Hashable = ("native.ws", types)

    def encode(self, entries: Sequence[Entry]) -> list[Message]:
        """Return one message for all entries that pass, a frame each."""
        head = b'"type":"event","run_id":"%b"' % self._run_id.encode()
        return ws.event_frames(head, ((b"%d-%d" % (e.seq, e.tag), e.line) for e in passing(entries, self._types)))

    def control(self, name: str, facts: dict[str, Any], cursor: Cursor | None = None) -> list[Message]:
        """Return a control frame."""
        where = {} if cursor is None else {"cursor": cursor.text}
        return [ws.json_frame({"type": name, "run_id": self._run_id, **where, **facts})]


def place_after(name: str, facts: dict[str, Any]) -> Cursor | None:
    """Return where a reader stands once it was told of a reset or a gap; None for any other frame."""
    if name == "stream.reset":
        return Cursor(facts["valid_through"])
    return Cursor(facts["first_seq"] - 1) if name == "stream.gap" else None


def opened(encoder: Encoder, opening: Opening) -> Sequence[Message]:
    """Return the first frame of a run's stream."""
    return encoder.control("stream.open", {"status": opening.head.status, **places_of(opening)})


def places_of(opening: Opening) -> dict[str, int]:
    """Return what a stream's first frame says of the log's bounds and of where the reader begins."""
    head = opening.head
    return {"first_seq": head.first_seq, "head_seq": head.seq, "after_seq": opening.verdict.after_seq}


def snapshot_frames(encoder: Encoder, taken: Snapshot) -> Sequence[Message]:
    """Return the frame of a folded state; encoded at once, since the fold grows on."""
    facts = {"as_of_seq": taken.as_of.seq, "state": taken.state_json}
    return encoder.control("stream.snapshot", facts, taken.as_of)


def passing(entries: Sequence[Entry], types: TypeFilter | None) -> Sequence[Entry]:
    """Return the entries that a filter passes."""
    return entries if types is None else [e for e in entries if types.passes(peek_type(e.line))]
