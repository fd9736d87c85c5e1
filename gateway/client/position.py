"""What of a log a reader has, and what of a stream it may therefore be given. No I/O."""

from __future__ import annotations

import msgspec

from gateway.client.errors import BadRequest
from gateway.client.frames import Frame
from gateway.client.models import Event, FeedItem, Gap, Reset, Snapshot, StreamItem


class StreamBroken(Exception):
    """A frame that the position cannot follow; the stream has to be opened again."""


class Position:
    """A place in one run's log, moved by the frames of a stream.

    `dense` says that the stream is unfiltered: then an event that is not the next one is a hole.
    """

    def __init__(self, after: str | int | None, *, dense: bool, snapshot: bool = False) -> None:
        self.seq = _seq_of(after)
        self._start = after
        self._cursor: str | None = None
        self._dense = dense
        self._snapshot = snapshot

    def params(self) -> dict[str, str]:
        """Return the query parameters that open a stream here."""
        if self._cursor is not None:
            return {}
        params = {} if self._start is None else {"after": str(self._start)}
        if self._snapshot:
            params["snapshot"] = "true"
        return params

    def headers(self) -> dict[str, str]:
        """Return the headers that open a stream here, once the stream itself told a cursor."""
        return {} if self._cursor is None else {"Last-Event-ID": self._cursor}

    def accept(self, frame: Frame) -> StreamItem | None:
        """Move past `frame` and return what the reader gets of it, if anything.

        An event that the reader has already is dropped; so is a frame of an unknown name.

        Raises:
            StreamBroken: the frame cannot be read, or events before it are missing.
        """
        try:
            match frame.name:
                case "message":
                    return self._accept_event(frame)
                case "stream.snapshot":
                    return self._accept_snapshot(frame)
                case "stream.gap":
                    return self._accept_gap(msgspec.json.decode(frame.data, type=_GapFacts))
                case "stream.reset":
                    return self._accept_reset(msgspec.json.decode(frame.data, type=_ResetFacts))
        except msgspec.MsgspecError as error:
            raise StreamBroken(f"a {frame.name} frame cannot be read: {error}") from error
        return None

    def _accept_event(self, frame: Frame) -> Event | None:
        if not frame.data:
            return None
        event = msgspec.json.decode(frame.data, type=Event)
        if event.seq <= self.seq:
            return None
        if self._dense and event.seq != self.seq + 1:
            raise StreamBroken(f"event {event.seq} came after {self.seq}")
        self.seq = event.seq
        self._cursor = frame.id or str(event.seq)
        return msgspec.structs.replace(event, cursor=self._cursor)

    def _accept_snapshot(self, frame: Frame) -> Snapshot:
        facts = msgspec.json.decode(frame.data, type=_SnapshotFacts)
        self.seq = facts.as_of_seq
        self._cursor = frame.id or str(facts.as_of_seq)
        return Snapshot(as_of_seq=facts.as_of_seq, state=facts.state, run_id=facts.run_id, cursor=self._cursor)

    def _accept_gap(self, facts: _GapFacts) -> Gap:
        self._continue_after(facts.first_seq - 1)
        return Gap(first_seq=facts.first_seq, run_id=facts.run_id, requested=facts.requested)

    def _accept_reset(self, facts: _ResetFacts) -> Reset:
        self._continue_after(facts.valid_through or 0)
        return Reset(
            reason=facts.reason,
            valid_through=facts.valid_through,
            head_seq=facts.head_seq,
            run_id=facts.run_id,
        )

    def _continue_after(self, seq: int) -> None:
        # A bare number: the tag of that entry is not known, the gateway continues there unverified.
        self.seq = seq
        self._start = seq
        self._cursor = None
        self._snapshot = False


class FeedPosition:
    """A place in the tenant's feed, which is not dense: the gateway says where to go on by its ids."""

    def __init__(self, after: str | None) -> None:
        self._cursor = after

    def params(self) -> dict[str, str]:
        """Return the query parameters that open the feed here."""
        return {"after": "now"} if self._cursor is None else {}

    def headers(self) -> dict[str, str]:
        """Return the headers that open the feed here."""
        return {} if self._cursor is None else {"Last-Event-ID": self._cursor}

    def accept(self, frame: Frame) -> FeedItem | None:
        """Move past `frame` and return the change of status in it, if any.

        Raises:
            StreamBroken: the frame cannot be read.
        """
        if frame.name == "stream.open" and self._cursor is None:
            # From here on, also when the connection breaks before the first change.
            self._cursor = str(msgspec.json.decode(frame.data, type=_OpenFacts).after_seq)
        if frame.name != "message" or not frame.data:
            return None
        try:
            item = msgspec.json.decode(frame.data, type=FeedItem)
        except msgspec.MsgspecError as error:
            raise StreamBroken(f"a feed frame cannot be read: {error}") from error
        self._cursor = frame.id or self._cursor
        return msgspec.structs.replace(item, cursor=self._cursor or "")


class _OpenFacts(msgspec.Struct):
    after_seq: int


class _GapFacts(msgspec.Struct):
    first_seq: int
    run_id: str | None = None
    requested: object = None


class _ResetFacts(msgspec.Struct):
    reason: str | None = None
    valid_through: int | None = 0
    head_seq: int | None = None
    run_id: str | None = None


class _SnapshotFacts(msgspec.Struct):
    as_of_seq: int
    state: object
    run_id: str | None = None


def _seq_of(after: str | int | None) -> int:
    if after is None:
        return 0
    number, _, _ = str(after).partition("-")
    if not number.isascii() or not number.isdecimal():
        raise BadRequest(f"{after!r} is no cursor", status=400, code="bad_request")
    return int(number)
