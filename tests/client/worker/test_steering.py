"""A run is steered while its handler works: cancelled, paused, answered, taken away."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from gateway.client import Client, Forbidden
from gateway.client.worker import Agent, Retry, Run, SyncRun, Worker, session
from tests.client.waits import SOON
from tests.client.worker.bench import (
    end_of,
    queue_run,
    read_log,
    read_texts,
    read_types,
    until_status,
    working,
)
from tests.support.native import open_client
from tests.support.running import RunningGateway, wait_until

pytestmark = pytest.mark.anyio


async def _has_type(client: Client, run_id: str, kind: str) -> bool:
    return kind in await read_types(client, run_id)


async def test_a_cancel_arrives_as_one_and_clean_up_is_recorded(client: Client) -> None:
    """At the next await; then the worker confirms, long before the grace ends."""
    agent = Agent("long")

    @agent.run
    async def handle(run: Run) -> None:
        try:
            async with run.step("wait"):
                await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            await run.log("cleaned up")

    async with working(client, agent):
        run_id = await queue_run(client, agent)
        await until_status(client, run_id, "running")
        # What the agent does comes after it is told that it runs.
        await wait_until(lambda: _has_type(client, run_id, "step.started"))
        async with asyncio.timeout(4):
            await client.runs.cancel(run_id, reason="enough")
            await until_status(client, run_id, "cancelled")
    assert await read_types(client, run_id) == [
        "step.started",
        "run.cancel_requested",
        "step.failed",
        "log",
        "run.cancelled",
    ]
    log = await read_log(client, run_id)
    assert log[-1].data["reason"] == "enough"
    assert log[-3].data["error"]["code"] == "cancelled"


async def test_a_cancel_that_a_reply_names_first_keeps_its_reason(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reply says only that there is one; the confirmation has the words of who asked, all the same."""
    monkeypatch.setattr(session, "FOLLOW_AFTER_S", 60)
    agent = Agent("prompt")

    @agent.run
    async def handle(run: Run) -> None:
        await client.runs.cancel(run.id, reason="enough")
        await run.log("still here")
        await run.flush()
        await asyncio.Event().wait()

    async with working(client, agent):
        run_id = await queue_run(client, agent)
        await until_status(client, run_id, "cancelled")
    assert (await read_log(client, run_id))[-1].data["reason"] == "enough"


async def test_a_handler_that_will_not_stop_is_left_behind(client: Client) -> None:
    """A forced cancel ends the run at once; what the handler says after it is not written."""
    agent, caught, ended = Agent("deaf"), asyncio.Event(), asyncio.Event()

    @agent.run
    async def handle(run: Run) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            caught.set()
        try:
            await asyncio.Event().wait()
        finally:
            await run.log("too late")
            ended.set()

    async with working(client, agent):
        run_id = await queue_run(client, agent)
        await until_status(client, run_id, "running")
        await client.runs.cancel(run_id)
        await asyncio.wait_for(caught.wait(), 5)
        await client.runs.cancel(run_id, force=True)
        await asyncio.wait_for(ended.wait(), 5)
    assert await read_types(client, run_id) == ["run.cancel_requested", "run.cancelled"]


async def test_a_cancel_interrupts_what_a_thread_waits_for(client: Client) -> None:
    """The call under way raises, once; clean-up is recorded."""
    agent = Agent("blocked")

    @agent.run
    def handle(run: SyncRun) -> None:
        try:
            run.ask("For ever?")
        finally:
            run.log("cleaned up")

    async with working(client, agent):
        run_id = await queue_run(client, agent)
        await until_status(client, run_id, "waiting_for_input")
        await client.runs.cancel(run_id)
        await until_status(client, run_id, "cancelled")
    assert "log" in await read_types(client, run_id)


