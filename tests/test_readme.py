"""The README is executed as it stands; only the address and the place of the key are those of the test's gateway."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.client import Client, Event
from gateway.settings import render_table
from tests.support.processes import GatewayProcess, serving

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
LINKS = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)


@pytest.fixture
async def served(tmp_path: Path, anyio_backend: object) -> AsyncIterator[GatewayProcess]:
    """A gateway whose data directory is `.gateway` of the folder in which the blocks run."""
    async with serving(tmp_path / ".gateway") as process:
        yield process


def blocks(language: str) -> list[str]:
    """Return the README's code blocks in a language."""
    return [code for found, code in BLOCKS if found == language]


async def run_shell(code: str, served: GatewayProcess) -> str:
    """Run a block where the data directory is, with the commands of this environment."""
    code = code.replace("http://127.0.0.1:8000", served.url).replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    environ = {"PATH": "/usr/bin:/bin", "GATEWAY_URL": served.url, "HOME": str(served.data_dir.parent)}
    shell = await asyncio.create_subprocess_exec(
        "bash",
        *("-euo", "pipefail", "-c", code),
        cwd=served.data_dir.parent,
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(shell.communicate(), 60)
    assert shell.returncode == 0, output.decode()
    return output.decode()


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    """`make run` and `make test` exist."""
    commands = re.findall(r"^make (\w+)", blocks("sh")[0], flags=re.MULTILINE)
    assert commands == ["run", "test"]
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{command}:" in makefile for command in commands)


async def test_the_stream_with_curl_shows_the_run(served: GatewayProcess) -> None:
    """The run that is made by hand is streamed to its end."""
    output = await run_shell(blocks("sh")[1], served)
    assert 'data: {"seq":4,"attempt":1,"type":"message.delta"' in output
    assert "event: stream.end" in output


async def test_any_program_is_a_run(served: GatewayProcess) -> None:
    """A program's run is in the list, completed."""
    output = await run_shell(blocks("sh")[2], served)
    assert "listing" in output
    assert "completed" in output


async def test_the_client_reads_what_it_wrote(served: GatewayProcess) -> None:
    """The Python block is a program, which is called as the README says and prints the run's events."""
    (served.data_dir.parent / "hello.py").write_text(blocks("python")[0])
    (command,) = re.findall(r"`(\S+ hello\.py)`", README)
    assert "run.completed" in await run_shell(command, served)


async def test_the_agent_executes_queued_runs(served: GatewayProcess) -> None:
    """The agent's file and the worker's command: a run is searched for, asked about and completed."""
    folder = served.data_dir.parent
    (folder / "agents.py").write_text(blocks("python")[1])
    (folder / "notes.md").write_text("On tides.")
    command = blocks("sh")[3].replace(".venv/bin/", f"{Path(sys.executable).parent}/").split()
    environ = {**os.environ, "GATEWAY_URL": served.url, "GATEWAY_KEY": served.key}
    worker = await asyncio.create_subprocess_exec(*command, cwd=folder, env=environ, stderr=asyncio.subprocess.PIPE)
    try:
        async with Client(served.url, key=served.key) as client:
            run = await client.runs.create("researcher", mode="queued", input={"topic": "tides"})
            await client.runs.wait(run.id, until="waiting", timeout_s=30)
            await client.runs.input(run.id, True)
            assert (await client.runs.wait(run.id, timeout_s=30)).output == {"published": True}
            calls = [item async for item in client.runs.log(run.id, types=["tool.result"]) if isinstance(item, Event)]
            assert calls[0].data["output"] == ["notes.md"]
    finally:
        worker.terminate()
        _, told = await asyncio.wait_for(worker.communicate(), 60)
    assert worker.returncode == 0, told.decode()


def test_every_page_and_file_that_the_readme_names_exists() -> None:
    """Links lead somewhere, and so does the table of where to change what."""
    named = re.findall(r"`(gateway/[^`]+)`", README)
    assert named
    assert [path for path in [*LINKS, *named] if not (ROOT / path).exists()] == []


def test_the_settings_in_the_operations_page_are_the_real_ones() -> None:
    """The page's table is what the settings render."""
    assert render_table().strip() in (ROOT / "docs" / "operations.md").read_text()
