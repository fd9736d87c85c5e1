"""Questions a run asks and the answers it gets: their shape, their schema, who was first."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.domain import attempts
from gateway.domain.decisions import answered
from gateway.domain.draft import Draft
from gateway.domain.events import MAX_DEPTH, NewEvent, format_time, parse_time
from gateway.domain.lifecycle import Action, Status
from gateway.domain.run import Actor, Question, Run
from gateway.domain.schema_check import TooManySteps, find_misfit
from gateway.domain.schemas import vet_schema
from gateway.errors import (
    AlreadyAnswered,
    AmbiguousQuestion,
    GatewayError,
    InvalidBody,
    NoSuchQuestion,
    QuestionClosed,
    TooLarge,
)

OPEN_QUESTIONS = 32
ON_TIMEOUT = ("fail", "cancel", "default", "keep")


def ask(draft: Draft, event: NewEvent, request_id: str) -> None:
    """Open a question; `timeout_s` becomes a `deadline_at`, a missing id becomes `request_id`.

    Raises:
        InvalidBody: the id is taken, the schema is none, or the default does not fit it.
    """
    draft.require(Action.ASK)
    data = _complete(dict(event.data), request_id, draft.at_ms)
    asked = data["request_id"]
    taken = {q.request_id for q in draft.state.open}
    if asked in taken or asked in {q.request_id for q in draft.state.settled if not q.is_old}:
        raise InvalidBody(f"data.request_id: {asked!r} was asked before in this attempt", question_id=asked)
    if len(taken) >= OPEN_QUESTIONS:
        raise TooLarge(f"A run has at most {OPEN_QUESTIONS} open questions.", limit=OPEN_QUESTIONS)
    _check_question(data)
    draft.push(NewEvent(event.type, data, event.step_id, event.parent_id))
    draft.request_ids.append(asked)


def _complete(data: dict[str, Any], request_id: str, at_ms: int) -> dict[str, Any]:
    data["request_id"] = data.get("request_id") or request_id
    timeout_s = data.pop("timeout_s", None)
    if timeout_s is not None:
        if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not 0 < timeout_s <= 365 * 86_400:
            raise InvalidBody("data.timeout_s: expected seconds, above 0 and at most a year", value=timeout_s)
        if data.get("deadline_at") is not None:
            raise InvalidBody("data: give deadline_at or timeout_s, not both")
        data["deadline_at"] = format_time(at_ms + int(timeout_s * 1000))
    return data


def _check_question(data: dict[str, Any]) -> None:
    on_timeout, schema = data.get("on_timeout"), data.get("schema")
    if on_timeout is not None and on_timeout not in ON_TIMEOUT:
        raise InvalidBody(f"data.on_timeout: {on_timeout!r} is none of {', '.join(ON_TIMEOUT)}")
    deadline_at = data.get("deadline_at")
    if deadline_at is not None:
        try:
            data["deadline_at"] = format_time(parse_time(deadline_at))
        except GatewayError as error:
            raise InvalidBody(f"data.deadline_at: {error.detail}") from error
    elif on_timeout not in (None, "keep"):
        raise InvalidBody(f"data.on_timeout: {on_timeout!r} needs a deadline_at or timeout_s")
    if schema is not None:
        vet_schema(schema, "data.schema")
    if on_timeout == "default":
        if "default" not in data:
            raise InvalidBody("data.default: required where on_timeout is 'default'")
        check_answer(schema, data["default"], where="data.default")


def check_answer(schema: Any, content: Any, *, where: str = "content") -> None:
    """Refuse `content` that does not fit the question's JSON Schema, or takes too long to check.

    Args:
        schema: One that was vetted when it was asked with; None fits all.
    """
    if schema is None:
        return
    try:
        misfit = find_misfit(schema, content)
    except TooManySteps:
        raise InvalidBody(f"{where}: to check it by the question's schema takes too many steps", path=where) from None
    if misfit is not None:
        raise InvalidBody(f"{where}{misfit.path}: {misfit.problem}"[:500], path=where + misfit.path)


def close(draft: Draft, event: NewEvent) -> None:
    """Withdraw an open question on behalf of who asked it."""
    draft.require(Action.APPEND)
    request_id = event.data["request_id"]
    if request_id not in {q.request_id for q in draft.state.open}:
        raise NoSuchQuestion(f"No open question {request_id!r}.", question_id=request_id)
    reason = event.data.get("reason") or "withdrawn"
    draft.push(NewEvent(event.type, {**event.data, "reason": reason}, event.step_id, event.parent_id))


def answer(run: Run, draft: Draft, request_id: str | None, content: Any, actor: Actor, *, as_text: bool = False) -> str:
    """Answer an open question and return its id; the first valid answer wins.

    Args:
        as_text: `content` is text of somebody who can send nothing else; see `read_text`.

    Raises:
        AlreadyAnswered: somebody was first; with the winner's seq.
        AmbiguousQuestion: several are open and `request_id` is None.
        IllegalTransition: the run does not wait.
    """
    if request_id is not None:
        _refuse_closed(run, request_id)
    if draft.status is not Status.WAITING:
        draft.require(Action.ANSWER)
    question = _pick(draft.state.open, request_id)
    if as_text:
        content = read_text(question.schema, content)
    else:
        check_answer(question.schema, content)
    draft.push(answered(question.request_id, content, actor))
    attempts.queue_answered(run, draft)
    return question.request_id


def read_text(schema: Any, text: str) -> Any:
    """Return what an answer means that can only be text: itself, or the JSON it spells where only that fits.

    Raises:
        InvalidBody: neither fits.
    """
    try:
        check_answer(schema, text)
    except InvalidBody:
        if text.count("[") + text.count("{") > MAX_DEPTH:
            raise
        try:
            content = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeEncodeError):
            content = text
        check_answer(schema, content)
        return content
    return text


def _refuse_closed(run: Run, request_id: str) -> None:
    if any(question.request_id == request_id for question in run.state.open):
        # Asked again by a later attempt: what an earlier one was told is history.
        return
    latest = next((question for question in reversed(run.state.settled) if question.request_id == request_id), None)
    if latest is None:
        return
    seq = run.marks.get(f"settled:{latest.slot}", 0)
    if latest.answered:
        raise AlreadyAnswered(f"Question {request_id} was answered by event {seq}.", question_id=request_id, seq=seq)
    raise QuestionClosed(f"Question {request_id} was closed by event {seq}.", question_id=request_id, seq=seq)


def find_answers(run: Run) -> list[int] | None:
    """Return the seqs of the answers that the present attempt was given; None where only the log has them all."""
    settled = [question for question in run.state.settled if not question.is_old]
    if len(settled) < run.state.settled_count and len(settled) == len(run.state.settled) > 0:
        return None
    return sorted(run.marks.get(f"settled:{question.slot}", 0) for question in settled if question.answered)


def _pick(questions: tuple[Question, ...], request_id: str | None) -> Question:
    if request_id is None:
        if len(questions) == 1:
            return questions[0]
        ids = [q.request_id for q in questions]
        raise AmbiguousQuestion(f"{len(ids)} questions are open; name one as request_id.", request_ids=ids)
    for question in questions:
        if question.request_id == request_id:
            return question
    raise NoSuchQuestion(f"The run has no question {request_id!r}.", question_id=request_id)
