"""The status table: which action may come from which status. It lives nowhere else.

delayed ─due→ queued ─start→ running ⇄ waiting_for_input
                             running, waiting_for_input, queued ─pause→ paused ─resume→ …
                             held ─cancel→ cancelling ─→ cancelled
                             held ─finish→ completed | failed | cancelled
any terminal ─restart→ queued
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
    START = "start"
    APPEND = "append"
    ASK = "ask"
    ANSWER = "answer"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    FINISH = "finish"
    CONFIRM_CANCEL = "confirm_cancel"
    CRASH = "crash"
    TIME_OUT = "time_out"
    EXPIRE = "expire"
    RETRY = "retry"
    REPLAY = "replay"
    RESTART = "restart"
    RESCHEDULE = "reschedule"
    PURGE = "purge"


# A held writer may still say what it did, and may always end.
HELD = frozenset({Status.RUNNING, Status.WAITING, Status.PAUSED, Status.CANCELLING})
# Time runs against a holder that is meant to get on: not while it is paused, nor once all that is left is to cancel.
BUSY = frozenset({Status.RUNNING, Status.WAITING})

PERMITTED: dict[Action, frozenset[Status]] = {
    Action.DUE: frozenset({Status.DELAYED}),
    Action.START: frozenset({Status.QUEUED, Status.DEQUEUED}),
    Action.APPEND: HELD,
    Action.ASK: frozenset({Status.RUNNING, Status.WAITING}),
    Action.ANSWER: frozenset({Status.WAITING}),
    Action.PAUSE: frozenset({Status.RUNNING, Status.WAITING, Status.QUEUED, Status.DEQUEUED}),
    Action.RESUME: frozenset({Status.PAUSED}),
    Action.CANCEL: LIVE,
    Action.FINISH: HELD,
    Action.CONFIRM_CANCEL: HELD,
    Action.CRASH: BUSY,
    Action.TIME_OUT: BUSY,
    Action.EXPIRE: frozenset({Status.DELAYED, Status.QUEUED}),
    Action.RETRY: TERMINAL - {Status.COMPLETED},
    Action.REPLAY: TERMINAL,
    Action.RESTART: TERMINAL | {Status.RUNNING, Status.PAUSED},
    Action.RESCHEDULE: frozenset({Status.DELAYED, Status.QUEUED}),
    Action.PURGE: TERMINAL,
}

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
