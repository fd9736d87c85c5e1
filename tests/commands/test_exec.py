"""Any program as a live run."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.client import Appended, Client, ClientError, Event, InvalidState
from gateway.commands.exec.beginning import begin
from gateway.commands.exec.child import start_child
from gateway.commands.exec.journal import Journal
from gateway.commands.exec.lines import Line, LineSplitter
from gateway.commands.exec.outcome import conclude, conclude_unstarted, exit_code_of, grace_s
from gateway.commands.exec.questions import Asker, answer_text
from tests.client.waits import SOON
from tests.commands.reach import Exec, environment, gateway_exec
from tests.support.processes import serving
from tests.support.running import RunningGateway, RunningStore, run_gateway


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


@settings(deadline=None)
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


pytestmark = pytest.mark.anyio

FOR_EVER = "while :; do sleep 0.05; done"
DEADLINE_S = 30.0


@pytest.fixture
async def gateway(store: RunningStore) -> AsyncIterator[RunningGateway]:
    """Return a gateway that gives a cancelled run three seconds."""
    async with run_gateway(store.url, cancel_grace_s=3.0) as running:
        yield running


@pytest.fixture
async def client(gateway: RunningGateway) -> AsyncIterator[Client]:
    """Return a client of the gateway."""
    async with Client(gateway.url, key=gateway.key, backoff=SOON) as opened:
        yield opened


async def test_output_becomes_the_log_and_the_status_its_end(gateway: RunningGateway, client: Client) -> None:
    """Both streams are in the log as they came, and the terminal event comes after all of them."""
    script = "printf 'one\\ntwo\\nthree'; echo bad >&2; exit 3"
    options = ("--title", "counting", "--tag", "a=b", "--agent", "counter", "--thread", "t-exec")
    async with gateway_exec(gateway, client, *options, "--", "sh", "-c", script) as running:
        stdout, _ = await running.process.communicate()
        events = await running.events()
        run = await client.runs.get(running.run_id)
        assert await running.output() == ["one", "two", "three"]
        assert await running.output("stderr") == ["bad"]
    assert stdout == b"one\ntwo\nthree"
    assert running.process.returncode == 3
    assert events[-1].type == "run.failed"
    assert run.error is not None
    assert (run.error["code"], run.error["details"]["exit_code"]) == ("exit_status", 3)
    assert (run.title, run.tags, run.agent_id, run.thread_id) == ("counting", {"a": "b"}, "counter", "t-exec")


async def test_a_good_command_completes_its_run(gateway: RunningGateway, client: Client) -> None:
    """Status 0 is in the output; without --ask standard input is empty; --quiet is quiet."""
    async with gateway_exec(gateway, client, "--", "cat") as running:
        assert await running.finish() == 0
        run = await client.runs.get(running.run_id)
    assert (run.status, run.output["exit_code"]) == ("completed", 0)


async def test_a_missing_command_fails_its_run(gateway: RunningGateway, client: Client) -> None:
    """The run says what could not be found, the shell gets 127."""
    async with gateway_exec(gateway, client, "--", "no-such-program") as running:
        assert await running.finish() == 127
        run = await client.runs.get(running.run_id)
    assert run.error is not None
    assert (run.status, run.error["code"]) == ("failed", "command_not_found")


async def test_a_cancelled_run_terminates_its_command(gateway: RunningGateway, client: Client) -> None:
    """The command may say its last words; they come before the confirmation."""
    script = f"trap 'echo bye; exit 7' TERM; echo up; {FOR_EVER}"
    async with gateway_exec(gateway, client, "--", "sh", "-c", script) as running:
        await running.see("log", "up")
        await client.runs.cancel(running.run_id, reason="enough")
        assert await running.finish() == 7
        assert await running.output() == ["up", "bye"]
        last = (await running.events())[-1]
    assert (last.type, last.data["reason"], last.data["actor"]["kind"]) == ("run.cancelled", "enough", "key")


async def test_a_command_that_ignores_term_is_killed_within_the_grace(gateway: RunningGateway, client: Client) -> None:
    """KILL reaches what the command started too, and the holder still confirms by itself."""
    script = f"trap '' TERM; (sleep 1000) & echo $!; {FOR_EVER}"
    async with gateway_exec(gateway, client, "--", "sh", "-c", script) as running:
        await running.see("log", None)
        await client.runs.cancel(running.run_id)
        assert await running.finish() == 137
        events = await running.events()
        started = int((await running.output())[0])
    assert events[-1].data["actor"]["kind"] == "key"
    assert not psutil.pid_exists(started) or psutil.Process(started).status() == psutil.STATUS_ZOMBIE


async def test_a_paused_command_stands_still(gateway: RunningGateway, client: Client) -> None:
    """Pausing stops the process, resuming continues it."""
    async with gateway_exec(gateway, client, "--", "sh", "-c", f"echo $$; {FOR_EVER}") as running:
        await running.see("run.started")
        process = psutil.Process(await _first_number(running))
        await client.runs.pause(running.run_id)
        await _until_stopped(process, stopped=True)
        await client.runs.resume(running.run_id)
        await _until_stopped(process, stopped=False)
        await client.runs.pause(running.run_id)
        await _until_stopped(process, stopped=True)
        await client.runs.cancel(running.run_id)
        assert await running.finish() == 143


async def _first_number(running: Exec) -> int:
    while True:
        if lines := await running.output():
            return int(lines[0])


async def _until_stopped(process: psutil.Process, *, stopped: bool) -> None:
    while (process.status() == psutil.STATUS_STOPPED) != stopped:  # noqa: ASYNC110 — signals say nothing back
        await asyncio.sleep(0.01)


async def test_a_prompt_asks_and_the_answer_is_typed(gateway: RunningGateway, client: Client) -> None:
    """A prompt without a line end is a question; each answer reaches the program that waits for it."""
    script = "printf 'Go on? [y/N] '; read a; printf 'Name? '; read b; echo $a $b"
    async with gateway_exec(gateway, client, "--ask", r"\? (\[y/N\] )?$", "--", "sh", "-c", script) as running:
        first = await running.see("run.waiting_for_input")
        assert first.data["prompt"] == "Go on? [y/N]"
        await client.runs.input(running.run_id, "yes")
        second = (await client.runs.wait(running.run_id, until="waiting", timeout_s=10)).open_requests[0]
        assert second.prompt == "Name?"
        await client.runs.input(running.run_id, 5, request_id=second.request_id)
        assert await running.finish() == 0
        assert await running.output() == ["Go on? [y/N] ", "Name? ", "yes 5"]


async def test_a_question_waits_while_its_run_is_paused(gateway: RunningGateway, client: Client) -> None:
    """A prompt that meets a paused run is asked once the run goes on, and the recording survives it."""
    # In a session of its own it is not stopped, and asks although the run is paused.
    asking = "setsid -w sh -c 'echo up; sleep 0.7; printf \"Sure? \"; read a; echo got $a'"
    async with gateway_exec(gateway, client, "--ask", r"\? $", "--", "sh", "-c", asking) as running:
        await running.see("log", "up")
        await client.runs.pause(running.run_id)
        await running.see("log", "Sure? ")
        await client.runs.resume(running.run_id)
        resumed = await running.see("run.resumed")
        asked = await running.see("run.waiting_for_input")
        assert asked.seq > resumed.seq
        await client.runs.input(running.run_id, "yes")
        assert await running.finish() == 0
        assert (await running.output())[-1] == "got yes"


async def test_a_question_that_a_pause_refused_is_asked_again(client: Client) -> None:
    """Being paused between a prompt and its question costs no question."""
    run = await client.runs.create("asker")
    refused = asyncio.Event()

    async def append(events: Sequence[Mapping[str, Any]], *, idempotency_key: str) -> Appended:
        try:
            return await client.runs.append(run.id, events, idempotency_key=idempotency_key)
        except InvalidState:
            refused.set()
            raise

    child = await start_child(["sleep", "1000"], os.environ)
    splitter = LineSplitter()
    splitter.feed(b"Sure? ")
    lost: list[ClientError] = []
    try:
        async with asyncio.timeout(DEADLINE_S), client.runs.writer(run.id) as writer, asyncio.TaskGroup() as tasks:
            asker = Asker(re.compile("Sure"), Journal(writer, lost.append), child, append)
            await begin(client, run.id, ["sleep", "1000"])
            await client.runs.pause(run.id)
            tasks.create_task(asker.look(splitter, "stdout"))
            await refused.wait()
            await client.runs.resume(run.id)
    finally:
        child.kill()
        await child.wait()
        child.release()
    assert (await client.runs.get(run.id)).status == "waiting_for_input"
    assert lost == []


async def test_a_run_that_is_paused_before_it_begins_begins_later(client: Client) -> None:
    """A pause that comes before the first event delays the command, it does not fail it."""
    run = await client.runs.create("beginner")
    await client.runs.pause(run.id)
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
        beginning = tasks.create_task(begin(client, run.id, ["true"]))
        assert (await client.runs.wait(run.id, timeout_s=0.1)).status == "paused"
        await client.runs.resume(run.id)
    assert beginning.result().status == "running"


async def test_ctrl_c_ends_the_command_and_the_run(gateway: RunningGateway, client: Client) -> None:
    """The first asks, the second forces, and the run is cancelled, not left open."""
    script = f"trap 'echo no' TERM; echo up; {FOR_EVER}"
    async with gateway_exec(gateway, client, "--", "sh", "-c", script) as running:
        await running.see("log", "up")
        running.process.send_signal(signal.SIGINT)
        await running.see("log", "no")
        running.process.send_signal(signal.SIGINT)
        assert await running.finish() == 137
        assert (await client.runs.get(running.run_id)).status == "cancelled"


async def test_a_run_that_is_ended_elsewhere_stops_its_command(gateway: RunningGateway, client: Client) -> None:
    """Nothing goes on for a run that is over."""
    async with gateway_exec(gateway, client, "--", "sleep", "1000") as running:
        await running.see("run.started")
        await client.runs.cancel(running.run_id, force=True)
        assert await running.finish() == 143


async def test_what_a_command_leaves_behind_does_not_hold_its_run_open(gateway: RunningGateway, client: Client) -> None:
    """A background program that keeps the pipe does not keep the run."""
    async with gateway_exec(gateway, client, "--", "sh", "-c", "sleep 60 & echo $!") as running:
        assert await running.finish() == 0
        assert (await client.runs.get(running.run_id)).status == "completed"
        os.kill(int((await running.output())[0]), signal.SIGKILL)


async def test_a_killed_gateway_loses_no_line() -> None:
    """The program goes on while the gateway is away, and everything it said is delivered once."""
    script = "i=0; while [ $i -lt 200 ]; do i=$((i+1)); echo $i; sleep 0.01; done"
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        async with (
            serving(Path(folder) / "data") as gateway,
            Client(gateway.url, key=gateway.key, backoff=SOON) as client,
            gateway_exec(gateway, client, "--", "sh", "-c", script) as running,
        ):
            await running.see("log", "20")
            await gateway.kill()
            await gateway.start()
            assert await running.finish() == 0
            assert await running.output() == [str(number) for number in range(1, 201)]
            assert (await client.runs.get(running.run_id)).status == "completed"


async def test_without_a_gateway_nothing_is_started(gateway: RunningGateway) -> None:
    """Exit code 125 says that the command was not run."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "exec", "--key", "gwk_wrong", "--", "echo", "hi"),
        env=environment(gateway),
        stdout=PIPE,
        stderr=PIPE,
    )
    stdout, stderr = await process.communicate()
    assert (process.returncode, stdout) == (125, b"")
    assert b"unauthenticated" in stderr
