"""Runs, and what their logs fold to, in the job system's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway.dialects.jobs import wire
from gateway.domain import fold_state
from gateway.domain.due import judge_all
from gateway.domain.lifecycle import Status
from gateway.domain.run import Run
from gateway.domain.times import format_time, format_time_us
from gateway.domain.trace import trace
from gateway.entry.requests import at
from gateway.entry.statuses import StatusWords
from gateway.service.folds import Snapshot
from gateway.service.runs import NeedStatus

NAME = "jobs"
WRAPPED = "value"
"""The member that a value has where the system has objects only."""

WORDS = StatusWords(
    {
        **{status: str(status) for status in Status},
        Status.RUNNING: "executing",
        Status.WAITING: "waiting",
        Status.CANCELLING: "canceled",
        Status.CANCELLED: "canceled",
    }
)


def word_of(status: Status) -> wire.StatusWord:
    """Return the word of a status."""
    return WORDS.of(status)  # type: ignore[return-value] # a test compares the table with the type


def event_id(run_id: str, seq: int) -> str:
    """Return the id of what event `seq` of a run began or said."""
    return f"{run_id}-{seq}"


def wrap(value: Any) -> wire.Object | None:
    """Return a value where the system has objects only."""
    return value if value is None or isinstance(value, dict) else {WRAPPED: value}


def text(value: Any) -> str:
    """Return a value where the system has strings only: what is none as its JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def run(run: Run) -> wire.JobRun:
    """Return a run."""
    spec, state, policy = run.spec, run.state, run.spec.policy
    return wire.JobRun(
        id=spec.id,
        job_id=spec.agent_id,
        project_id=spec.tenant,
        status=word_of(state.status),
        attempt=state.attempt,
        payload=wrap(spec.input),
        result=wrap(state.output),
        metadata={key: text(value) for key, value in spec.metadata.items() if value is not None},
        error=_error(state.error),
        triggered_by=spec.trigger,  # type: ignore[arg-type] # one of the native triggers, which are these
        # A run that rests between two attempts says so in next_retry_at.
        scheduled_at=at(state.scheduled_ms if state.next_retry_ms is None else None),
        started_at=at(state.started_ms),
        finished_at=at(state.ended_ms),
        heartbeat_at=at(run.beat_ms or None),
        next_retry_at=at(state.next_retry_ms),
        expires_at=at(state.expires_ms),
        parent_run_id=spec.parent_run_id,
        priority=spec.priority,
        idempotency_key=None if state.key_reset else spec.idempotency_key,
        job_version=spec.agent_version,
        workflow_step_run_id=_extension(run, "workflow_step_run_id"),
        max_attempts_override=spec.overrides.get("max_attempts"),
        timeout_secs_override=_seconds(spec.overrides.get("timeout_ms")),
        retry_backoff=policy.backoff,
        retry_initial_delay_secs=_seconds(policy.initial_delay_ms) or 0,
        retry_max_delay_secs=_seconds(policy.max_delay_ms) or 0,
        execution_trace=msgspec.convert(trace(run), wire.Trace, from_attributes=True),
        debug_mode=state.debug_mode,
        continuation_of=continuation_of(run),
        lineage_depth=spec.lineage_depth,
        tags=spec.tags,
        job_version_id=f"{spec.agent_id}@{spec.agent_version}" if spec.agent_version else None,
        created_by=spec.actor.id,
        batch_id=spec.batch_id,
        concurrency_key=spec.concurrency_key,
        # To the microsecond, so that it is a cursor.
        created_at=format_time_us(spec.created_us),
    )


def continuation_of(run: Run) -> str | None:
    """Return the run that this one was made of, by a retry or a replay."""
    return run.spec.retry_of or run.spec.replay_of


def chain(links: Mapping[str, str | None], run_id: str) -> set[str]:
    """Return the runs that `run_id` continues and that continue it, itself included, however many steps away.

    Args:
        links: What each run of its family continues.
    """
    neighbours: dict[str, set[str]] = {one: set() for one in links}
    for one, continued in links.items():
        if continued in neighbours:
            neighbours[one].add(continued)
            neighbours[continued].add(one)
    found, waiting = {run_id}, [run_id]
    while waiting:
        fresh = neighbours.get(waiting.pop(), set()) - found
        found |= fresh
        waiting += fresh
    return found


def checkpoints(taken: Snapshot) -> list[wire.Checkpoint]:
    """Return a run's checkpoints in their order; a large one before the last says which event has it."""
    return [
        wire.Checkpoint(
            **_origin(taken, entry.seq),
            sequence=entry.seq,
            source=text(entry.source),
            state=wrap(entry.state),
            created_at=entry.created_at,
        )
        for entry in taken.state.checkpoints
    ]


