"""A run in a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from gateway.client import Event, Gap, Reset, Snapshot, StreamItem
from gateway.commands.tail.text import compact, duration, printable
from gateway.commands.tail.view import View


def event(type: str, data: object, **envelope: str) -> Event:
    """Return an event of a run."""
    return Event(
        seq=1,
        type=type,
        run_id="01J",
        created_at="2026-11-22T08:00:00.000Z",
        attempt=1,
        data=data,
        **envelope,
    )


def shown(*items: StreamItem) -> list[str]:
    """Return the lines that a pipe gets, without their clock."""
    out = io.StringIO()
    view = View(Console(file=out, width=40))
    for item in items:
        view.show(item)
    view.close()
    return [line[10:] if line[:1].isdigit() else line for line in out.getvalue().splitlines()]


def test_pieces_of_a_message_flow_into_one_text() -> None:
    """Deltas are joined on one line until something else happens; the completed message is not repeated."""
    assert shown(
        event("message.delta", {"content": "Hel", "message_id": "m1"}),
        event("message.delta", {"content": "lo", "message_id": "m1"}),
        event("message.completed", {"content": "Hello", "message_id": "m1"}),
        event("message.delta", {"content": "Next", "message_id": "m2"}),
        event("log", {"level": "info", "message": "done"}),
        event("message.completed", {"content": "Whole"}),
    ) == ["Hello", "Next", "done", "Whole"]


def test_steps_and_calls_are_named_when_they_end() -> None:
    """A result names the call that it belongs to and how long it took."""
    assert shown(
        event("step.started", {"step_id": "s1", "name": "search"}),
        event("tool.call", {"call_id": "c1", "name": "grep", "input": {"q": "tide"}}),
        event("tool.progress", {"call_id": "c1", "progress": 0.5}),
        event("tool.result", {"call_id": "c1", "output": [1], "status": "ok", "duration_ms": 1200}),
        event("step.failed", {"step_id": "s1", "error": {"code": "x", "message": "broke"}}),
        event("step.completed", {"step_id": "s2", "duration_ms": 85}, step_id="s2"),
    ) == [
        "▸ search",
        '→ grep  {"q":"tide"}',
        "… grep  0.5",
        "← grep  1.2 s  [1]",
        "✗ search  x: broke",
        "✓ s2  85 ms",
    ]


def test_status_questions_and_answers_are_said() -> None:
    """A question says what is asked and how to answer."""
    lines = shown(
        event("run.started", {"attempt": 1}),
        event("run.waiting_for_input", {"request_id": "q1", "prompt": "Go on?", "deadline_at": "soon"}),
        event("run.input_received", {"request_id": "q1", "content": {"ok": True}}),
        event("run.cancel_requested", {"reason": "enough", "deadline_at": "T"}),
        event("run.completed", {"output": {"exit_code": 0}}),
        event("run.failed", {"error": {"code": "exit_status", "message": "no"}}),
    )
    assert lines == [
        "● started  attempt 1",
        "? Go on?  request q1  until soon",
        "          answer: gateway runs answer 01J …",
        '> {"ok":true}  request q1',
        "● cancel requested  reason enough  deadline_at T",
        '● completed  {"exit_code":0}',
        "● failed  exit_status: no",
    ]


def test_what_the_log_lost_is_said() -> None:
    """A gap, a reset and a snapshot are not silent."""
    lines = shown(Gap(first_seq=8), Reset(valid_through=3), Snapshot(as_of_seq=5, state={"a": 1}))
    assert [line[:2] for line in lines] == ["--", "--", "--"]
    assert ["8" in lines[0], "3" in lines[1], '{"a":1}' in lines[2]] == [True, True, True]


@pytest.mark.parametrize("data", [[1, 2], "text", None, {"a": {"b": 1}}])
def test_any_custom_event_can_be_shown(data: object) -> None:
    """An event that no view knows is shown as its type and data."""
    assert shown(event("custom.thing", data))[0].startswith("custom.thing ")


def test_long_lines_reach_a_pipe_whole() -> None:
    """Nothing is folded at the width of a terminal that is not there."""
    assert shown(event("log", {"level": "info", "message": "x" * 500})) == ["x" * 500]


def test_foreign_text_cannot_drive_the_terminal() -> None:
    """Escapes and controls are taken out, markup stays text, a progress bar shows its last state."""
    assert printable("\x1b[31mred\x1b[0m\x1b]0;title\x07 \x00[bold]") == "red �[bold]"
    assert printable("10%\r50%\r100%\r\nnext") == "100%\nnext"
    assert shown(event("log", {"level": "info", "message": "[red]x[/red]"})) == ["[red]x[/red]"]


def test_values_are_cut_to_a_line() -> None:
    """A long value ends with an ellipsis, a number of milliseconds reads as a duration."""
    assert compact({"a": "b" * 500}, limit_chars=10) == '{"a":"bbb…'
    assert compact("a\nb") == "a ⏎ b"
    assert [duration(ms) for ms in (85, 1200, 200_000, None, True)] == [
        "85 ms",
        "1.2 s",
        "3 min 20 s",
        "",
        "",
    ]
