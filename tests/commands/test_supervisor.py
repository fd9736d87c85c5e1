"""Programs beside the gateway: kept alive until it stops, never longer."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import psutil
import pytest

from gateway.commands.supervisor import Program, keep_running

pytestmark = pytest.mark.anyio

PATIENCE_S = 20.0


def program(path: Path, script: str, *, stop_s: float = PATIENCE_S, tied: bool = False) -> Program:
    """Return a Python program that first leaves its process id in a line of `path`."""
    note = f"import os, signal, sys, time\nwith open({str(path)!r}, 'a') as f: print(os.getpid(), file=f)\n"
    return Program(
        name="the program",
        arguments=(sys.executable, "-c", note + script),
        environ=dict(os.environ),
        stop_s=stop_s,
        tied=tied,
    )


def pids(path: Path) -> list[int]:
    """Return the process ids that programs left in `path`."""
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition."""
    with anyio.fail_after(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 - other processes set no events
            await anyio.sleep(0.01)


async def test_a_program_that_dies_is_started_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A killed program is replaced, and the log says what became of it."""
    path, stop, ended = tmp_path / "pids", anyio.Event(), list[int]()
    async with anyio.create_task_group() as group:
        run = program(path, "time.sleep(600)")
        group.start_soon(lambda: keep_running(run, stop, on_end=ended.append))
        await until(lambda: len(pids(path)) == 1)
        os.kill(pids(path)[0], signal.SIGKILL)
        await until(lambda: len(pids(path)) == 2)
        stop.set()
    assert ended == pids(path)
    assert "the program ended with status -9" in caplog.text


async def test_a_program_that_keeps_failing_is_given_ever_more_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A program that cannot run does not keep a core busy."""
    path, stop = tmp_path / "pids", anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(keep_running, program(path, "sys.exit(3)"), stop)
        await until(lambda: caplog.text.count("status 3") >= 4)
        stop.set()
    for pause in ("0.05 s", "0.10 s", "0.20 s", "0.40 s"):
        assert pause in caplog.text


async def test_a_program_is_asked_to_end_when_the_gateway_stops(tmp_path: Path) -> None:
    """It is sent SIGTERM and may finish what it does."""
    path, stop, done = tmp_path / "pids", anyio.Event(), tmp_path / "done"
    script = (
        f"def end(*_):\n    open({str(done)!r}, 'w').close()\n    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        f"open({str(path)!r} + '.ready', 'w').close()\n"
        "time.sleep(600)"
    )
    async with anyio.create_task_group() as group:
        group.start_soon(keep_running, program(path, script), stop)
        await until((tmp_path / "pids.ready").exists)
        stop.set()
    assert done.exists()
    assert len(pids(path)) == 1


async def test_a_program_that_does_not_end_is_killed(tmp_path: Path) -> None:
    """Nothing outlives the gateway by ignoring it."""
    path, stop = tmp_path / "pids", anyio.Event()
    script = (
        f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\nopen({str(path)!r} + '.ready', 'w').close()\ntime.sleep(600)"
    )
    async with anyio.create_task_group() as group:
        group.start_soon(keep_running, program(path, script, stop_s=0.1), stop)
        await until((tmp_path / "pids.ready").exists)
        stop.set()
    with pytest.raises(ProcessLookupError):
        os.kill(pids(path)[0], 0)


async def test_a_cancelled_supervision_leaves_no_program(tmp_path: Path) -> None:
    """An error elsewhere in the gateway does not leave programs behind."""
    path = tmp_path / "pids"
    async with anyio.create_task_group() as group:
        group.start_soon(keep_running, program(path, "time.sleep(600)"), anyio.Event())
        await until(lambda: len(pids(path)) == 1)
        group.cancel_scope.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(pids(path)[0], 0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
async def test_a_tied_program_ends_with_a_killed_gateway(tmp_path: Path) -> None:
    """`kill -9` of the gateway leaves no demo agent that waits for it for ever."""
    path = tmp_path / "pids"
    script = (
        "import anyio, pathlib, sys\n"
        "from gateway.commands.supervisor import keep_running\n"
        "from tests.commands.test_supervisor import program\n"
        "run = program(pathlib.Path(sys.argv[1]), 'time.sleep(600)', tied=True)\n"
        "anyio.run(keep_running, run, anyio.Event())\n"
    )
    gateway = await anyio.open_process([sys.executable, "-c", script, str(path)])
    await until(lambda: len(pids(path)) == 1)
    tied = psutil.Process(pids(path)[0])
    gateway.kill()
    await gateway.aclose()
    # Where nobody reaps orphans a zombie stays.
    await until(lambda: not tied.is_running() or tied.status() == psutil.STATUS_ZOMBIE)
