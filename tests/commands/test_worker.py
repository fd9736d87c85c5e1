"""`gateway worker`: agents are found where they are said to be, and what is wrong is said."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.client import Client
from tests.client.waits import SOON
from tests.client.worker.bench import end_of
from tests.support.native import open_client
from tests.support.running import RunningGateway

pytestmark = pytest.mark.anyio

AGENTS = """
from gateway.client.worker import Agent

agent = Agent("echo")

@agent.run
def echo(run):
    return run.input

bare = Agent("bare")
number = 5
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with a module of agents, one that is broken, and one that needs what is not there."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "agents.py").write_text(AGENTS)
    (tmp_path / "broken.py").write_text("1 / 0")
    (tmp_path / "needy.py").write_text("import no_such_library")
    return tmp_path


def start(folder: Path, *arguments: str, **environ: str) -> subprocess.Popen[str]:
    """Start the command in a directory."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    return subprocess.Popen(
        [sys.executable, "-m", "gateway", "worker", *arguments],
        cwd=folder,
        env={**kept, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def refusal(folder: Path, *arguments: str, **environ: str) -> tuple[int, str]:
    """Return the status and the words of a command that ends by itself."""
    process = start(folder, *arguments, **environ)
    output, _ = process.communicate(timeout=30)
    return process.returncode, output


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("shop.agents", "is not of the form module:agent"),
        ("shop.agents:", "is not of the form module:agent"),
        ("shop.nothing:agent", "there is no module 'shop.nothing' in"),
        ("nothing.agents:agent", "there is no module 'nothing' in"),
        ("shop.agents:nobody", "shop.agents has no 'nobody'; its agents are agent, bare"),
        ("shop.agents:number", "shop.agents:number is a int, not an Agent"),
        ("shop.agents:bare", "the agent bare has no handler"),
    ],
)
def test_what_names_no_agent_is_refused(folder: Path, spec: str, told: str) -> None:
    """With status 2, in one sentence that says what is there instead."""
    status, output = refusal(folder, spec)
    assert status == 2
    assert told in output
    assert "Traceback" not in output


@pytest.mark.parametrize(("module", "told"), [("broken", "ZeroDivisionError"), ("needy", "no_such_library")])
def test_a_module_that_fails_fails_as_itself(folder: Path, module: str, told: str) -> None:
    """Its own traceback says more than we could."""
    status, output = refusal(folder, f"{module}:agent")
    assert status == 1
    assert f'{module}.py", line 1' in output
    assert told in output


async def test_a_key_that_is_not_enough_is_told(gateway: RunningGateway, folder: Path) -> None:
    """With status 3, at the start."""
    async with open_client(gateway, scopes=["work"]) as blind:
        key = blind.headers["authorization"].removeprefix("Bearer ")
        process = start(folder, "shop.agents:agent", "--url", gateway.url, "--key", key)
        output, _ = await to_end(process)
    assert process.returncode == 3
    assert "This needs the scope runs:read." in output


async def test_runs_are_executed(gateway: RunningGateway, folder: Path) -> None:
    """By the agent of the current directory, from the queue that was named."""
    async with Client(gateway.url, key=gateway.key, backoff=SOON) as client:
        process = start(
            folder,
            *("shop.agents:agent", "--queue", "special", "--name", "tester", "--concurrency", "2"),
            GATEWAY_URL=gateway.url,
            GATEWAY_KEY=gateway.key,
        )
        try:
            run = await client.runs.create("echo", mode="queued", queue="special", input={"n": 1})
            assert (await end_of(client, run.id)).output == {"n": 1}
            dequeued = [item async for item in client.runs.log(run.id, types=["run.dequeued"])]
            assert dequeued[0].data["worker"] == "tester"  # type: ignore[union-attr]
        finally:
            process.terminate()
            output, _ = await to_end(process)
    assert process.returncode == 0
    assert "claims from special" in output


async def test_changed_code_is_loaded_again(gateway: RunningGateway, folder: Path) -> None:
    """Also after a change that broke it; SIGTERM ends it as any worker."""
    code = folder / "shop" / "agents.py"
    async with Client(gateway.url, key=gateway.key, backoff=SOON) as client:
        about = {"GATEWAY_URL": gateway.url, "GATEWAY_KEY": gateway.key}
        process = start(folder, "shop.agents:agent", "--queue", "fresh", "--reload", **about)
        try:

            async def output_of_a_run() -> object:
                run = await client.runs.create("echo", mode="queued", queue="fresh", input="said")
                return (await end_of(client, run.id)).output

            assert await output_of_a_run() == "said"
            code.write_text("1 / 0")
            code.write_text(AGENTS.replace("return run.input", "return ['new', run.input]"))
            async with asyncio.timeout(60):
                while await output_of_a_run() != ["new", "said"]:
                    pass
        finally:
            process.terminate()
            output, _ = await to_end(process)
    assert process.returncode == 0
    assert "the code has changed; starting again" in output


async def to_end(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Return what a process said, once it has ended; the gateway of this test lives on meanwhile."""
    return await asyncio.to_thread(process.communicate, timeout=30)
