"""Events as lines of text: one function a type, no state but the names of steps and calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.text import Text

from gateway.client import Event
from gateway.commands.tail.text import STATUS_STYLES, compact, duration, printable

Names = Mapping[str, str]
"""What a step or call id was introduced as."""

_LEVEL_STYLES = {
    "debug": "dim",
    "warning": "yellow",
    "warn": "yellow",
    "error": "red",
    "critical": "bold red",
}


def describe(event: Event, names: Names) -> Text:
    """Return what happened as one line; an event of an unknown type as its type and data."""
    line = _LINES.get(event.type)
    if line is not None:
        return line(event, names)
    if event.type.startswith("run.") and isinstance(event.data, dict):
        return _status(event)
    return Text.assemble((f"{event.type} ", "dim"), compact(event.data))


def introduce(event: Event) -> tuple[str, str] | None:
    """Return the id and name that `event` introduces, if it does."""
    if event.type in {"step.started", "tool.call"}:
        own_id = event.data.get("call_id") if event.type == "tool.call" else _step_id(event)
        name = event.data.get("name")
        if isinstance(own_id, str) and isinstance(name, str):
            return own_id, printable(name)
    return None


def _status(event: Event) -> Text:
    word = event.type.removeprefix("run.")
    text = Text.assemble("● ", (word.replace("_", " "), STATUS_STYLES.get(word, "bold")))
    details = {
        name: value
        for name, value in event.data.items()
        if name in {"reason", "cause", "deadline_at", "next_retry_at", "scheduled_at", "attempt"} and value
    }
    for name, value in details.items():
        text.append(f"  {name} {compact(value)}", style="dim")
    return text


def _completed(event: Event, names: Names) -> Text:
    data = event.data
    text = Text.assemble("● ", ("completed", "green"))
    if data.get("output") not in (None, ""):
        text.append(f"  {compact(data['output'], limit_chars=1000)}")
    return text


def _failed(event: Event, names: Names) -> Text:
    return Text.assemble("● ", ("failed", "red"), _error(event.data))


def _asks(event: Event, names: Names) -> Text:
    data = event.data
    prompt = compact(data.get("prompt", ""), limit_chars=2000)
    text = Text.assemble(("? ", "bold yellow"), (prompt, "bold"))
    text.append(f"  request {compact(data.get('request_id', ''))}", style="dim")
    if data.get("deadline_at"):
        text.append(f"  until {compact(data['deadline_at'])}", style="dim")
    option = "" if _takes_text(data.get("schema")) else "--json "
    return text.append(f"\n          answer: gateway runs answer {option}{printable(event.run_id)} …", style="dim")


def _takes_text(schema: Any) -> bool:
    if not isinstance(schema, dict) or "type" not in schema:
        return schema is not False
    kinds = schema["type"]
    return "string" in (kinds if isinstance(kinds, list) else [kinds])


def _answered(event: Event, names: Names) -> Text:
    data = event.data
    text = Text.assemble(("> ", "bold yellow"), compact(data.get("content"), limit_chars=1000))
    return text.append(f"  request {compact(data.get('request_id', ''))}", style="dim")


def _step_started(event: Event, names: Names) -> Text:
    data = event.data
    return Text.assemble(("▸ ", "blue"), (compact(data.get("name", "step")), "bold"), _rest(data.get("input")))


def _step_completed(event: Event, names: Names) -> Text:
    data = event.data
    return _ended(("✓ ", "green"), _name(names, _step_id(event)), data, data.get("output"))


def _step_failed(event: Event, names: Names) -> Text:
    data = event.data
    return _ended(("✗ ", "red"), _name(names, _step_id(event)), data, _error(data))


def _tool_call(event: Event, names: Names) -> Text:
    data = event.data
    return Text.assemble(("→ ", "blue"), (compact(data.get("name", "tool")), "bold"), _rest(data.get("input")))


def _tool_progress(event: Event, names: Names) -> Text:
    data = event.data
    return Text.assemble(("… ", "dim"), _name(names, data.get("call_id")), _rest(data.get("progress")))


def _tool_result(event: Event, names: Names) -> Text:
    data = event.data
    good = data.get("status") in (None, "ok", "success", "succeeded", "completed")
    mark = ("← ", "green") if good else ("← ", "red")
    return _ended(mark, _name(names, data.get("call_id")), data, data.get("output"))


def _log(event: Event, names: Names) -> Text:
    data = event.data
    style = _LEVEL_STYLES.get(str(data.get("level")), "")
    return Text(printable(str(data.get("message", ""))), style=style)


def _usage(event: Event, names: Names) -> Text:
    data = event.data
    tokens = f"{data.get('prompt_tokens', 0)} + {data.get('completion_tokens', 0)} tokens"
    return Text(f"Σ {compact(data.get('model', ''))} {tokens}", style="dim")


def _ended(mark: tuple[str, str], name: str, data: dict[str, Any], outcome: Any) -> Text:
    text = Text.assemble(mark, (name, "bold"))
    if took := duration(data.get("duration_ms")):
        text.append(f"  {took}", style="dim")
    return text.append_text(outcome if isinstance(outcome, Text) else _rest(outcome))


def _error(data: dict[str, Any]) -> Text:
    error = data.get("error")
    if not isinstance(error, dict):
        return _rest(error)
    return Text(f"  {compact(error.get('code', ''))}: {compact(error.get('message', ''), limit_chars=1000)}")


def _rest(value: Any) -> Text:
    return Text("" if value in (None, "", {}, []) else f"  {compact(value)}", style="dim")


def _step_id(event: Event) -> Any:
    return event.data.get("step_id") or event.step_id


def _name(names: Names, own_id: Any) -> str:
    return names.get(str(own_id), compact(own_id))


_LINES: dict[str, Callable[[Event, Names], Text]] = {
    "run.completed": _completed,
    "run.failed": _failed,
    "run.waiting_for_input": _asks,
    "run.input_received": _answered,
    "step.started": _step_started,
    "step.completed": _step_completed,
    "step.failed": _step_failed,
    "tool.call": _tool_call,
    "tool.progress": _tool_progress,
    "tool.result": _tool_result,
    "usage.recorded": _usage,
    "log": _log,
}
