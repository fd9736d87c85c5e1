"""A run in a terminal."""

from __future__ import annotations

import asyncio
import io
import re
import sys
import tempfile
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from gateway.client import Client, Event, Gap, Reset, Run, Snapshot, StreamItem
from gateway.commands.tail.text import compact, duration, printable
from gateway.commands.tail.view import View
from tests.client.waits import SOON
from tests.commands.reach import Reachable, environment
from tests.support.processes import serving
from tests.support.running import RunningGateway


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


pytestmark = pytest.mark.anyio

DEADLINE_S = 30.0
COMPLETED = {"type": "run.completed", "data": {"output": "fine"}}


@pytest.fixture
async def client(gateway: RunningGateway) -> AsyncIterator[Client]:
    """Return a client of the gateway."""
    async with Client(gateway.url, key=gateway.key, backoff=SOON) as opened:
        yield opened


@pytest.fixture
async def run(client: Client) -> Run:
    """Return a run that has said one line."""
    run = await client.runs.create("teller", title="A tale")
    await client.runs.append(run.id, [line("once")])
    return run


def line(message: str) -> dict[str, object]:
    """Return a log event to append."""
    return {"type": "log", "data": {"level": "info", "message": message}}


async def start(gateway: Reachable, *arguments: str) -> asyncio.subprocess.Process:
    """Start a command of the gateway, with pipes for its output."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", *arguments), env=environment(gateway), stdout=PIPE, stderr=PIPE
    )


async def finish(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    """Return a command's exit code and what it wrote to its two outputs."""
    async with asyncio.timeout(DEADLINE_S):
        stdout, stderr = await process.communicate()
    return process.returncode, stdout.decode(), stderr.decode()


async def read_until(process: asyncio.subprocess.Process, text: str) -> str:
    """Return what a command writes up to a line that contains `text`."""
    assert process.stdout is not None
    seen = ""
    async with asyncio.timeout(DEADLINE_S):
        while text not in seen:
            chunk = (await process.stdout.readline()).decode()
            assert chunk, f"{text!r} never came: {seen}"
            seen += chunk
    return seen


async def test_a_run_is_shown_as_it_happens(gateway: RunningGateway, client: Client, run: Run) -> None:
    """Lines come while the run goes on, and its completion is exit code 0."""
    process = await start(gateway, "tail", run.id)
    await read_until(process, "once")
    await client.runs.append(run.id, [line("upon"), COMPLETED])
    code, rest, _ = await finish(process)
    assert code == 0
    assert [part[10:] for part in rest.splitlines()] == ["upon", "● completed  fine"]


