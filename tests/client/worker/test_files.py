"""Files in a handler: input files are fetched, output files sent, each once."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from gateway.client import Client, TooLarge
from gateway.client.worker import Agent, Run, SyncRun
from tests.client.worker.bench import end_of, queue_run, read_log, read_types, until_status, working
from tests.support.native import open_client
from tests.support.running import RunningGateway, RunningStore, run_gateway

pytestmark = pytest.mark.anyio


async def test_a_handler_turns_input_files_into_output_files(
    gateway: RunningGateway, client: Client, tmp_path: Path
) -> None:
    """In the order of what it says, within its steps, and with a key that may only work and read."""
    agent = Agent("converter")

    @agent.run
    async def convert(run: Run) -> list[str]:
        made = []
        async with run.step("convert"):
            for file_id in run.file_ids:
                await run.say("one ")
                text = b"".join([piece async for piece in run.read(file_id)])
                made.append((await run.upload(text.upper(), name="loud.txt")).file_id)
        path = await run.download(run.file_ids[0], tmp_path / "kept.txt")
        made.append((await run.upload(path)).file_id)
        return made

    inputs = [(await client.files.upload(text, name="quiet.txt")).file_id for text in (b"a", b"b")]
    async with open_client(gateway, scopes=["work", "runs:read"]) as humble:
        key = humble.headers["authorization"].removeprefix("Bearer ")
        async with Client(gateway.url, key=key) as worker_client, working(worker_client, agent):
            run_id = await queue_run(client, agent, file_ids=inputs)
            run = await end_of(client, run_id)
    assert await read_types(client, run_id) == [
        "step.started",
        *("message.delta", "file.created") * 2,
        "step.completed",
        "file.created",
        "run.completed",
    ]
    created = [event for event in await read_log(client, run_id) if event.type == "file.created"]
    assert [event.data["file_id"] for event in created] == run.output
    assert [event.data["name"] for event in created] == ["loud.txt", "loud.txt", "kept.txt"]
    assert [event.step_id is None for event in created] == [False, False, True]
    fetched = [b"".join([piece async for piece in client.files.read(file_id)]) for file_id in run.output]
    assert fetched == [b"A", b"B", b"a"]


async def test_a_handler_that_comes_back_to_its_question_sends_no_file_again(client: Client) -> None:
    """The second time it is given the same file, and the log names it once."""
    agent, seen = Agent("asker"), list[str]()

    @agent.run
    async def handle(run: Run) -> str:
        file = await run.upload(b"draft", name="draft")
        seen.append(file.file_id)
        await run.ask("Good?", suspend=True)
        return (await run.upload(b"final", name="final")).file_id

    async with working(client, agent):
        run_id = await queue_run(client, agent)
        await until_status(client, run_id, "waiting_for_input")
        await client.runs.input(run_id, True)
        run = await end_of(client, run_id)
    assert len(seen) == 2
    assert len(set(seen)) == 1
    files = [event.data["file_id"] for event in await read_log(client, run_id) if event.type == "file.created"]
    assert files == [seen[0], run.output]


async def test_a_file_that_is_refused_is_the_handlers_to_know(store: RunningStore) -> None:
    """It may do without, and the run goes on."""
    agent = Agent("bulky")

    @agent.run
    def handle(run: SyncRun) -> Any:
        try:
            run.upload(b"x" * 2_000, name="large")
        except TooLarge:
            return run.upload(b"x", name="small").size_bytes

    async with (
        run_gateway(store.url, file_bytes=1_000) as small,
        Client(small.url, key=small.key) as client,
        working(client, agent),
    ):
        run = await end_of(client, await queue_run(client, agent))
    assert (run.status, run.output) == ("completed", 1)


def test_a_plain_function_has_all_that_a_coroutine_has() -> None:
    """But for reading piece by piece; each call takes the same."""
    asynchronous = {name for name in vars(Run) if not name.startswith("_")} - {"read"}
    assert asynchronous - {name for name in vars(SyncRun) if not name.startswith("_")} == set()
    for name in sorted(asynchronous - {"checkpoint_state", "step", "tool"}):
        plain, other = inspect.signature(getattr(SyncRun, name)), inspect.signature(getattr(Run, name))
        assert plain.parameters == other.parameters, name
