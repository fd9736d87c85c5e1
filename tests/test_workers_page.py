"""The page about workers is executed as it stands: its files, its commands, its tests."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.client import Client
from tests.client.waits import SOON
from tests.client.worker.bench import end_of, read_texts, until_status
from tests.support.processes import GatewayProcess, serving
from tests.support.running import wait_until

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "workers.md").read_text()
FILES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, flags=re.DOTALL))
COMMANDS = re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with the files that the page shows."""
    for name, code in FILES.items():
        (tmp_path / name).write_text(code)
    return tmp_path


@pytest.fixture
async def served(tmp_path: Path, anyio_backend: object) -> AsyncIterator[GatewayProcess]:
    """A gateway whose data directory is `.gateway` of the folder."""
    async with serving(tmp_path / ".gateway") as process:
        yield process


@asynccontextmanager
async def program(folder: Path, *command: str, environ: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program in a directory for as long as the block lasts."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env={**kept, **environ}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.communicate(), 60)


async def said_by(folder: Path, *command: str, environ: Mapping[str, str]) -> str:
    """Return what a program says, which must end well."""
    async with program(folder, *command, environ=environ) as process:
        output, _ = await asyncio.wait_for(process.communicate(), 120)
        assert process.returncode == 0, output.decode()
        return output.decode()


async def registered(client: Client, *agents: str) -> None:
    """Wait until these agents are registered."""

    async def are_there() -> bool:
        return {agent.id async for agent in client.agents.list()} >= set(agents)

    await wait_until(are_there, timeout_s=30)


async def test_the_agents_do_what_the_page_says(folder: Path, served: GatewayProcess) -> None:
    """Started by the page's command, which finds gateway and key by itself; and runs created as it shows."""
    environ = {"GATEWAY_URL": served.url, "GATEWAY_KEY": served.key}
    (command,) = COMMANDS
    words = shlex.split(command.replace(".venv/bin/gateway", f"{sys.executable} -m gateway"))
    async with Client(served.url, key=served.key, backoff=SOON) as client, program(folder, *words, environ=environ):
        await registered(client, "researcher", "importer", "resizer")
        assert await said_by(folder, sys.executable, "create.py", environ=environ) == "completed 6\n"
        asked = await client.runs.create("researcher", mode="queued", input={"topic": "tides"})
        await until_status(client, asked.id, "waiting_for_input")
        await client.runs.input(asked.id, True)
        assert (await end_of(client, asked.id)).output == {"published": True}
        small = await client.runs.create("resizer", mode="queued", preset="thumbnail")
        assert (await end_of(client, small.id)).output == {"width": 64}
        decided = await client.runs.create("approver", mode="queued")
        await wait_until(lambda: _is_let_go(client, decided.id))
        await client.runs.input(decided.id, "approved")
        assert (await end_of(client, decided.id)).output == "approved"
        assert await read_texts(client, decided.id) == ["I need a decision. ", "It is approved."]


async def _is_let_go(client: Client, run_id: str) -> bool:
    run = await client.runs.get(run_id)
    return run.status == "waiting_for_input" and run.lease is None


async def test_a_program_of_ones_own_is_a_worker(folder: Path, served: GatewayProcess) -> None:
    """It ends in order when it is told to."""
    environ = {"GATEWAY_URL": served.url, "GATEWAY_KEY": served.key}
    async with (
        Client(served.url, key=served.key, backoff=SOON) as client,
        program(folder, sys.executable, "main.py", environ=environ) as process,
    ):
        run = await client.runs.create("importer", mode="queued", input={"rows": [4, 5]})
        assert (await end_of(client, run.id)).output == 9
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 20) == 0


async def test_the_tests_of_the_page_pass(folder: Path) -> None:
    """With nothing but pytest, and warnings as errors."""
    words = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "test_agents.py"]
    assert "5 passed" in await said_by(folder, *words, environ={})


async def test_a_client_of_the_tests_gateway_is_a_fixture(tmp_path: Path) -> None:
    """For tests of programs that use the API themselves; a run that takes too long is told as such."""
    (tmp_path / "test_it.py").write_text(
        """
import asyncio
import pytest
from gateway.client.worker import Agent

pytest_plugins = ["gateway.testing"]
sleeper = Agent("sleeper")

@sleeper.run
async def sleep(run):
    await asyncio.sleep(60)

def test_client(gateway_client, gateway_url, gateway_key):
    async def use():
        async with gateway_client as client:
            return await client.runs.create("anybody")
    assert asyncio.run(use()).status == "queued"
    assert gateway_url.startswith("http://127.0.0.1:")
    assert gateway_key

def test_timeout(run_agent):
    async def within_a_loop():
        with pytest.raises(TimeoutError):
            run_agent(sleeper, within_s=1)
    asyncio.run(within_a_loop())
"""
    )
    words = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "test_it.py"]
    assert "2 passed" in await said_by(tmp_path, *words, environ={})
