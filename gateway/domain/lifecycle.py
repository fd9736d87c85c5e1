"""The status table: which action may come from which status. It lives nowhere else.

delayed ─due→ queued ─claim→ dequeued ─start→ running ⇄ waiting_for_input       (direct: queued ─start→ running)
              queued, dequeued, running, waiting_for_input ─pause→ paused ─resume→ …
              held ─cancel→ cancelling ─→ cancelled
              held ─finish→ completed | failed | cancelled
              dequeued, running, waiting_for_input ─attempt failed→ delayed | failed | timed_out | crashed | dead_letter
any terminal ─restart→ queued,  dead_letter ─dlq-replay→ queued
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from gateway.errors import IllegalTransition


class Status(StrEnum):
    """Where a run stands."""

    DELAYED = "delayed"
    QUEUED = "queued"
    DEQUEUED = "dequeued"
    RUNNING = "running"
    WAITING = "waiting_for_input"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"
    SYSTEM_FAILED = "system_failed"
    EXPIRED = "expired"
    DEAD_LETTER = "dead_letter"


ALL = tuple(Status)
TERMINAL = frozenset(
    {
        Status.COMPLETED,
        Status.FAILED,
        Status.CANCELLED,
        Status.TIMED_OUT,
        Status.CRASHED,
        Status.SYSTEM_FAILED,
        Status.EXPIRED,
        Status.DEAD_LETTER,
    }
)
LIVE = frozenset(ALL) - TERMINAL


class Action(StrEnum):
    """What somebody, or time, may do to a run."""

    DUE = "due"
    CLAIM = "claim"
    START = "start"
    APPEND = "append"
    ASK = "ask"
    ANSWER = "answer"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    FINISH = "finish"
    CONFIRM_CANCEL = "confirm_cancel"
    FAIL_ATTEMPT = "fail_attempt"
    LOSE_LEASE = "lose_lease"
    RELEASE = "release"
    CRASH = "crash"
    TIME_OUT = "time_out"
    EXPIRE = "expire"
    RETRY = "retry"
    REPLAY = "replay"
    RESTART = "restart"
    DLQ_REPLAY = "dlq_replay"
    RESCHEDULE = "reschedule"
    PURGE = "purge"


# A held writer may still say what it did, and may always end.
HELD = frozenset({Status.RUNNING, Status.WAITING, Status.PAUSED, Status.CANCELLING})
# Time runs against a holder that is meant to get on: not while it is paused, nor once all that is left is to cancel.
BUSY = frozenset({Status.RUNNING, Status.WAITING})

PERMITTED: dict[Action, frozenset[Status]] = {
    Action.DUE: frozenset({Status.DELAYED}),
    Action.CLAIM: frozenset({Status.QUEUED}),
    Action.START: frozenset({Status.QUEUED, Status.DEQUEUED}),
    Action.APPEND: HELD,
    Action.ASK: frozenset({Status.RUNNING, Status.WAITING}),
    Action.ANSWER: frozenset({Status.WAITING}),
    Action.PAUSE: frozenset({Status.RUNNING, Status.WAITING, Status.QUEUED, Status.DEQUEUED}),
    Action.RESUME: frozenset({Status.PAUSED}),
    Action.CANCEL: LIVE,
    Action.FINISH: HELD,
    Action.CONFIRM_CANCEL: HELD,
    Action.FAIL_ATTEMPT: BUSY | {Status.DEQUEUED},
    Action.LOSE_LEASE: HELD | {Status.DEQUEUED},
    Action.RELEASE: HELD | {Status.DEQUEUED},
    Action.CRASH: BUSY,
    Action.TIME_OUT: BUSY,
    Action.EXPIRE: frozenset({Status.DELAYED, Status.QUEUED}),
    Action.RETRY: TERMINAL - {Status.COMPLETED},
    Action.REPLAY: TERMINAL,
    Action.RESTART: TERMINAL | {Status.RUNNING, Status.PAUSED},
    Action.DLQ_REPLAY: frozenset({Status.DEAD_LETTER}),
    Action.RESCHEDULE: frozenset({Status.DELAYED, Status.QUEUED}),
    Action.PURGE: TERMINAL,
}

DIRECT, QUEUED = "direct", "queued"
"""Modes of a run: whoever created it appends its events, or a worker that claims it does."""

MODES = (DIRECT, QUEUED)

# A writer's first append starts a run from here: one that is direct, or one that it has claimed.
STARTABLE = {DIRECT: Status.QUEUED, QUEUED: Status.DEQUEUED}

# The terminal event of each terminal status, and back.
ENDINGS: dict[str, Status] = {
    "run.completed": Status.COMPLETED,
    "run.failed": Status.FAILED,
    "run.cancelled": Status.CANCELLED,
    "run.timed_out": Status.TIMED_OUT,
    "run.crashed": Status.CRASHED,
    "run.system_failed": Status.SYSTEM_FAILED,
    "run.expired": Status.EXPIRED,
    "run.dead_lettered": Status.DEAD_LETTER,
}


def require(action: Action, status: Status, *, narrowed: Iterable[Status] | None = None) -> None:
    """Let `action` pass, or say why not.

    Args:
        narrowed: The statuses a dialect permits, where it permits fewer.

    Raises:
        IllegalTransition: with the present status and the permitted ones.
    """
    permitted = PERMITTED[action]
    if narrowed is not None:
        permitted = permitted & frozenset(narrowed)
    if status not in permitted:
        raise illegal(action, status, permitted)


def illegal(action: Action, status: str, permitted: Iterable[Status] | None = None) -> IllegalTransition:
    """Return the refusal of `action` in `status`."""
    names = [str(s) for s in ALL if s in (PERMITTED[action] if permitted is None else permitted)]
    allowed = ", ".join(names)
    return IllegalTransition(
        f"A run that is {status} cannot {action.replace('_', ' ')}; it must be one of: {allowed}.",
        action=str(action),
        current_status=str(status),
        permitted=names,
    )
