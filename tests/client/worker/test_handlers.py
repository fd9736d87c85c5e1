"""What a handler says is what the log has: in order, once, under the steps it was said in."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from gateway.client import Client
from gateway.client.worker import Agent, Fatal, Retry, Run, SyncRun
from tests.client.worker.bench import (
    end_of,
    queue_run,
    read_log,
    read_texts,
    read_types,
    until_status,
    working,
)

pytestmark = pytest.mark.anyio


async def test_a_run_is_executed_as_its_handler_says(client: Client) -> None:
    """The agent that the issue shows, asked and answered, event by event."""
    agent = Agent("researcher")

    @agent.run
    async def research(run: Run) -> dict[str, Any]:
        async with run.step("search"), run.tool("grep", {"pattern": run.input["topic"]}) as call:
            call.output = ["a", "b", "c"]
        await run.say("Found three things. ")
        if (await run.ask("Publish?", schema={"type": "boolean"})) is not True:
            return {"published": False}
        await run.checkpoint({"stage": 2})
        return {"published": True}

    async with working(client, agent):
        run_id = await queue_run(client, agent, input={"topic": "tides"})
        await until_status(client, run_id, "waiting_for_input")
        await client.runs.input(run_id, True)
        run = await end_of(client, run_id)
    assert (run.status, run.output, run.attempt) == ("completed", {"published": True}, 1)
    assert await read_types(client, run_id, own=False) == [
        "run.created",
        "run.queued",
        "run.dequeued",
        "run.started",
        "step.started",
        "tool.call",
        "tool.result",
        "step.completed",
        "message.delta",
        "run.waiting_for_input",
        "run.input_received",
        "checkpoint.created",
        "run.completed",
    ]


async def test_a_run_is_started_before_its_handler_has_said_anything(client: Client) -> None:
    """Whoever watches sees it run, and a pause does not take it from its worker."""
    agent, go_on = Agent("silent"), asyncio.Event()

    @agent.run
    async def handle(_run: Run) -> str:
        await go_on.wait()
        return "done"

    async with working(client, agent):
        run_id = await queue_run(client, agent)
        await until_status(client, run_id, "running")
        go_on.set()
        assert (await end_of(client, run_id)).output == "done"


async def test_a_handler_has_all_of_its_run(client: Client) -> None:
    """Input, tags, metadata, thread, attempt, preset."""
    agent = Agent("curious", presets={"fast": {"model": "small"}})

    @agent.run
    async def handle(run: Run) -> dict[str, Any]:
        return {
            "input": run.input,
            "tags": dict(run.tags),
            "metadata": dict(run.metadata),
            "thread_id": run.thread_id,
            "attempt": run.attempt,
            "preset": [run.preset_name, run.preset],
            "state": run.checkpoint_state,
            "id": run.id,
        }

    async with working(client, agent) as _worker:
        plain = await end_of(client, await queue_run(client, agent))
        fields = {"input": [1], "tags": {"a": "b"}, "metadata": {"m": 1}, "thread_id": "t-1", "preset": "fast"}
        run_id = await queue_run(client, agent, **fields)
        run = await end_of(client, run_id)
    assert run.output == {
        **fields,
        "attempt": 1,
        "preset": ["fast", {"model": "small"}],
        "state": None,
        "id": run_id,
    }
    assert plain.output["preset"] == [None, None]


async def test_steps_and_tools_are_nested_as_they_were(client: Client) -> None:
    """Each event carries its step and the step around it; what is started in a task belongs where it was started."""
    agent = Agent("nester")

    async def work_aside(run: Run, name: str) -> None:
        async with run.tool(name) as call:
            await call.progress({"done": 0.5})
            call.output = name

    @agent.run
    async def handle(run: Run) -> None:
        await run.log("outside")
        async with run.step("outer", {"x": 1}) as outer:
            async with run.step("inner") as inner, asyncio.TaskGroup() as group:
                group.create_task(work_aside(run, "one"))
                inner.output = "deep"
            await run.usage("acme", "m-1", prompt_tokens=3, completion_tokens=4, cost_microusd=5)
            outer.output = {"y": 2}
        await run.emit("custom.note", {"n": 1})
        await run.output("report", "text")
        await run.message("All of it.", role="assistant")

    async with working(client, agent):
        run = await end_of(client, run_id := await queue_run(client, agent))
    assert run.usage["prompt_tokens"] == 3
    log = [event for event in await read_log(client, run_id) if not event.type.startswith("run.")]
    steps = {event.data["name"]: event.data["step_id"] for event in log if event.type == "step.started"}
    places = [(event.type, event.step_id, event.parent_id) for event in log]
    outer, inner = (steps["outer"], None), (steps["inner"], steps["outer"])
    assert places == [
        ("log", None, None),
        ("step.started", *outer),
        ("step.started", *inner),
        ("tool.call", *inner),
        ("tool.progress", *inner),
        ("tool.result", *inner),
        ("step.completed", *inner),
        ("usage.recorded", *outer),
        ("step.completed", *outer),
        ("custom.note", None, None),
        ("output.set", None, None),
        ("message.completed", None, None),
    ]
    ends = {event.data["step_id"]: event.data["output"] for event in log if event.type == "step.completed"}
    assert ends == {outer[0]: {"y": 2}, inner[0]: "deep"}


async def test_what_fails_is_recorded_where_it_failed(client: Client) -> None:
    """The tool's result, the step, and the run say the same, and the run keeps the traceback."""
    agent = Agent("clumsy")

    @agent.run
    async def handle(run: Run) -> None:
        async with run.step("risky"), run.tool("divide", [1, 0]):
            _ = 1 / int(run.input)

    async with working(client, agent):
        run = await end_of(client, run_id := await queue_run(client, agent, input="0"))
    assert run.status == "failed"
    assert run.error is not None
    assert (run.error["code"], run.error["message"]) == ("ZeroDivisionError", "division by zero")
    assert "in handle" in run.error["details"]["traceback"]
    log = await read_log(client, run_id)
    fault = {"code": "ZeroDivisionError", "message": "division by zero"}
    assert [(e.data["status"], e.data["output"]) for e in log if e.type == "tool.result"] == [("error", fault)]
    assert [e.data["error"] for e in log if e.type == "step.failed"] == [fault]


