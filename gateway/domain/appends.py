"""What a writer's events mean: which of them only say something, and which change the run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gateway.domain import attempts, questions
from gateway.domain.draft import Draft
from gateway.domain.events import STATE_TYPES, NewEvent
from gateway.domain.lifecycle import HELD, PERMITTED, Action, illegal
from gateway.domain.run import Actor, Run
from gateway.errors import GatewayError, InvalidBody, NoSuchQuestion, TooLarge

OUTPUT_TYPES = frozenset({"message.delta", "message.completed", "output.set", "run.completed"})
"""Events by which a run first says something to whoever watches it."""

FAST_STATUSES = HELD
"""Statuses in which events that change no state are appended without reading the run first."""

_STARTABLE = PERMITTED[Action.START]

_TERMINAL_TYPES = {"run.completed", "run.failed", "run.cancelled"}


def changes_state(events: Iterable[NewEvent]) -> bool:
    """Whether any event needs the run's present state to be judged."""
    return any(event.type in STATE_TYPES for event in events)


def append(run: Run, draft: Draft, events: Sequence[NewEvent], actor: Actor, request_ids: Sequence[str]) -> int:
    """Fill `draft` with a writer's events, starting the run where this is its first append.

    Args:
        request_ids: One fresh id an event, for questions that bring none.

    Returns:
        The index in the draft of the writer's own first event.
    """
    if draft.status in _STARTABLE and events:
        attempts.start(run, draft)
    own = len(draft.events)
    if events and not draft.state.held:
        # Held while paused or cancelling, it could; so the present status is none of the permitted.
        raise illegal(Action.APPEND, draft.status, _STARTABLE | HELD - {draft.status})
    for index, (event, request_id) in enumerate(zip(events, request_ids, strict=True)):
        if index and draft.status not in PERMITTED[Action.APPEND]:
            # Not told as the run's status: nothing of the batch is stored, and the run goes on.
            before = events[index - 1].type
            raise InvalidBody(f"events[{index}]: nothing may follow {before} in a batch.", path="type", index=index)
        draft.require(Action.APPEND)
        try:
            _one(run, draft, event, actor, request_id)
        except (InvalidBody, TooLarge, NoSuchQuestion) as error:
            raise place(error, index) from error.__cause__
    return own


def place(error: GatewayError, index: int) -> GatewayError:
    """Have the refusal of an event say which event of its batch it is."""
    error.detail = f"events[{index}]: {error.detail}"
    error.facts["index"] = index
    return error


def _one(run: Run, draft: Draft, event: NewEvent, actor: Actor, request_id: str) -> None:
    if event.type == "run.waiting_for_input":
        questions.ask(draft, event, request_id)
    elif event.type == "run.input_closed":
        questions.close(draft, event)
    elif event.type == "run.failed" and attempts.is_retriable(run, draft):
        attempts.fail(run, draft, attempts.FAILED, dict(event.data), again=event.data.get("retry", True))
    elif event.type in _TERMINAL_TYPES:
        data = dict(event.data)
        if event.type == "run.cancelled":
            data["actor"] = actor
        attempts.close_questions(draft, "run_ended")
        draft.push(NewEvent(event.type, data, event.step_id, event.parent_id))
    else:
        draft.push(event)