async def test_a_paused_run_holds_until_it_is_resumed(client: Client) -> None:
    """For longer than its lease, without a word; resumed, it goes on, and its end holds as well."""
    agent, spoken = Agent("talker"), 0

    @agent.run
    async def handle(run: Run) -> int:
        nonlocal spoken
        while spoken < 1000:
            await run.say(f"{spoken} ")
            spoken += 1
            await asyncio.sleep(0.005)
            if run.input == "short" and spoken > 5:
                break
        return spoken

    async with working(client, agent):
        run_id = await queue_run(client, agent)
        await until_status(client, run_id, "running")
        await wait_until(lambda: spoken > 5)
        paused = await client.runs.pause(run_id)
        await asyncio.sleep(2.5)
        held = await client.runs.get(run_id)
        assert held.status == "paused"
        # What was under way when the pause came.
        assert held.head_seq - paused.head_seq < 10
        await client.runs.resume(run_id)
        said_before = spoken
        await wait_until(lambda: spoken > said_before + 5)
        await client.runs.cancel(run_id)
        run = await end_of(client, run_id)
    assert (run.status, run.attempt) == ("cancelled", 1)
    texts = await read_texts(client, run_id)
    assert texts == [f"{number} " for number in range(len(texts))]


async def test_a_paused_run_does_not_end(client: Client) -> None:
    """A handler that is done waits for the resume: neither its output nor its failure comes before."""
    agent, go_on = Agent("done", retry=Retry(max_attempts=2, initial_delay_s=0)), asyncio.Event()

    @agent.run
    async def handle(run: Run) -> str:
        if run.attempt == 1:
            await go_on.wait()
            raise ValueError("not yet")
        return "done"

    async with working(client, agent):
        run_id = await queue_run(client, agent)
        await until_status(client, run_id, "running")
        await client.runs.pause(run_id)
        await asyncio.sleep(0.2)
        go_on.set()
        await asyncio.sleep(0.3)
        assert (await client.runs.get(run_id)).status == "paused"
        await client.runs.resume(run_id)
        run = await end_of(client, run_id)
    assert (run.attempt, run.output) == (2, "done")


async def test_a_question_is_not_lost_in_a_pause(client: Client) -> None:
    """Asked once the run is resumed, answered, and the answer is the handler's."""
    agent, go_on = Agent("asker"), asyncio.Event()

    @agent.run
    async def handle(run: Run) -> Any:
        await go_on.wait()
        return await run.ask("Well?")

    async with working(client, agent):
        run_id = await queue_run(client, agent)
        await until_status(client, run_id, "running")
        await client.runs.pause(run_id)
        go_on.set()
        await asyncio.sleep(0.3)
        assert (await client.runs.get(run_id)).status == "paused"
        await client.runs.resume(run_id)
        await until_status(client, run_id, "waiting_for_input")
        await client.runs.input(run_id, {"yes": 1})
        assert (await end_of(client, run_id)).output == {"yes": 1}


async def test_several_questions_are_answered_in_any_order(client: Client) -> None:
    """Each answer goes to its question; one that is waited for no more is withdrawn."""
    agent = Agent("many")

    @agent.run
    async def handle(run: Run) -> list[Any]:
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(run.ask(f"Question {n}?")) for n in range(3)]
        try:
            async with asyncio.timeout(0.2):
                await run.ask("Never mind?")
        except TimeoutError:
            pass
        return [task.result() for task in asked]

    async with working(client, agent):
        run_id = await queue_run(client, agent)

        async def all_asked() -> bool:
            return len((await client.runs.get(run_id)).open_requests) == 3

        await wait_until(all_asked)
        for question in reversed((await client.runs.get(run_id)).open_requests):
            await client.runs.input(run_id, question.prompt[-2], request_id=question.request_id)
        run = await end_of(client, run_id)
    assert run.output == ["0", "1", "2"]
    closed = [event.data["reason"] for event in await read_log(client, run_id) if event.type == "run.input_closed"]
    assert closed == ["withdrawn"]