async def test_a_tail_outlives_its_gateway() -> None:
    """A restart of the gateway shows neither as a loss nor as a repetition."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        async with (
            serving(Path(folder) / "data") as gateway,
            Client(gateway.url, key=gateway.key, backoff=SOON) as client,
        ):
            run = await client.runs.create("teller")
            await client.runs.append(run.id, [line("once")])
            process = await start(gateway, "tail", "--json", run.id)
            seen = await read_until(process, "once")
            await gateway.stop()
            await gateway.start()
            await client.runs.append(run.id, [line("upon"), COMPLETED])
            code, rest, _ = await finish(process)
    events = [msgspec.json.decode(text) for text in (seen + rest).splitlines()]
    assert [event["seq"] for event in events] == list(range(1, 7))
    assert code == 0


async def test_json_lines_can_be_resumed(gateway: RunningGateway, client: Client, run: Run) -> None:
    """Each line has the cursor to go on after it; a run that did not complete is exit code 1."""
    await client.runs.append(run.id, [line("upon"), line("a time")])
    await client.runs.cancel(run.id, force=True)
    code, out, _ = await finish(await start(gateway, "tail", "--json", "--types", "log", run.id))
    events = [msgspec.json.decode(text) for text in out.splitlines()]
    assert code == 1
    assert [event["data"]["message"] for event in events] == ["once", "upon", "a time"]
    resumed = ("tail", "--json", "--no-follow", "--after", events[1]["cursor"], run.id)
    _, out, _ = await finish(await start(gateway, *resumed))
    assert [msgspec.json.decode(text)["type"] for text in out.splitlines()] == ["log", "run.cancelled"]


async def test_a_snapshot_of_the_log_does_not_wait(gateway: RunningGateway, run: Run) -> None:
    """With --no-follow a run that goes on is exit code 0."""
    code, out, _ = await finish(await start(gateway, "tail", "--no-follow", run.id))
    assert (code, out.splitlines()[-1][10:]) == (0, "once")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("tail", "0" * 26), 3),
        (("tail",), 2),
        (("tail", "--key", "gwk_wrong", "0" * 26), 3),
        (("runs", "show", "0" * 26), 3),
        (("runs", "--url", "nonsense"), 2),
    ],
)
async def test_refusals_are_said_and_counted(gateway: RunningGateway, arguments: tuple[str, ...], code: int) -> None:
    """A refusal is one line on stderr and its own exit code."""
    returncode, out, err = await finish(await start(gateway, *arguments))
    assert (returncode, out) == (code, "")
    assert "Traceback" not in err
    assert err


async def test_runs_are_found_and_steered(gateway: RunningGateway, client: Client, run: Run) -> None:
    """The same command lists, shows, pauses, resumes, answers and cancels."""
    await client.runs.append(
        run.id, [{"type": "run.waiting_for_input", "data": {"prompt": "Which?", "request_id": "q1"}}]
    )
    listed = await finish(await start(gateway, "runs", "--agent", "teller", "--limit", "1", "--json"))
    assert msgspec.json.decode(listed[1])["id"] == run.id
    assert run.id in (await finish(await start(gateway, "runs")))[1]
    assert "Which?" in (await finish(await start(gateway, "runs", "show", run.id)))[1]
    for arguments, status in (
        (("pause",), "paused"),
        (("resume",), "waiting_for_input"),
        (("cancel", "--force", "--reason", "enough"), "cancelled"),
    ):
        verb, *options = arguments
        if verb == "cancel":
            code, out, _ = await finish(await start(gateway, "runs", "answer", "--json", run.id, '{"n": 1}'))
            assert (code, "q1" in out) == (0, True)
        code, out, _ = await finish(await start(gateway, "runs", verb, *options, run.id))
        assert (code, out) == (0, f"{run.id} is {status}\n")
    answers = [
        item.data async for item in client.runs.log(run.id, types=["run.input_received"]) if isinstance(item, Event)
    ]
    assert [answer["content"] for answer in answers] == [{"n": 1}]


async def test_an_answer_that_was_meant_as_json_is_told_how(gateway: RunningGateway, client: Client, run: Run) -> None:
    """Text is refused by a question for a boolean; the refusal names `--json`, and with it the answer counts."""
    question = {"prompt": "Publish?", "schema": {"type": "boolean"}}
    await client.runs.append(run.id, [{"type": "run.waiting_for_input", "data": question}])
    code, _, err = await finish(await start(gateway, "runs", "answer", run.id, "true"))
    assert code == 3
    assert err.endswith("; true was sent as text, --json sends it as JSON\n")
    code, _, err = await finish(await start(gateway, "runs", "answer", run.id, "yes"))
    assert (code, "--json" in err) == (3, False)
    assert (await finish(await start(gateway, "runs", "answer", "--json", run.id, "true")))[0] == 0


async def test_the_list_fits_a_narrow_terminal(gateway: RunningGateway, client: Client, run: Run) -> None:
    """In 80 columns times, statuses and ids stay whole and on their line; titles give way."""
    await client.runs.append(run.id, [{"type": "run.waiting_for_input", "data": {"prompt": "Which?"}}])
    out = (await finish(await start(gateway, "runs")))[1]
    (line,) = [line for line in out.splitlines() if run.id in line]
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  waiting_for_input ", line)


@pytest.mark.parametrize(
    ("schema", "option"),
    [({"type": "boolean"}, "--json "), ({"type": ["string", "null"]}, ""), ({"enum": ["a"]}, ""), (True, "")],
)
def test_a_question_says_how_its_schema_is_answered(schema: Any, option: str) -> None:
    """Where no text fits, the command that is shown sends JSON."""
    (_, hint) = shown(event("run.waiting_for_input", {"request_id": "q1", "prompt": "Go on?", "schema": schema}))
    assert hint == f"          answer: gateway runs answer {option}01J …"
