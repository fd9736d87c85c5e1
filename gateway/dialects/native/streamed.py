"""What the native API says on its streams, as types: events, and the named frames around them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from gateway.dialects.native.answers import Problem
from gateway.domain.events import Event
from gateway.domain.fold_state import Folded
from gateway.entry.operations import Frames


class Opened(msgspec.Struct, frozen=True):
    """The first frame: what the log holds, and after which event the reader begins."""

    run_id: str
    status: str
    first_seq: int
    head_seq: int
    after_seq: int


class SnapshotFrame(msgspec.Struct, frozen=True):
    """The state folded up to an event, in place of the events."""

    run_id: str
    as_of_seq: int
    state: Folded


class GapFrame(msgspec.Struct, frozen=True):
    """What was asked for is not kept any more; events go on at `first_seq`."""

    run_id: str
    requested: int
    first_seq: int


class ResetFrame(msgspec.Struct, frozen=True):
    """The log is not the one that the cursor is of: discard what lies beyond `valid_through`."""

    run_id: str
    reason: str
    valid_through: int
    head_seq: int


class Ended(msgspec.Struct, frozen=True):
    """The run has ended and the reader has all of it."""

    run_id: str
    status: str


class Closed(msgspec.Struct, frozen=True):
    """The connection is cut: come back with `resume_after`."""

    reason: str
    resume_after: str | None


class EventOfRun(msgspec.Struct, frozen=True):
    """An event of one of several runs."""

    run_id: str
    cursor: str
    event: Event


class RunChange(msgspec.Struct, frozen=True):
    """What a run's change of status is about."""

    status: str
    previous: str | None
    agent_id: str | None
    thread_id: str | None
    title: str | None
    run_seq: int | None


class FeedEvent(msgspec.Struct, frozen=True):
    """A change of a run's status, in the tenant's feed."""

    seq: int
    type: Literal["run.status"]
    run_id: str
    created_at: str
    data: RunChange


class FeedOpened(msgspec.Struct, frozen=True):
    """The first frame of a feed."""

    first_seq: int
    head_seq: int
    after_seq: int


class ThreadOpened(Opened, frozen=True):
    """A run of a thread's stream begins; of a very long thread the first one says that older runs are left out."""

    truncated: bool = False


NAMED: dict[str, Any] = {
    "stream.open": Opened,
    "stream.snapshot": SnapshotFrame,
    "stream.gap": GapFrame,
    "stream.reset": ResetFrame,
    "stream.end": Ended,
    "stream.closed": Closed,
}
_UNNAMED_RUN = {name: kind for name, kind in NAMED.items() if name not in ("stream.open", "stream.snapshot")}

RUN = Frames(Event, NAMED)
MANY = Frames(EventOfRun, NAMED)
THREAD = Frames(EventOfRun, {"stream.open": ThreadOpened, **_UNNAMED_RUN})
FEED = Frames(FeedEvent, {"stream.open": FeedOpened, "stream.closed": Closed})


class SocketEvent(msgspec.Struct, frozen=True, tag="event"):
    """An event of a run that the socket follows."""

    run_id: str
    cursor: str
    event: Event


class Ack(msgspec.Struct, frozen=True, tag="ack"):
    """A command was done; `result` is the body of the HTTP answer."""

    id: str
    result: Any


class Refused(msgspec.Struct, frozen=True, tag="error"):
    """A command was not done; `id` is null where it had none."""

    id: str | None
    problem: Problem


class Pong(msgspec.Struct, frozen=True, tag="pong"):
    """The answer to a ping."""

    id: str | None


class SocketOpened(Opened, frozen=True, tag="stream.open"):
    """The first frame of a subscription."""


class SocketSnapshot(SnapshotFrame, frozen=True, tag="stream.snapshot"):
    """The state folded up to an event."""

    cursor: str


class SocketGap(GapFrame, frozen=True, tag="stream.gap"):
    """What was asked for is not kept any more."""


class SocketReset(ResetFrame, frozen=True, tag="stream.reset"):
    """The log is not the one that the cursor is of."""


class SocketEnded(Ended, frozen=True, tag="stream.end"):
    """The run has ended and the client has all of it, up to `cursor`."""

    cursor: str


class SocketClosed(Closed, frozen=True, kw_only=True, tag="stream.closed"):
    """A run is followed no more."""

    run_id: str


FRAMES: dict[str, Any] = {
    "event": SocketEvent,
    "ack": Ack,
    "error": Refused,
    "pong": Pong,
    "stream.open": SocketOpened,
    "stream.snapshot": SocketSnapshot,
    "stream.gap": SocketGap,
    "stream.reset": SocketReset,
    "stream.end": SocketEnded,
    "stream.closed": SocketClosed,
}
