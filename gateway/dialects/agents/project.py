"""The run in the agents API's words, and its refusals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from gateway.dialects.agents.wire import OutputFile, Refusal, RunRecord, RunSummary, StepResult, StepWord, Word
from gateway.domain.fold_state import Step
from gateway.domain.lifecycle import Action, Status
from gateway.domain.run import Run
from gateway.domain.times import format_time
from gateway.entry.statuses import StatusWords
from gateway.errors import BadRequest, IllegalTransition

WORDS = StatusWords(
    {
        Status.DELAYED: "queued",
        Status.QUEUED: "queued",
        Status.DEQUEUED: "queued",
        Status.RUNNING: "running",
        Status.WAITING: "running",
        Status.PAUSED: "paused",
        Status.CANCELLING: "cancelled",
        Status.COMPLETED: "succeeded",
        Status.FAILED: "failed",
        Status.CANCELLED: "cancelled",
        Status.TIMED_OUT: "failed",
        Status.CRASHED: "failed",
        Status.SYSTEM_FAILED: "failed",
        Status.EXPIRED: "failed",
        Status.DEAD_LETTER: "failed",
    }
)

ALLOWED: dict[Action, tuple[str, ...]] = {
    Action.PAUSE: ("running",),
    Action.RESUME: ("paused",),
    Action.CANCEL: ("queued", "running", "paused"),
    Action.RETRY: ("failed", "cancelled"),
}
"""From which words each action may come: the seed's table of transitions."""

STEP_WORDS: dict[str, StepWord] = {
    "started": "running",
    "completed": "succeeded",
    "failed": "failed",
    "abandoned": "cancelled",
}

_QUEUED = frozenset({Status.QUEUED, Status.DEQUEUED})
_DONE = {Action.PAUSE: "paused", Action.RESUME: "resumed", Action.CANCEL: "cancelled", Action.RETRY: "retried"}


class RuntimeNotApplicable(BadRequest):
    """A conversational agent has no runs that could be managed."""

    code = "runtime_not_applicable"


def word_of(run: Run) -> Word:
    """Return the run's status.

    Resume leads to running: one that was resumed while nobody held it shows so until a worker goes on with it.
    """
    return cast(Word, "running" if _is_resumed(run) else WORDS.of(run.status))


def statuses_of(word: str | None) -> frozenset[Status]:
    """Return every status that a run which shows as `word` may have; none for no word."""
    if word is None:
        return frozenset()
    found = WORDS.select(word)
    # Some of those were resumed; each record says which.
    return found | _QUEUED if word == "running" else found


def require_word(action: Action, run: Run) -> None:
    """Refuse `action` unless the run shows as one of the words from which it may come.

    Raises:
        IllegalTransition: it does not; `facts` are in this API's words.
    """
    word, allowed = word_of(run), ALLOWED[action]
    if word not in allowed:
        about = {"action": str(action), "current_status": word, "permitted": list(allowed)}
        raise IllegalTransition(_cannot(word, action), **about)


def _is_resumed(run: Run) -> bool:
    """Whether the run waits for a worker because it was paused and resumed, not for a new attempt."""
    return run.status in _QUEUED and run.marks.get("resume", 0) > run.marks.get("attempt", 1)


def second(ms: int | None) -> str | None:
    """Return a time as RFC 3339 UTC to the second."""
    return None if ms is None else format_time(ms)[:19] + "Z"


def summarise(run: Run) -> RunSummary:
    """Return the run as a list shows it."""
    return RunSummary(**_summary(run))


def record(run: Run, steps: Sequence[StepResult], files: Sequence[OutputFile]) -> RunRecord:
    """Return the full run record."""
    return RunRecord(**_summary(run), step_results=list(steps), output_files=list(files))


def _summary(run: Run) -> dict[str, Any]:
    spec, state = run.spec, run.state
    return {
        "run_id": spec.id,
        "workflow_id": spec.agent_id,
        "status": word_of(run),
        "started_at": second(state.started_ms),
        "completed_at": second(state.ended_ms),
        "inputs": spec.input,
    }


def step_result(step: Step) -> StepResult:
    """Return what one step came to."""
    return StepResult(
        step_id=step.step_id,
        name=step.name or step.step_id,
        status=STEP_WORDS[step.status],
        started_at=_to_second(step.started_at),
        completed_at=_to_second(step.ended_at),
        output=step.output,
        error=step.error,
    )


def output_file(name: str, size_bytes: int, url: str | None, expires_ms: int | None) -> OutputFile:
    """Return a file with the address that opens it for now."""
    return OutputFile(name=name, size_bytes=size_bytes, url=url, url_expires_at=second(expires_ms))


def _to_second(moment: str | None) -> str | None:
    return None if moment is None else moment[:19] + "Z"


def tell(problem: Mapping[str, Any]) -> tuple[int, Refusal]:
    """Word a problem document as this API does."""
    standard = ("type", "title", "status", "detail", "code", "request_id")
    facts = {name: fact for name, fact in problem.items() if name not in standard}
    message = problem["detail"]
    if problem["code"] == "invalid_state":
        facts, message = _tell_state(facts)
    return problem["status"], Refusal(problem["code"], message, problem["request_id"], facts)


def _tell_state(facts: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the facts and the message of a wrong state in words that callers know."""
    action, present = Action(facts["action"]), facts["current_status"]
    if present in list(Status):
        present = WORDS.of(Status(present))
    allowed = ALLOWED[action]
    about = {"action": str(action), "current_status": present, "permitted": list(allowed)}
    if present in allowed:
        # Its holder has yet to confirm what it shows already.
        return about, f"The run is only about to be {present}; try again in a moment."
    return about, _cannot(present, action)


def _cannot(word: str, action: Action) -> str:
    return f"A run that is {word} cannot be {_DONE[action]}; it must be one of: {', '.join(ALLOWED[action])}."