def usage(taken: Snapshot) -> list[wire.Usage]:
    """Return what each call of a model took."""
    return [
        wire.Usage(
            **_origin(taken, entry.seq),
            provider=entry.provider,
            model=entry.model,
            prompt_tokens=entry.prompt_tokens,
            completion_tokens=entry.completion_tokens,
            total_tokens=entry.prompt_tokens + entry.completion_tokens,
            cost_microusd=entry.cost_microusd,
            created_at=entry.created_at,
        )
        for entry in taken.state.usage
    ]


def tool_calls(taken: Snapshot) -> list[wire.ToolCall]:
    """Return a run's tool calls, those of abandoned attempts too: they were made."""
    return [
        wire.ToolCall(
            **_origin(taken, entry.seq),
            tool_name=entry.name,
            input=wrap(entry.input),
            output=wrap(entry.output),
            duration_ms=None if entry.duration_ms is None else round(entry.duration_ms),
            status=entry.status,
            created_at=entry.started_at or entry.ended_at,
        )
        for entry in taken.state.tool_calls
    ]


def outputs(taken: Snapshot) -> list[wire.Output]:
    """Return a run's outputs, but for those that were abandoned with their attempt."""
    return [
        wire.Output(
            **_origin(taken, entry.seq),
            output_key=entry.key,
            schema=wrap(entry.schema),
            value=wrap(entry.value),
            created_at=entry.created_at,
        )
        for entry in taken.state.outputs.values()
        if not entry.superseded
    ]


def bundle(taken: Snapshot, events: list[wire.RunEvent]) -> wire.DebugBundle:
    """Return everything that is known of a run."""
    return wire.DebugBundle(
        run=run(taken.run),
        events=events,
        checkpoints=checkpoints(taken),
        usage=usage(taken),
        tool_calls=tool_calls(taken),
        outputs=outputs(taken),
    )


def state(taken: Snapshot) -> wire.RunState:
    """Return where a run stands and what it would go on from."""
    held: list[fold_state.Checkpoint] = taken.state.checkpoints[-1:]
    return wire.RunState(
        run_id=taken.run.id,
        status=word_of(taken.run.status),
        attempt=taken.run.state.attempt,
        state=wrap(held[0].state) if held else None,
        pending=pending(taken.run, taken.state.history),
        updated_at=format_time(taken.run.updated_ms),
    )


def pending(run: Run, history: Sequence[fold_state.Change]) -> list[wire.Pending]:
    """Return what somebody still has to do: answer, or let go of the run.

    Args:
        history: The changes of the run's status, oldest first.
    """
    state = run.state
    waits = [
        wire.Pending(type="input", request_id=q.request_id, prompt=q.prompt, created_at=format_time(q.asked_ms))
        for q in state.open
    ]
    if state.status is Status.CANCELLING:
        asked_at = next((change.at for change in reversed(history) if change.type == "run.cancel_requested"), None)
        waits.append(wire.Pending(type="cancel", request_id=None, prompt=None, created_at=asked_at))
    elif state.status is Status.PAUSED and state.held:
        waits.append(wire.Pending(type="pause", request_id=None, prompt=None, created_at=at(state.paused_ms)))
    return waits


def dependency_status(run: Run, needs: Sequence[NeedStatus]) -> wire.DependencyStatus:
    """Return what a run waits for; what was satisfied stays so, whatever became of those runs since."""
    met = run.state.dependencies_met or judge_all(need.verdict for need in needs) == "met"
    return wire.DependencyStatus(
        run_id=run.id,
        job_id=run.spec.agent_id,
        status=word_of(run.status),
        dependencies=[
            wire.Dependency(
                id=need.dependency.run_id,
                job_id=run.spec.agent_id,
                depends_on_job_id=need.dependency.agent_id,
                condition=need.dependency.condition,
                created_at=format_time_us(run.spec.created_us),
            )
            for need in needs
        ],
        dependencies_satisfied=met,
    )


def _origin(taken: Snapshot, seq: int) -> dict[str, str]:
    return {"id": event_id(taken.run.id, seq), "run_id": taken.run.id}


def _error(error: Any) -> str | None:
    """Return an error as a sentence."""
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return str(error["message"])
    return None if error is None else text(error)


def _seconds(ms: int | None) -> int | None:
    """Return a duration in whole seconds; one above zero stays above zero."""
    return None if ms is None else -(-ms // 1000)


def _extension(run: Run, name: str) -> str | None:
    """Return what only this system knows of a run."""
    own = run.spec.extensions.get(NAME)
    value = own.get(name) if isinstance(own, dict) else None
    return value if isinstance(value, str) else None
