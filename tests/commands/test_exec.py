"""Any program as a live run."""

from __future__ import annotations

import errno
import os
import signal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.client import Event
from gateway.commands.exec.lines import Line, LineSplitter
from gateway.commands.exec.outcome import conclude, conclude_unstarted, exit_code_of, grace_s
from gateway.commands.exec.questions import answer_text


def cancel_request(**data: object) -> Event:
    """Return a request to cancel, made at 08:00:00."""
    return Event(
        seq=9,
        type="run.cancel_requested",
        run_id="01J",
        created_at="2026-11-22T08:00:00.000Z",
        attempt=1,
        data=data,
    )


def split(chunks: list[bytes], limit_chars: int = 64) -> list[Line]:
    """Return the lines of an output that came in these chunks."""
    splitter = LineSplitter(limit_chars)
    return [line for chunk in chunks for line in splitter.feed(chunk)] + splitter.finish()


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8))
def test_lines_do_not_depend_on_how_output_was_cut(output: bytes, cuts: list[int]) -> None:
    """The same bytes give the same text, whatever pieces the pipe makes of them."""
    edges = [0, *sorted(cuts), len(output)]
    pieces = [output[a:b] for a, b in pairwise(edges)]
    assert joined(split(pieces)) == joined(split([output]))
    assert all(len(line.text) <= 64 for line in split(pieces))


def joined(lines: list[Line]) -> list[str]:
    """Return lines with the pieces of cut ones put together."""
    whole: list[str] = [""]
    for line in lines:
        whole[-1] += line.text
        if not line.continued:
            whole.append("")
    return whole


def test_lines_are_what_a_program_wrote() -> None:
    """Line ends go, bad bytes are replaced, an unended last line counts."""
    lines = split([b"one\r\ntw", b"o\n\xff\n\nlast \xe2\x82"])
    assert [line.text for line in lines] == ["one", "two", "�", "", "last �"]


def test_the_last_line_is_where_a_prompt_stands() -> None:
    """It is the unended line, else the one that ended last."""
    splitter = LineSplitter()
    splitter.feed(b"Name?\n")
    assert splitter.last == "Name?"
    splitter.feed(b"Sure? ")
    assert splitter.last == "Sure? "
    assert splitter.take_rest() == [Line("Sure? ")]
    assert splitter.finish() == []


@pytest.mark.parametrize(
    ("returncode", "stopped", "type", "exit_code"),
    [
        (0, None, "run.completed", 0),
        (3, None, "run.failed", 3),
        (-signal.SIGSEGV, None, "run.failed", 139),
        (0, "enough", "run.cancelled", 0),
        (-signal.SIGTERM, "enough", "run.cancelled", 143),
    ],
)
def test_a_commands_end_is_its_runs_end(returncode: int, stopped: str | None, type: str, exit_code: int) -> None:
    """Status 0 completes, any other fails, and a command that was told to stop is cancelled."""
    assert conclude(returncode, stopped=stopped, duration_ms=5).type == type
    assert exit_code_of(returncode) == exit_code


@pytest.mark.parametrize(
    ("number", "code", "exit_code"),
    [(errno.ENOENT, "command_not_found", 127), (errno.EACCES, "command_not_executable", 126)],
)
def test_a_command_that_cannot_start_fails_as_in_a_shell(number: int, code: str, exit_code: int) -> None:
    """127 for a missing program, 126 for one that cannot be executed."""
    ending, shell_code = conclude_unstarted("prog", OSError(number, os.strerror(number)))
    assert (ending.type, ending.data["error"]["code"], shell_code) == ("run.failed", code, exit_code)


@pytest.mark.parametrize(
    ("data", "expected_s"),
    [
        ({"deadline_at": "2026-11-22T08:00:10.000Z"}, 8.5),
        ({"deadline_at": "2026-11-22T08:00:02.000Z"}, 1.0),
        ({"deadline_at": "2026-11-22T07:00:00.000Z"}, 0.0),
        ({"deadline_at": "soon"}, 8.5),
        ({}, 8.5),
    ],
)
def test_the_grace_ends_before_the_gateways_deadline(data: dict[str, object], expected_s: float) -> None:
    """KILL comes early enough for the confirmation to arrive in time."""
    assert grace_s(cancel_request(**data)) == pytest.approx(expected_s)


def test_an_answer_is_typed_as_a_program_reads_it() -> None:
    """Text goes as it is, other values as JSON."""
    assert [answer_text(content) for content in ("yes", True, {"a": 1})] == ["yes", "true", '{"a":1}']
