"""What a command's end means for its run and for the caller's shell."""

from __future__ import annotations

import errno
import signal
from datetime import datetime
from typing import Any

import msgspec

from gateway.client import Event

EXIT_RECORDER = 125
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
"""The numbers that env(1), timeout(1) and shells use."""

GRACE_S = 10.0
CONFIRM_S = 1.5
"""What is left of the grace for the last output and the confirmation to arrive."""


class Ending(msgspec.Struct, frozen=True):
    """The event that ends a run."""

    type: str
    data: dict[str, Any]


def exit_code_of(returncode: int) -> int:
    """Return a process's exit status as a shell reports it: 128 + n after signal n."""
    return returncode if returncode >= 0 else 128 - returncode


def conclude(returncode: int, *, stopped: str | None, duration_ms: int) -> Ending:
    """Return how the run of a command that ended with `returncode` ends.

    `stopped` is why it was told to stop, if it was: then the run is cancelled whatever the command
    made of it.
    """
    exit_code = exit_code_of(returncode)
    if stopped is not None:
        return Ending("run.cancelled", {"reason": stopped})
    if exit_code == 0:
        return Ending("run.completed", {"output": {"exit_code": 0, "duration_ms": duration_ms}})
    details: dict[str, Any] = {"exit_code": exit_code, "duration_ms": duration_ms}
    message = f"the command exited with status {exit_code}"
    if returncode < 0:
        details["signal"] = _signal_name(-returncode)
        message = f"the command was ended by {details['signal']}"
    return _failed("exit_status", message, details)


def conclude_unstarted(program: str, error: OSError) -> tuple[Ending, int]:
    """Return how the run of a command that could not be started ends, and the shell's exit code."""
    missing = error.errno in {errno.ENOENT, errno.ENOTDIR}
    exit_code = EXIT_NOT_FOUND if missing else EXIT_NOT_EXECUTABLE
    code = "command_not_found" if missing else "command_not_executable"
    message = f"{program}: {error.strerror or error}"
    return _failed(code, message, {"exit_code": exit_code}), exit_code


def conclude_broken(error: BaseException) -> Ending:
    """Return how a run ends whose recording failed."""
    return _failed("recorder_error", f"gateway exec failed: {type(error).__name__}: {error}", {})


def grace_s(request: Event) -> float:
    """Return how long the command may take over its own end after a `run.cancel_requested`, in seconds.

    By the gateway's own clock, and short of its deadline, so that the confirmation comes in time.
    """
    try:
        deadline = datetime.fromisoformat(request.data["deadline_at"])
        whole_s = (deadline - datetime.fromisoformat(request.created_at)).total_seconds()
    except (KeyError, TypeError, ValueError):
        whole_s = GRACE_S
    return max(whole_s - CONFIRM_S, whole_s / 2, 0.0)


def _failed(code: str, message: str, details: dict[str, Any]) -> Ending:
    return Ending("run.failed", {"error": {"code": code, "message": message, "details": details}})


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
