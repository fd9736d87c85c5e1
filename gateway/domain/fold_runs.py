"""The run's own events: its audit trail, questions, attempts and end."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.domain import catalogue
from gateway.domain.events import Event
from gateway.domain.fold_messages import cut_messages
from gateway.domain.fold_state import Change, File, Folded, Message, Output, Question, Step, ToolCall
from gateway.domain.fold_steps import abandon, abandon_all


def note_change(state: Folded, event: Event) -> None:
    """Write a `run.*` event into the audit trail."""
    data = event.data if isinstance(event.data, dict) else {}
    state.history.append(
        Change(
            seq=event.seq,
            attempt=event.attempt,
            type=event.type,
            at=event.created_at,
            actor=data.get("actor"),
            reason=data.get("reason"),
        )
    )


def ask(state: Folded, event: Event, data: catalogue.WaitingForInput) -> None:
    """Open a question."""
    question = _add_question(state, event, data.request_id or f"seq-{event.seq}")
    question.prompt, question.schema, question.default = data.prompt, data.schema, data.default
    question.deadline_at, question.on_timeout = data.deadline_at, data.on_timeout
    state.places.open_questions[question.request_id] = question


def answer(state: Folded, event: Event, data: catalogue.InputReceived) -> None:
    """Close a question with its answer."""
    question = state.questions.get(data.request_id) or _add_question(state, event, data.request_id)
    question.content, question.actor = data.content, data.actor
    _close(state, event, question, "answered")


def close(state: Folded, event: Event, data: catalogue.InputClosed) -> None:
    """Close a question without an answer; one that has been answered stays so."""
    question = state.questions.get(data.request_id) or _add_question(state, event, data.request_id)
    if question.status == "open":
        question.reason = data.reason
        _close(state, event, question, "closed")


def begin_attempt(state: Folded, event: Event, data: catalogue.AttemptStarted) -> None:
    """Mark what began within the superseded seqs, and cut what was said in them: the new attempt does it again."""
    state.boundary_seq = event.seq
    if data.supersedes is None:
        return
    first, last = data.supersedes
    cut_messages(state, first)
    for entry in _began_since(state, first):
        if entry.seq <= last:
            entry.superseded = True
            if isinstance(entry, Step | ToolCall):
                abandon(state, entry, event.created_at)


def restart(state: Folded, event: Event, data: catalogue.RunNote) -> None:
    """Forget how the run ended."""
    state.output = state.error = None


def complete(state: Folded, event: Event, data: catalogue.RunCompleted) -> None:
    """End the run with its output."""
    state.output, state.error = data.output, None
    _end_run(state, event)


def end(state: Folded, event: Event, data: catalogue.RunNote) -> None:
    """End the run without one."""
    state.output, state.error = None, data.error
    _end_run(state, event)


def _end_run(state: Folded, event: Event) -> None:
    abandon_all(state, event.created_at)
    for question in state.open_questions:
        question.reason = "run_ended"
        _close(state, event, question, "closed")


def _add_question(state: Folded, event: Event, request_id: str) -> Question:
    state.questions.pop(request_id, None)
    state.places.open_questions.pop(request_id, None)
    question = Question(seq=event.seq, attempt=event.attempt, created_at=event.created_at, request_id=request_id)
    state.questions[request_id] = question
    return question


def _close(state: Folded, event: Event, question: Question, status: str) -> None:
    question.status, question.closed_at, question.closed_seq = status, event.created_at, event.seq
    state.places.open_questions.pop(question.request_id, None)


def _began_since(state: Folded, first: int) -> Iterator[Step | ToolCall | Message | File | Output]:
    """Yield the newest entries back to seq `first`; so that the work follows what is marked, not the log."""
    newest_first = (
        reversed(state.steps),
        reversed(state.tool_calls),
        reversed(state.messages),
        reversed(state.files),
        reversed(state.outputs.values()),
    )
    for entries in newest_first:
        for entry in entries:
            if entry.seq < first:
                break
            yield entry