async def test_what_is_no_question_is_told_to_the_handler(client: Client) -> None:
    """In the gateway's words, and the run may go on."""
    agent = Agent("confused")

    @agent.run
    async def handle(run: Run) -> str:
        try:
            await run.ask("?", schema={"type": "nonsense"})
        except Exception as error:
            return type(error).__name__
        return "asked"

    async with working(client, agent):
        assert (await end_of(client, await queue_run(client, agent))).output == "InvalidBody"


async def test_a_deadline_gives_the_default_or_ends_the_run(client: Client) -> None:
    """As the question says: an answer of its own, a failure, a cancel."""
    agent = Agent("hasty")

    @agent.run
    async def handle(run: Run) -> Any:
        return await run.ask("Quick?", timeout_s=0.1, **run.input)

    async with working(client, agent):
        default = await end_of(client, await queue_run(client, agent, input={"default": None}))
        failed = await end_of(client, await queue_run(client, agent, input={}))
        cancelled = await end_of(client, await queue_run(client, agent, input={"on_timeout": "cancel"}))
    assert (default.status, default.output) == ("completed", None)
    assert (failed.status, (failed.error or {})["code"]) == ("failed", "input_timeout")
    assert cancelled.status == "cancelled"


async def test_a_restart_stops_the_handler_and_begins_another(client: Client) -> None:
    """The first writes no more; the second has the checkpoint that was named."""
    agent = Agent("again")
    stopped = asyncio.Event()

    @agent.run
    async def handle(run: Run) -> Any:
        if run.checkpoint_state is not None:
            return run.checkpoint_state
        await run.checkpoint({"n": 1})
        try:
            await asyncio.Event().wait()
        finally:
            await run.log("too late")
            stopped.set()

    async with working(client, agent):
        run_id = await queue_run(client, agent)
        await wait_until_type(client, run_id, "checkpoint.created")
        await client.runs.restart(run_id, from_checkpoint=True)
        run = await end_of(client, run_id)
        await asyncio.wait_for(stopped.wait(), 5)
    assert (run.attempt, run.output) == (2, {"n": 1})
    assert "log" not in await read_types(client, run_id)


async def wait_until_type(client: Client, run_id: str, kind: str) -> None:
    """Wait until the log has an event of a type."""

    async def has() -> bool:
        return kind in await read_types(client, run_id, own=False)

    await wait_until(has)


async def test_a_run_that_takes_too_long_is_stopped(client: Client) -> None:
    """By the gateway; the handler hears of it, and the next attempt is another."""
    agent = Agent("slow", timeout_s=0.3, retry=Retry(max_attempts=2, initial_delay_s=0, backoff="fixed"))
    stopped: list[int] = []

    @agent.run
    async def handle(run: Run) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(run.attempt)

    async with working(client, agent):
        run = await end_of(client, await queue_run(client, agent))
        await wait_until(lambda: stopped == [1, 2])
    assert run.status == "timed_out"


async def test_a_suspended_run_goes_on_with_its_answer(client: Client) -> None:
    """While it waits nobody holds it; executed again, it repeats neither words nor questions, and ends once."""
    agent = Agent("patient")
    executed: list[str] = []

    @agent.run
    async def handle(run: Run) -> list[Any]:
        executed.append("begin")
        async with run.step("prepare"):
            await run.say("Before. ")
            name = await run.ask("Name?")
            first = await run.ask("Go on?", suspend=True)
            await run.say("Between. ")
        second = await run.ask("Go on?", suspend=True)
        await run.say("After.")
        return [name, first, second]

    async with working(client, agent) as worker:
        run_id = await queue_run(client, agent)
        await until_status(client, run_id, "waiting_for_input")
        await client.runs.input(run_id, "Ada")
        for number, answer in enumerate((1, 2)):
            await wait_until(lambda number=number: has_let_go(client, run_id, number + 1))
            await wait_until(lambda: not worker.running)
            waiting = await client.runs.get(run_id)
            assert (waiting.status, waiting.lease) == ("waiting_for_input", None)
            await client.runs.input(run_id, answer)
        run = await end_of(client, run_id)
    assert (run.output, run.attempt, len(executed)) == (["Ada", 1, 2], 1, 3)
    assert await read_texts(client, run_id) == ["Before. ", "Between. ", "After."]
    types = await read_types(client, run_id, own=False)
    assert [types.count(kind) for kind in ("run.waiting_for_input", "step.started", "step.completed")] == [3, 1, 1]
    assert "run.attempt_started" not in types
    steps = {event.step_id for event in await read_log(client, run_id) if event.type.startswith("step.")}
    assert len(steps) == 1


