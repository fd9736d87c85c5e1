"""`gateway doctor` as an operator runs it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from gateway.commands.doctor.machine_ward import judge_machine
from tests.commands.reach import environment
from tests.support.running import RunningGateway, RunningStore

pytestmark = pytest.mark.anyio


def examine(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    clean = {name: value for name, value in environment(Nowhere()).items() if not name.startswith("GATEWAY_")}
    program = [sys.executable, "-m", "gateway", "doctor", *arguments]
    return subprocess.run(program, env=clean | variables, capture_output=True, text=True, timeout=120, check=False)


class Nowhere:
    """No gateway."""

    url = key = ""


def test_a_sound_store_ends_with_status_0_and_says_so(store: RunningStore, tmp_path: Path) -> None:
    """Words for people: what was looked at, and how many problems there are."""
    ran = examine("--readers", "10", "--data-dir", str(tmp_path), GATEWAY_REDIS_URL=store.url)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "persistence: Append-only file" in ran.stdout
    assert "\n0 problems" in ran.stdout


def test_a_problem_ends_with_status_1_and_json_holds_it(tmp_path: Path) -> None:
    """For programs: every finding with its level, and whether there is a problem at all."""
    ran = examine("--json", "--data-dir", str(tmp_path), GATEWAY_REDIS_URL="redis://127.0.0.1:1")
    report = json.loads(ran.stdout)
    assert ran.returncode == 1
    assert report["problem"] is True
    found = next(finding for finding in report["findings"] if finding["check"] == "answers")
    assert (found["area"], found["level"]) == ("store", "problem")
    assert "GATEWAY_REDIS_URL" in found["said"]


async def test_a_running_gateway_is_looked_at_without_its_store(gateway: RunningGateway) -> None:
    """From a client's machine: only the way is judged."""
    asked = ("--no-store", "--url", gateway.url, "--key", gateway.key, "--idle", "0", "--json")
    ran = await asyncio.to_thread(examine, *asked)
    report = json.loads(ran.stdout)
    assert ran.returncode == 0, ran.stdout
    assert {finding["area"] for finding in report["findings"]} == {"gateway"}


def test_looking_makes_no_store_where_there_is_none(tmp_path: Path) -> None:
    """A directory that does not exist is told, and does not exist afterwards."""
    ran = examine("--data-dir", str(tmp_path / "new"))
    assert "There is no store yet" in ran.stdout
    assert not (tmp_path / "new").exists()


def test_a_password_that_is_not_taken_is_told_in_the_stores_words(tmp_path: Path) -> None:
    """Not as a store that is away; and neither is the password."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gw-")))
        locked = RunningStore(folder)
        locked.start()
        locked.ask("CONFIG SET requirepass right")
        stack.callback(locked.kill)
        ran = examine("--data-dir", str(tmp_path), GATEWAY_REDIS_URL=f"unix://:wrong@{locked.socket_path}")
    assert ran.returncode == 1
    assert "WRONGPASS" in ran.stdout
    assert "wrong@" not in ran.stdout
    away = examine("--data-dir", str(tmp_path), GATEWAY_REDIS_URL="redis://127.0.0.1:1")
    assert "ConnectionRefused" in away.stdout


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://gateway.example", "http://", "http://x:port"])
def test_what_is_no_address_is_a_usage_error(url: str) -> None:
    """Said at once, instead of as a gateway that does not answer."""
    ran = examine("--no-store", "--url", url)
    assert ran.returncode == 2
    assert "--url" in ran.stderr
    assert "http" in ran.stderr


def test_nothing_to_look_at_is_a_usage_error() -> None:
    """An empty report must not look like a clean bill."""
    ran = examine("--no-store")
    assert ran.returncode == 2
    assert "There is nothing to look at" in ran.stderr


def test_too_few_files_for_the_readers_is_a_problem_with_its_cure(tmp_path: Path) -> None:
    """A process that runs out of descriptors refuses readers; the limit that is needed is told."""
    found = {one.check: one for one in judge_machine(tmp_path, readers=2**40, workers=2, embedded=True)}
    if found["open files"].level != "good":  # a machine without any limit has none to tell
        assert found["open files"].level == "problem"
        assert f"LimitNOFILE={2**40 + 200}" in found["open files"].cure
    assert "free where" in found["disk"].said
