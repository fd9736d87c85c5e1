"""How the native API shows a log on its transports: stored bytes as they are, named control frames around them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import msgspec

from gateway.domain.cursor import Cursor, format_many
from gateway.domain.events import TypeFilter, peek_type
from gateway.edge import frames
from gateway.edge.frames import Message
from gateway.store.log import Entry


class RunSse:
    """One run over SSE: events without a name, `id:` is the cursor."""

    def __init__(self, run_id: str, types: TypeFilter | None) -> None:
        self._run_id = run_id
        self._types = types
        self.key: Hashable = ("native.sse", types)

    def encode(self, entries: Sequence[Entry]) -> list[Message]:
        """Return one message for all entries that pass."""
        return frames.sse_events(
            (b"%d-%d" % (entry.seq, entry.tag), entry.line) for entry in passing(entries, self._types)
        )

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
        if name == "stream.reset":
            self._places.cursors[self._run_id] = Cursor(facts["valid_through"])
        if cursor is not None:
            self._places.cursors[self._run_id] = cursor
        event_id = None if cursor is None else self._places.text
        return [frames.sse_control(name, {"run_id": self._run_id, **facts}, event_id=event_id)]


class RunSocket:
    """One run over a WebSocket."""

    def __init__(self, run_id: str, types: TypeFilter | None) -> None:
        self._run_id = run_id
        self._types = types
        self.key: Hashable = ("native.ws", types)

    def encode(self, entries: Sequence[Entry]) -> list[Message]:
        """Return a frame for each entry that passes."""
        head = f'"type":"event","run_id":"{self._run_id}"'
        return frames.ws_events(head, [(f"{e.seq}-{e.tag}", e.line) for e in passing(entries, self._types)])

    def control(self, name: str, facts: dict[str, Any], cursor: Cursor | None = None) -> list[Message]:
        """Return a control frame."""
        where = {} if cursor is None else {"cursor": cursor.text}
        return [frames.ws_json({"type": name, "run_id": self._run_id, **where, **facts})]


def passing(entries: Sequence[Entry], types: TypeFilter | None) -> Sequence[Entry]:
    """Return the entries that a filter passes."""
    return entries if types is None else [e for e in entries if types.passes(peek_type(e.line))]