class Overdrawn(Exception):
    """An error with a code of its own."""

    code = "overdrawn"


async def test_a_failure_is_tried_again_as_the_policy_says(client: Client) -> None:
    """Then the run is a dead letter; replayed from there it is executed again."""
    agent = Agent("stubborn", retry=Retry(max_attempts=3, backoff="fixed", initial_delay_s=0.05), dead_letter=True)
    attempts: list[int] = []
    well = asyncio.Event()

    @agent.run
    async def handle(run: Run) -> str:
        attempts.append(run.attempt)
        if not well.is_set():
            raise Overdrawn("no money left")
        return "paid"

    async with working(client, agent):
        run = await end_of(client, run_id := await queue_run(client, agent))
        assert (run.status, attempts) == ("dead_letter", [1, 2, 3])
        assert (run.error or {})["code"] == "overdrawn"
        well.set()
        await client.runs.dlq_replay(run_id)
        assert (await end_of(client, run_id)).output == "paid"
    types = await read_types(client, run_id, own=False)
    assert (types.count("run.attempt_failed"), types.count("run.dead_lettered")) == (2, 1)


@pytest.mark.parametrize("output", [object(), {1, object()}, "x" * 300_000])
async def test_what_no_retry_would_cure_fails_at_once(client: Client, output: object) -> None:
    """An output that JSON cannot say, or that is too large, is told as such; so is `Fatal`."""
    agent = Agent("odd", retry=Retry(max_attempts=5, initial_delay_s=0))

    @agent.run
    async def handle(run: Run) -> object:
        if run.input == "fatal":
            raise Fatal("There is no such customer.", code="unknown_customer")
        return output

    async with working(client, agent):
        odd = await end_of(client, await queue_run(client, agent))
        fatal = await end_of(client, await queue_run(client, agent, input="fatal"))
    assert (odd.status, odd.attempt) == (fatal.status, fatal.attempt) == ("failed", 1)
    assert odd.error is not None
    assert odd.error["code"] == ("output_too_large" if isinstance(output, str) else "invalid_output")
    assert (fatal.error or {})["code"] == "unknown_customer"


async def test_what_the_gateway_refuses_fails_the_run_in_its_words(client: Client) -> None:
    """An event of a malformed type does not leave the run hanging."""
    agent = Agent("wordy")

    @agent.run
    async def handle(run: Run) -> None:
        await run.emit("custom.NOT A NAME")
        await asyncio.Event().wait()

    async with working(client, agent):
        run = await end_of(client, await queue_run(client, agent))
    assert (run.status, (run.error or {})["code"]) == ("failed", "unknown_event_type")


async def test_plain_functions_run_in_threads(client: Client) -> None:
    """With the same calls, which wait; steps in them nest as well."""
    agent = Agent("plain")
    threads: set[int] = set()

    @agent.run
    def handle(run: SyncRun) -> dict[str, Any]:
        threads.add(threading.get_ident())
        with run.step("one"), run.step("two") as two:
            with run.tool("count", run.input) as call:
                call.progress(1)
                call.output = len(run.input)
            two.output = "ok"
        run.say("Counted.")
        run.usage("acme", "m", prompt_tokens=1)
        run.checkpoint({"n": 1})
        return {"count": call.output, "sure": run.ask("Sure?", timeout_s=0.2, default=False)}

    async with working(client, agent):
        run = await end_of(client, run_id := await queue_run(client, agent, input=[1, 2, 3]))
    assert run.output == {"count": 3, "sure": False}
    assert threading.get_ident() not in threads
    log = await read_log(client, run_id)
    (call,) = [event for event in log if event.type == "tool.call"]
    steps = {event.data["name"]: event.data["step_id"] for event in log if event.type == "step.started"}
    assert (call.step_id, call.parent_id) == (steps["two"], steps["one"])
    assert [event.type for event in log if not event.type.startswith("run.")] == [
        "step.started",
        "step.started",
        "tool.call",
        "tool.progress",
        "tool.result",
        "step.completed",
        "step.completed",
        "message.delta",
        "usage.recorded",
        "checkpoint.created",
    ]


async def test_no_more_runs_at_once_than_there_is_room_for(client: Client) -> None:
    """The next is claimed when one has ended; none waits longer."""
    agent = Agent("crowd")
    running, most, go_on = 0, 0, asyncio.Event()

    @agent.run
    async def handle(run: Run) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 3:
            go_on.set()
        await go_on.wait()
        await run.say("x")
        running -= 1

    async with working(client, agent, concurrency=3):
        made = [await queue_run(client, agent) for _ in range(12)]
        for run_id in made:
            assert (await end_of(client, run_id)).status == "completed"
    assert most == 3


async def test_a_long_text_arrives_whole(client: Client) -> None:
    """Thousands of pieces, batched on their way, each once and in order."""
    agent = Agent("chatty")

    @agent.run
    async def handle(run: Run) -> None:
        for number in range(3000):
            await run.say(f"{number} ")

    async with working(client, agent):
        await end_of(client, run_id := await queue_run(client, agent))
    assert await read_texts(client, run_id) == [f"{number} " for number in range(3000)]
