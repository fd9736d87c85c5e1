"""Steps and tool calls: begun, reported on, ended, or abandoned.

An end without a beginning makes an entry of its own, which a late beginning completes. An id that begins
again after it ended, or in another attempt, is another entry.
"""

from __future__ import annotations

from gateway.domain import catalogue
from gateway.domain.events import Event
from gateway.domain.fold_state import Folded, Step, ToolCall


def start_step(state: Folded, event: Event, data: catalogue.StepStarted) -> None:
    """Begin a step."""
    step = state.places.steps.get(data.step_id)
    if step is None or _is_over(step, event):
        step = _add_step(state, event, data.step_id)
        step.started_at = event.created_at
    step.name, step.input, step.parent_id = data.name, data.input, event.parent_id


def complete_step(state: Folded, event: Event, data: catalogue.StepCompleted) -> None:
    """End a step well."""
    step = _find_step(state, event, data.step_id)
    step.status, step.output, step.duration_ms = "completed", data.output, data.duration_ms
    _end(state, event, step)


def fail_step(state: Folded, event: Event, data: catalogue.StepFailed) -> None:
    """End a step with the error as it was written, unknown fields included."""
    step = _find_step(state, event, data.step_id)
    step.status, step.error, step.duration_ms = "failed", event.data["error"], data.duration_ms
    _end(state, event, step)


def start_call(state: Folded, event: Event, data: catalogue.ToolCall) -> None:
    """Begin a tool call."""
    call = state.places.tool_calls.get(data.call_id)
    if call is None or _is_over(call, event):
        call = _add_call(state, event, data.call_id)
        call.started_at = event.created_at
    call.name, call.input = data.name, data.input


def report_progress(state: Folded, event: Event, data: catalogue.ToolProgress) -> None:
    """Keep a tool call's latest progress."""
    _find_call(state, event, data.call_id).progress = data.progress


def end_call(state: Folded, event: Event, data: catalogue.ToolResult) -> None:
    """End a tool call with the status its result names."""
    call = _find_call(state, event, data.call_id)
    call.status, call.output, call.duration_ms = data.status, data.output, data.duration_ms
    _end(state, event, call)


def abandon(state: Folded, entry: Step | ToolCall, at: str) -> None:
    """End what will not end any more by itself; nothing where it has ended."""
    if state.places.running.pop(entry.seq, None) is not None:
        entry.status, entry.ended_at = "abandoned", at


def abandon_all(state: Folded, at: str) -> None:
    """End every step and tool call that still runs."""
    for entry in list(state.places.running.values()):
        abandon(state, entry, at)


def _is_over(entry: Step | ToolCall, event: Event) -> bool:
    """Tell whether a beginning of the same id is another entry, not the missing beginning of this one."""
    if entry.superseded or entry.name is None:
        return entry.superseded
    return entry.ended_at is not None or entry.attempt != event.attempt


def _end(state: Folded, event: Event, entry: Step | ToolCall) -> None:
    entry.ended_at = event.created_at
    state.places.running.pop(entry.seq, None)


def _find_step(state: Folded, event: Event, step_id: str) -> Step:
    step = state.places.steps.get(step_id)
    return _add_step(state, event, step_id) if step is None or step.superseded else step


def _add_step(state: Folded, event: Event, step_id: str) -> Step:
    places = state.places
    step = Step(seq=event.seq, attempt=event.attempt, step_id=step_id, parent_id=event.parent_id)
    state.steps.append(step)
    places.steps[step_id] = places.running[step.seq] = step
    return step


def _find_call(state: Folded, event: Event, call_id: str) -> ToolCall:
    call = state.places.tool_calls.get(call_id)
    return _add_call(state, event, call_id) if call is None or call.superseded else call


def _add_call(state: Folded, event: Event, call_id: str) -> ToolCall:
    places = state.places
    call = ToolCall(seq=event.seq, attempt=event.attempt, call_id=call_id, step_id=event.step_id)
    state.tool_calls.append(call)
    places.tool_calls[call_id] = places.running[call.seq] = call
    return call
