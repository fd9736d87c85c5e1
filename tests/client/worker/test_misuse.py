"""What a handler does wrong is told in so many words, and costs its worker nothing."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.client import Client
from gateway.client.worker import Agent, Fatal, Retry, Run, SyncRun
from tests.client.worker.bench import end_of, queue_run, read_texts, working

pytestmark = pytest.mark.anyio


async def say_nothing(run: Run) -> str:
    """Forget an await, as a person would."""
    run.say("never said")  # type: ignore[unused-coroutine]
    return "done"


async def ask_nobody(run: Run) -> str:
    """Take a question for its answer."""
    return "yes" if run.ask("Publish?") else "no"


async def forget_progress(run: Run) -> None:
    """Forget an await within a tool call."""
    async with run.tool("count") as call:
        call.progress(1)  # type: ignore[unused-coroutine]


@pytest.mark.filterwarnings("ignore:.*was never awaited", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("handler", "name"), [(say_nothing, "say"), (ask_nobody, "ask"), (forget_progress, "progress")]
)
async def test_a_call_that_is_not_awaited_fails_the_run(client: Client, handler: Callable[..., Any], name: str) -> None:
    """A run does not complete as if it had said what it has not; no retry would cure it."""
    agent = Agent("forgetful", retry=Retry(max_attempts=3))
    agent.run(handler)
    async with working(client, agent):
        run = await end_of(client, await queue_run(client, agent))
    assert (run.status, run.attempt) == ("failed", 1)
    assert run.error is not None
    assert run.error["code"] == "not_awaited"
    assert run.error["message"] == f"run.{name}() was called without await: nothing came of it."


async def test_calls_that_are_tasks_are_awaited(client: Client) -> None:
    """Also those that are begun just before the handler returns."""
    agent, tasks = Agent("tasks"), set[asyncio.Task[None]]()

    @agent.run
    async def handle(run: Run) -> str:
        await asyncio.gather(run.say("a"), run.say("b"))
        tasks.add(asyncio.create_task(run.say("c")))
        return "done"

    async with working(client, agent):
        run_id = await queue_run(client, agent)
        assert (await end_of(client, run_id)).output == "done"
    assert await read_texts(client, run_id) == ["a", "b", "c"]


def exit_at_once(_run: SyncRun) -> None:
    """Do as programs do."""
    raise SystemExit("nothing to do")


async def parse_arguments(_run: Run) -> None:
    """Call what exits where it is not pleased."""
    argparse.ArgumentParser().parse_args(["--unknown"])


@pytest.mark.parametrize(
    ("handler", "told"), [(exit_at_once, "sys.exit('nothing to do')"), (parse_arguments, "sys.exit(2)")]
)
async def test_an_exit_is_the_handlers_and_not_the_workers(
    client: Client, handler: Callable[..., Any], told: str
) -> None:
    """The attempt has failed, and the worker executes the next run."""
    agent, other = Agent("leaver"), Agent("stayer")
    agent.run(handler)

    @other.run
    async def stay(_run: Run) -> str:
        return "here"

    async with working(client, agent, other):
        run = await end_of(client, await queue_run(client, agent))
        assert (await end_of(client, await queue_run(client, other))).output == "here"
    assert run.status == "failed"
    assert run.error is not None
    assert (run.error["code"], run.error["message"]) == ("SystemExit", f"The handler called {told}.")


async def test_a_thread_that_stops_an_iteration_has_failed(client: Client) -> None:
    """A future cannot carry this exception; the run ends all the same."""
    agent = Agent("empty")

    @agent.run
    def handle(_run: SyncRun) -> None:
        next(iter([]))

    async with working(client, agent):
        run = await end_of(client, await queue_run(client, agent))
    assert run.error is not None
    assert (run.status, run.error["message"]) == ("failed", "The handler raised StopIteration.")


async def test_errors_of_a_group_are_told_and_one_may_be_fatal(client: Client) -> None:
    """One alone is told as itself; several are named; a fatal one among them is final."""
    agent = Agent("grouped", retry=Retry(max_attempts=2, initial_delay_s=0))

    @agent.run
    async def handle(run: Run) -> None:
        raise ExceptionGroup("several", [ExceptionGroup("inner", [error(text) for error, text in ERRORS[run.input]])])

    async with working(client, agent):
        alone, both, fatal = [await end_of(client, await queue_run(client, agent, input=name)) for name in ERRORS]
    assert [run.attempt for run in (alone, both, fatal)] == [2, 2, 1]
    assert alone.error is not None
    assert (alone.error["code"], alone.error["message"]) == ("ValueError", "a")
    assert both.error is not None
    assert both.error["code"] == "ExceptionGroup"
    assert both.error["message"].endswith("ValueError: a; KeyError: 'b'")


ERRORS: dict[str, list[tuple[type[Exception], str]]] = {
    "alone": [(ValueError, "a")],
    "both": [(ValueError, "a"), (KeyError, "b")],
    "fatal": [(ValueError, "a"), (Fatal, "c")],
}


async def test_a_task_that_outlives_its_handler_is_told_so(client: Client) -> None:
    """It neither says nor asks anything any more, and does not try for ever."""
    agent, go_on = Agent("parent"), asyncio.Event()
    strays: list[asyncio.Task[Any]] = []

    @agent.run
    async def handle(run: Run) -> str:
        async def ask() -> Any:
            await go_on.wait()
            return await run.ask("Still there?")

        async def say() -> None:
            await go_on.wait()
            await run.say("late")

        strays.extend([asyncio.create_task(ask()), asyncio.create_task(say())])
        return "done"

    async with working(client, agent):
        run_id = await queue_run(client, agent)
        assert (await end_of(client, run_id)).output == "done"
        go_on.set()
        async with asyncio.timeout(5):
            errors = await asyncio.gather(*strays, return_exceptions=True)
    assert [type(error) for error in errors] == [RuntimeError, RuntimeError]
    assert all(f"The run {run_id} has ended with its handler" in str(error) for error in errors)
    assert await read_texts(client, run_id) == []


async def test_the_other_kind_of_with_is_named(client: Client) -> None:
    """`with` in an async handler, `async with` in a plain one."""
    agent = Agent("mixed")

    @agent.run
    async def handle(run: Run) -> None:
        with run.step("a"):  # type: ignore[attr-defined]
            pass

    async with working(client, agent):
        run = await end_of(client, await queue_run(client, agent))
    assert run.error is not None
    assert "it is `async with run.step(…)`" in run.error["message"]


async def yields(_run: Run) -> Any:
    """Yield, as a stream of another framework would."""
    yield 1


def yields_plainly(_run: SyncRun) -> Any:
    """Yield in a thread."""
    yield 1


async def takes_nothing() -> None:
    """Take no run."""


async def takes_more(_run: Run, _input: Any) -> None:
    """Take more than there is."""


@pytest.mark.parametrize("handler", [yields, yields_plainly, takes_nothing, takes_more, "text", None])
def test_what_cannot_execute_a_run_is_no_handler(handler: Any) -> None:
    """It is refused where it is written, not when the first run fails."""
    with pytest.raises(TypeError, match="the handler of the agent wrong"):
        Agent("wrong").run(handler)
