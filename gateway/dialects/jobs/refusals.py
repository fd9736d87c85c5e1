"""Why something came to nothing, in the job system's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway.dialects.jobs import wire
from gateway.dialects.jobs.project import WORDS, word_of
from gateway.domain.lifecycle import Action, Status
from gateway.errors import IllegalTransition, InputRequired
from gateway.service.bulk import BulkResult

_DONE: Final = {
    Action.CANCEL: "canceled",
    Action.PAUSE: "paused",
    Action.RESUME: "resumed",
    Action.REPLAY: "replayed",
    Action.DLQ_REPLAY: "replayed from the dead letters",
    Action.RESTART: "restarted",
    Action.RESCHEDULE: "rescheduled",
}


def tell(problem: Mapping[str, Any]) -> tuple[int, wire.Refusal]:
    """Word a refusal: a value that is not allowed is a bad request like any other."""
    status = 400 if problem["code"] != "idempotency_mismatch" and problem["status"] == 422 else problem["status"]
    said = _say(problem["code"], problem["detail"], problem)
    return status, wire.Refusal(error=said, request_id=problem["request_id"])


def cancel_result(result: BulkResult) -> wire.CancelResult:
    """Return what came of one run."""
    if result.run is not None:
        return wire.CancelResult(id=result.id, status=word_of(result.run.status), error=None)
    if result.error is None:
        return wire.CancelResult(id=result.id, status=None, error=None)
    known = result.error.facts.get("current_status")
    return wire.CancelResult(
        id=result.id,
        status=None if known is None else word_of(Status(known)),
        error=_say(result.error.code, result.error.detail, result.error.facts),
    )


def _say(code: str, detail: str, facts: Mapping[str, Any]) -> str:
    """Return a refusal in a sentence; where it speaks of statuses, in the words that callers know."""
    if code == InputRequired.code:
        return "A run that is waiting for an answer cannot be resumed; it goes on when it is answered."
    if code != IllegalTransition.code:
        return detail
    word = WORDS.of(Status(facts["current_status"]))
    done = _DONE[Action(facts["action"])]
    # What is being canceled shows as canceled; that a second cancel of it changes nothing is no advice.
    permitted = [WORDS.of(status) for status in map(Status, facts["permitted"]) if status is not Status.CANCELLING]
    if word in permitted:
        # Its holder has yet to confirm what it shows already.
        return f"The run is only about to be {word}; try again in a moment."
    return f"A run that is {word} cannot be {done}; it must be one of: {', '.join(permitted)}."
