"""Test agents against a gateway of their own: a pytest plugin that needs no other.

In `conftest.py`:

    pytest_plugins = ["gateway.testing"]

In a test:

    def test_a_report_is_published(run_agent):
        finished = run_agent(agent, {"topic": "tides"}, answers={"Publish?": True})
        assert finished.output == {"published": True}

The gateway is a process with an empty store; it is started when a test first asks for it, and ends with the tests.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import msgspec
import pytest

from gateway.client import Client, Event, Run
from gateway.client.worker import Agent, Worker

START_S = 60.0
STOP_S = 20.0
WITHIN_S = 30.0
SETTINGS = {
    "GATEWAY_READINESS_LEAD_S": "0",
    "GATEWAY_DRAIN_S": "0.1",
    "GATEWAY_EMBEDDED_FSYNC": "everysec",
    "GATEWAY_LOG_LEVEL": "warning",
}

Answers = Mapping[str, Any] | Callable[[str], Any]
"""What a run's questions are answered with: by their prompts, or by a function of a prompt."""


class PrivateGateway(msgspec.Struct, frozen=True):
    """A gateway for tests, and a key that opens all of it."""

    url: str
    key: str

    def client(self) -> Client:
        """Return a client; `async with` it."""
        return Client(self.url, key=self.key)


class Finished(msgspec.Struct, frozen=True):
    """A run that has ended, and its whole log."""

    run: Run
    events: list[Event]

    @property
    def status(self) -> str:
        """How it ended."""
        return self.run.status

    @property
    def output(self) -> Any:
        """What its handler returned."""
        return self.run.output

    @property
    def text(self) -> str:
        """All that was streamed."""
        return "".join(event.data["content"] for event in self.of_type("message.delta"))

    def of_type(self, type: str) -> list[Event]:
        """Return the events of one type."""
        return [event for event in self.events if event.type == type]


class RunAgent(Protocol):
    """Executes one run of an agent to its end."""

    def __call__(
        self,
        agent: Agent,
        input: Any = None,
        *,
        answers: Answers | None = None,
        within_s: float = WITHIN_S,
        **fields: Any,
    ) -> Finished:
        """Return the run once it has ended, however it did.

        Args:
            input: the run's.
            answers: what its questions are answered with.
            within_s: how long all of it may take.
            fields: what else the run is created with: `tags`, `preset`, `retry` …

        Raises:
            LookupError: the run asks what `answers` do not say.
            TimeoutError: it takes too long.
        """
        ...


@pytest.fixture(scope="session")
def private_gateway() -> Iterator[PrivateGateway]:
    """A gateway of these tests' own."""
    with serve_gateway() as gateway:
        yield gateway


@pytest.fixture(scope="session")
def gateway_url(private_gateway: PrivateGateway) -> str:
    """The address of these tests' gateway."""
    return private_gateway.url


@pytest.fixture(scope="session")
def gateway_key(private_gateway: PrivateGateway) -> str:
    """A key that opens all of these tests' gateway."""
    return private_gateway.key


@pytest.fixture
def gateway_client(private_gateway: PrivateGateway) -> Client:
    """A client of these tests' gateway, for `async with gateway_client as client:`."""
    return private_gateway.client()


@pytest.fixture
def run_agent(private_gateway: PrivateGateway) -> RunAgent:
    """Execute one run of an agent to its end: `run_agent(agent, {"topic": "tides"})`."""

    def run(
        agent: Agent,
        input: Any = None,
        *,
        answers: Answers | None = None,
        within_s: float = WITHIN_S,
        **fields: Any,
    ) -> Finished:
        work = _execute(private_gateway, agent, answers or {}, {**fields, "input": input}, within_s)
        # In a thread, so that it can be called from within an event loop, too.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(asyncio.run, work).result()

    return run


async def _execute(
    gateway: PrivateGateway, agent: Agent, answers: Answers, fields: Mapping[str, Any], within_s: float
) -> Finished:
    # No other test's run comes this way.
    queue = f"test-{uuid4().hex}"
    about = {**fields, "mode": "queued", "queue": queue}
    async with gateway.client() as client:
        worker = Worker(client, [agent], queues=[queue], drain_s=0)
        working = asyncio.create_task(worker.run())
        try:
            async with asyncio.timeout(within_s):
                await _until_ready(worker, working)
                run = await client.runs.create(agent.name, **about)
                events = await _follow(client, run.id, answers)
                return Finished(await client.runs.get(run.id), events)
        finally:
            worker.stop()
            await working


async def _until_ready(worker: Worker, working: asyncio.Task[None]) -> None:
    ready = asyncio.create_task(worker.ready.wait())
    await asyncio.wait({ready, working}, return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        ready.cancel()
        await working


async def _follow(client: Client, run_id: str, answers: Answers) -> list[Event]:
    events: list[Event] = []
    async with aclosing(client.runs.events(run_id)) as items:
        async for item in items:
            if isinstance(item, Event):
                events.append(item)
                if item.type == "run.waiting_for_input":
                    content = _find_answer(answers, item.data["prompt"])
                    await client.runs.input(run_id, content, request_id=item.data["request_id"])
    return events


def _find_answer(answers: Answers, prompt: str) -> Any:
    if callable(answers):
        return answers(prompt)
    if prompt not in answers:
        raise LookupError(f"the run asks {prompt!r}; say what is answered: answers={{{prompt!r}: …}}")
    return answers[prompt]


@contextmanager
def serve_gateway() -> Iterator[PrivateGateway]:
    """Run a gateway with an empty store on a free port of this machine, for as long as the block lasts.

    Raises:
        RuntimeError: it does not start; with what it said.
    """
    key = f"test-{secrets.token_hex(8)}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        said = Path(folder) / "said"
        with said.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "serve", "--port", "0", "--data-dir", str(Path(folder) / "data")],
                env={**kept, **SETTINGS, "GATEWAY_DEV_KEY": key},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            yield PrivateGateway(_read_url(process, said), key)
        finally:
            _end(process)


def _read_url(process: subprocess.Popen[bytes], said: Path) -> str:
    deadline = time.monotonic() + START_S
    while True:
        text = said.read_text(errors="replace")
        found = re.search(r"^gateway on (\S+)\n", text, re.MULTILINE)
        if found:
            return found[1]
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the gateway did not start: {text.strip() or 'it said nothing'}")
        time.sleep(0.02)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_S)
