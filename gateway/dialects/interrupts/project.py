"""Runs in the words of the interrupts API; ids are UUIDs of the same 128 bits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, cast
from uuid import UUID, uuid5

from msgspec import UNSET
from ulid import ULID

from gateway.dialects.interrupts import wire
from gateway.domain.fold_state import Step
from gateway.domain.lifecycle import Action, Status
from gateway.domain.run import Actor, Run
from gateway.entry.requests import at
from gateway.entry.statuses import StatusWords

NAME = "interrupts"

WORDS = StatusWords(
    {
        Status.DELAYED: "queued",
        Status.QUEUED: "queued",
        Status.DEQUEUED: "queued",
        Status.RUNNING: "running",
        Status.WAITING: "interrupted",
        Status.PAUSED: "interrupted",
        Status.CANCELLING: "cancelled",
        Status.COMPLETED: "completed",
        Status.FAILED: "error",
        Status.CANCELLED: "cancelled",
        Status.TIMED_OUT: "error",
        Status.CRASHED: "error",
        Status.SYSTEM_FAILED: "error",
        Status.EXPIRED: "error",
        Status.DEAD_LETTER: "error",
    }
)
STEP_WORDS: dict[str, wire.StepStatus] = {
    "started": "running",
    "completed": "completed",
    "failed": "error",
    "abandoned": "cancelled",
}
FACTS = {"question_id": "interrupt_id", "request_ids": "interrupt_ids"}
CONTENT = "content"
"""Where the services say what is wrong with an answer, which here is an interrupt's `input`."""

THREADS = UUID("9a4f9d6c-6c0b-5f0e-8f27-3d1f5f6f1a02")
"""Namespace of the version 5 UUIDs of threads whose names are not 128 bits."""

_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


def uuid_of(run_id: str) -> str:
    """Return a run's id as a UUID of the same bits."""
    return str(ULID.from_str(run_id).to_uuid())


def run_id_from(text: str) -> str:
    """Return the run id that a UUID stands for; any other text as it is."""
    try:
        return str(ULID.from_uuid(UUID(text))) if len(text) == len("xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx") else text
    except ValueError:
        return text


def thread_uuid(thread_id: str) -> str:
    """Return a thread's id as a UUID: the same bits where it is a ULID or a UUID, else one derived from its name."""
    if _ULID.fullmatch(thread_id):
        return uuid_of(thread_id)
    try:
        found = UUID(thread_id)
    except ValueError:
        found = None
    return thread_id if found is not None and str(found) == thread_id else str(uuid5(THREADS, thread_id))


def agent_run(run: Run, steps: Iterable[Step] | None = None) -> wire.AgentRun:
    """Return a run, with its steps where they are given."""
    spec, state = run.spec, run.state
    status = cast(wire.Status, WORDS.of(run.status))
    return wire.AgentRun(
        object="agent_run",
        id=uuid_of(run.id),
        created_at=at(spec.created_us // 1000) or "",
        updated_at=at(run.updated_ms) or "",
        status=status,
        thread_id=thread_uuid(spec.thread_id),
        agent=spec.agent_id,
        requester=requester(spec.actor),
        started_at=at(state.started_ms),
        ended_at=at(state.ended_ms),
        output=envelope(state.output) if status == "completed" else None,
        interrupts=interrupts(run) if status == "interrupted" else [],
        steps=UNSET if steps is None else [step(each) for each in steps if is_shown(each)],
    )


def requester(actor: Actor) -> wire.Requester | None:
    """Return who initiated a run; None for the system itself."""
    if actor.kind == "system":
        return None
    return wire.Requester("user" if actor.kind in ("ticket", "token") else "account", actor.id, actor.name, actor.email)


def envelope(output: Any) -> dict[str, Any] | None:
    """Return an output as the object that artifacts are: itself, or under `value` what is none."""
    return output if output is None or isinstance(output, dict) else {"value": output}


def interrupts(run: Run) -> list[wire.Interrupt]:
    """Return the open questions of a run."""
    return [wire.Interrupt(q.request_id, q.prompt, q.schema, at(q.asked_ms) or "") for q in run.state.open]


def is_shown(each: Step) -> bool:
    """Whether a step is at the top level, and of what the run has not done again since."""
    return each.parent_id is None and not each.superseded


def step(each: Step) -> wire.Step:
    """Return a step."""
    return wire.Step(
        id=each.step_id,
        name=each.name,
        status=STEP_WORDS[each.status],
        started_at=each.started_at,
        ended_at=each.ended_at,
        output=each.output,
        error=each.error,
    )


def tell(problem: Mapping[str, Any]) -> tuple[int, wire.Refusal]:
    """Word a refusal."""
    message, facts = WORDS.retell(problem)
    details = {FACTS.get(name, name): fact for name, fact in facts.items()}
    if problem["code"] == "input_required":
        message = "The run is interrupted by a question; resume it with interrupt_id and input."
    elif problem.get("current_status") == Status.PAUSED and facts.get("action") == Action.ANSWER:
        message = "The run is paused; resume it without a body, then answer."
    elif str(details.get("path", "")).startswith(CONTENT):
        message, details["path"] = _of_input(message), "$." + _of_input(details["path"])
    elif problem["code"] == "too_large":
        message = _of_input(message)
    return problem["status"], wire.Refusal(wire.Fault(problem["code"], message, problem["request_id"], details))


def _of_input(text: str) -> str:
    """Return what is said of an answer's content as it is said of the input that it was sent as."""
    return "input" + text.removeprefix(CONTENT) if text.startswith(CONTENT) else text