async def has_let_go(client: Client, run_id: str, times: int) -> bool:
    """Whether a run was released so often."""
    return (await read_types(client, run_id, own=False)).count("run.released") == times


async def test_a_suspended_loop_goes_on_from_its_checkpoint(client: Client) -> None:
    """The same question in each round gets the answer of its round, though earlier rounds are not executed again."""
    agent = Agent("rounds")

    @agent.run
    async def handle(run: Run) -> list[Any]:
        done = list(run.checkpoint_state or [])
        for number in range(len(done), 3):
            async with run.step(f"round {number}"):
                done.append(await run.ask("Next?", suspend=True))
            await run.checkpoint(done)
        return done

    async with working(client, agent):
        run_id = await queue_run(client, agent)
        for number in range(3):
            await wait_until(lambda number=number: has_let_go(client, run_id, number + 1))
            await client.runs.input(run_id, f"answer {number}")
        assert (await end_of(client, run_id)).output == ["answer 0", "answer 1", "answer 2"]
    log = await read_log(client, run_id)
    started = [event.step_id for event in log if event.type == "step.started"]
    assert [event.step_id for event in log if event.type == "step.completed"] == started
    assert len(set(started)) == 3


async def test_an_answer_that_is_quick_is_not_given_away(client: Client) -> None:
    """A question that is answered before it could be let go: the handler goes on, and nothing is done twice."""
    agent = Agent("quick")

    @agent.run
    async def handle(run: Run) -> list[Any]:
        return [await run.ask(f"Question {n}?", suspend=True) for n in range(20)]

    async with working(client, agent):
        run_id = await queue_run(client, agent)
        answering = asyncio.create_task(answer_all(client, run_id))
        run = await end_of(client, run_id)
        answering.cancel()
    assert run.output == list(range(20))
    types = await read_types(client, run_id, own=False)
    assert types.count("run.waiting_for_input") == 20
    assert "run.attempt_started" not in types


async def answer_all(client: Client, run_id: str) -> None:
    """Answer each question of a run with how many there were before it, as soon as it is asked."""
    answered = 0
    async for event in client.runs.events(run_id, types=["run.waiting_for_input"]):
        await client.runs.input(run_id, answered, request_id=event.data["request_id"])  # type: ignore[union-attr]
        answered += 1


async def test_a_worker_that_stops_gives_its_runs_back(client: Client) -> None:
    """After the drain: at once, as the same attempt, without a word of clean-up."""
    agent = Agent("moving")
    holders: list[str] = []

    @agent.run
    async def handle(run: Run) -> str:
        holders.append(str(run.record.id))
        if len(holders) == 1:
            try:
                await run.say("First. ")
                await asyncio.Event().wait()
            finally:
                await run.log("too late")
        return "moved"

    async with working(client, agent, drain_s=0.1):
        run_id = await queue_run(client, agent)
        await wait_until_type(client, run_id, "message.delta")
    assert (await client.runs.get(run_id)).status == "queued"
    async with working(client, agent):
        run = await end_of(client, run_id)
    assert (run.output, run.attempt, run.failed_attempts) == ("moved", 1, 0)
    types = await read_types(client, run_id, own=False)
    assert (types.count("run.released"), types.count("log")) == (1, 0)


