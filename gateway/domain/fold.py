"""From a log to what it means: steps, tool calls, messages, usage, outputs, checkpoints, questions.

Folding is incremental, and an event that was folded before changes nothing. No order of events makes it
fail: data that does not fit its shape is passed over. It costs a few microseconds an event, whatever came
before, decoding included; a log of a million events takes seconds, so fold it in pieces where others wait.
What is kept is bounded, as `fold_bounds` says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from gateway.domain import catalogue, fold_messages, fold_runs, fold_steps
from gateway.domain.events import Event
from gateway.domain.fold_bounds import BOUNDS, Bounds, elide, elide_data, elide_fields, shrink
from gateway.domain.fold_state import Checkpoint, Custom, File, Folded, Line, Output, Usage
from gateway.domain.lifecycle import ENDINGS
from gateway.domain.run import Totals

LOG_LINES: Final = 200
CUSTOM_ENTRIES: Final = 50

_Fold = Callable[[Folded, Event, Any], None]


def fold(state: Folded, event: Event, line_bytes: int, bounds: Bounds = BOUNDS) -> None:
    """Bring `state` from the event before `event` to `event`, in place.

    Args:
        line_bytes: What the event takes in the log.
    """
    if event.seq <= state.as_of_seq:
        return
    state.as_of_seq, state.attempt = event.seq, event.attempt
    _fold(state, event, line_bytes, bounds)
    state.fresh_bytes += line_bytes
    if state.fresh_bytes > bounds.fresh_bytes:
        shrink(state, bounds)


def _fold(state: Folded, whole: Event, line_bytes: int, bounds: Bounds) -> None:
    event = elide_data(whole, bounds.value_bytes) if line_bytes > bounds.value_bytes else whole
    if event.type.startswith("run."):
        fold_runs.note_change(state, event)
    elif event.type.startswith("custom."):
        _keep_custom(state, event)
    rule = _RULES.get(event.type)
    if rule is None:
        return
    shape, apply = rule
    try:
        data = msgspec.convert(whole.data, shape)
    except msgspec.ValidationError:
        return
    apply(state, event, data if event is whole else elide_fields(data, event))
    if event.type == "checkpoint.created" and len(state.checkpoints) > 1:
        former = state.checkpoints[-2]
        former.state = elide(former.state, former.seq, bounds.value_bytes)


def measure_usage(usage: catalogue.UsageRecorded) -> Totals:
    """Return what one `usage.recorded` adds to a run's totals."""
    return Totals(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=usage.cached_tokens or 0,
        cost_microusd=usage.cost_microusd or 0,
        credits_micro=round((usage.credits or 0) * 1_000_000),
    )


def _record_usage(state: Folded, event: Event, data: catalogue.UsageRecorded) -> None:
    added, total = measure_usage(data), state.totals
    state.totals = Totals(
        prompt_tokens=total.prompt_tokens + added.prompt_tokens,
        completion_tokens=total.completion_tokens + added.completion_tokens,
        cached_tokens=total.cached_tokens + added.cached_tokens,
        cost_microusd=total.cost_microusd + added.cost_microusd,
        credits_micro=total.credits_micro + added.credits_micro,
    )
    state.usage.append(
        Usage(
            seq=event.seq,
            attempt=event.attempt,
            created_at=event.created_at,
            step_id=event.step_id,
            provider=data.provider,
            model=data.model,
            prompt_tokens=data.prompt_tokens,
            completion_tokens=data.completion_tokens,
            cached_tokens=data.cached_tokens,
            cost_microusd=data.cost_microusd,
            credits=data.credits,
        )
    )


def _add_checkpoint(state: Folded, event: Event, data: catalogue.CheckpointCreated) -> None:
    state.boundary_seq = event.seq
    state.checkpoints.append(
        Checkpoint(
            seq=event.seq,
            attempt=event.attempt,
            created_at=event.created_at,
            source=data.source,
            state=data.state,
        )
    )


def _set_output(state: Folded, event: Event, data: catalogue.OutputSet) -> None:
    # Taken out first, so that the outputs stay in the order of their seqs.
    state.outputs.pop(data.key, None)
    state.outputs[data.key] = Output(
        seq=event.seq,
        attempt=event.attempt,
        created_at=event.created_at,
        key=data.key,
        value=data.value,
        schema=data.schema,
    )


def _add_file(state: Folded, event: Event, data: catalogue.FileCreated) -> None:
    state.files.append(
        File(
            seq=event.seq,
            attempt=event.attempt,
            created_at=event.created_at,
            step_id=event.step_id,
            file_id=data.file_id,
            name=data.name,
            size_bytes=data.size_bytes,
            content_type=data.content_type,
        )
    )


def _keep_line(state: Folded, event: Event, data: catalogue.Log) -> None:
    state.log_count += 1
    state.logs.append(
        Line(
            seq=event.seq,
            at=event.created_at,
            step_id=event.step_id,
            level=data.level,
            message=data.message,
            data=data.data,
        )
    )
    del state.logs[:-LOG_LINES]


def _keep_custom(state: Folded, event: Event) -> None:
    state.custom_count += 1
    state.custom.append(
        Custom(seq=event.seq, at=event.created_at, type=event.type, step_id=event.step_id, data=event.data)
    )
    del state.custom[:-CUSTOM_ENTRIES]


_RULES: Final[dict[str, tuple[type[msgspec.Struct], _Fold]]] = {
    **dict.fromkeys(ENDINGS, (catalogue.RunNote, fold_runs.end)),
    "run.completed": (catalogue.RunCompleted, fold_runs.complete),
    "run.restarted": (catalogue.RunNote, fold_runs.restart),
    "run.attempt_started": (catalogue.AttemptStarted, fold_runs.begin_attempt),
    "run.waiting_for_input": (catalogue.WaitingForInput, fold_runs.ask),
    "run.input_received": (catalogue.InputReceived, fold_runs.answer),
    "run.input_closed": (catalogue.InputClosed, fold_runs.close),
    "step.started": (catalogue.StepStarted, fold_steps.start_step),
    "step.completed": (catalogue.StepCompleted, fold_steps.complete_step),
    "step.failed": (catalogue.StepFailed, fold_steps.fail_step),
    "message.delta": (catalogue.Message, fold_messages.join_delta),
    "message.completed": (catalogue.Message, fold_messages.complete_message),
    "tool.call": (catalogue.ToolCall, fold_steps.start_call),
    "tool.progress": (catalogue.ToolProgress, fold_steps.report_progress),
    "tool.result": (catalogue.ToolResult, fold_steps.end_call),
    "usage.recorded": (catalogue.UsageRecorded, _record_usage),
    "checkpoint.created": (catalogue.CheckpointCreated, _add_checkpoint),
    "output.set": (catalogue.OutputSet, _set_output),
    "file.created": (catalogue.FileCreated, _add_file),
    "log": (catalogue.Log, _keep_line),
}