async def test_a_worker_that_stops_at_a_question_leaves_it_open(client: Client) -> None:
    """Whoever claims the run after the answer goes on in the same attempt, and repeats nothing."""
    agent = Agent("asker")

    @agent.run
    async def handle(run: Run) -> Any:
        await run.say("Before. ")
        return await run.ask("Well?")

    async with working(client, agent, drain_s=0):
        run_id = await queue_run(client, agent)
        await until_status(client, run_id, "waiting_for_input")
    waiting = await client.runs.get(run_id)
    assert (waiting.status, waiting.lease, len(waiting.open_requests)) == ("waiting_for_input", None, 1)
    await client.runs.input(run_id, "well")
    async with working(client, agent):
        run = await end_of(client, run_id)
    assert (run.output, run.attempt) == ("well", 1)
    assert await read_texts(client, run_id) == ["Before. "]
    assert "run.attempt_started" not in await read_types(client, run_id, own=False)


async def test_a_worker_that_drains_lets_its_runs_end(client: Client) -> None:
    """What ends in time is not disturbed, and nothing new is begun."""
    agent, begun, go_on = Agent("finisher"), asyncio.Event(), asyncio.Event()

    @agent.run
    async def handle(_run: Run) -> str:
        begun.set()
        await go_on.wait()
        return "ended"

    async with working(client, agent, concurrency=5) as worker:
        first = await queue_run(client, agent)
        await asyncio.wait_for(begun.wait(), 10)
        worker.stop()
        second = await queue_run(client, agent)
        go_on.set()
        assert (await end_of(client, first)).output == "ended"
    left = await client.runs.get(second)
    assert (left.status, left.lease) == ("queued", None)


async def test_runs_of_other_agents_are_given_back(client: Client) -> None:
    """In the same queue: each worker executes its own, and a run that nobody knows does not go round and round."""
    mine, theirs = Agent("mine"), Agent("theirs")
    mine.run(echo)
    theirs.run(echo)
    async with working(client, mine):
        nobodys = await client.runs.create("nobodys", mode="queued")
        run_id = await queue_run(client, theirs)
        assert (await end_of(client, await queue_run(client, mine, input=1))).output == 1
        async with working(client, theirs):
            assert (await end_of(client, run_id)).output is None
    assert (await client.runs.get(nobodys.id)).status == "queued"
    assert await count_releases(client, nobodys.id) < 10


async def echo(run: Run) -> Any:
    """Return the input."""
    return run.input


async def count_releases(client: Client, run_id: str) -> int:
    """Return how often a run was given back."""
    return [event.type for event in await read_log(client, run_id)].count("run.released")


async def test_a_key_that_may_not_register_goes_on_without(gateway: RunningGateway, client: Client) -> None:
    """`work` and `runs:read` are enough to execute; a key that may not read is refused at the start."""
    agent = Agent("modest", retry=Retry(max_attempts=2))
    agent.run(echo)
    async with open_client(gateway, scopes=["work", "runs:read"]) as allowed:
        key = allowed.headers["authorization"].removeprefix("Bearer ")
        async with Client(gateway.url, key=key, backoff=SOON) as modest, working(modest, agent):
            assert (await end_of(client, await queue_run(client, agent, input=2))).output == 2
    async with open_client(gateway, scopes=["work"]) as blind:
        key = blind.headers["authorization"].removeprefix("Bearer ")
        async with Client(gateway.url, key=key, backoff=SOON) as modest:
            with pytest.raises(Forbidden, match="runs:read"):
                await Worker(modest, [agent]).run()


async def test_a_thread_that_does_not_listen_holds_nobody_up(client: Client) -> None:
    """A worker that stops gives its run back though the thread goes on."""
    agent, release = Agent("stuck"), threading.Event()
    began = threading.Event()

    @agent.run
    def handle(_run: SyncRun) -> None:
        began.set()
        release.wait(30)

    async with working(client, agent, drain_s=0) as worker:
        run_id = await queue_run(client, agent)
        await wait_until(began.is_set)
        worker.stop()
        await wait_until(lambda: not worker.running, timeout_s=20)
    release.set()
    assert (await client.runs.get(run_id)).status == "queued"
