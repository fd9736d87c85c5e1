"""Agents for workers that are processes; each notes what it does in the file that the run's input names."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from gateway.client.worker import Agent, Retry, Run

TRIES = Retry(max_attempts=3, backoff="fixed", initial_delay_s=0)

counter = Agent("counter", retry=TRIES)
talker = Agent("talker")
waiter = Agent("waiter")
stepper = Agent("stepper", retry=Retry(max_attempts=100, backoff="fixed", initial_delay_s=0))


def note(run: Run, text: str) -> None:
    """Add a line to the run's notes."""
    with Path(run.input["notes"]).open("a") as notes:
        notes.write(f"{text}\n")


@counter.run
async def count(run: Run) -> dict[str, Any]:
    """Count, saving each number; the first attempt, and whichever else is told to, goes on until it is stopped."""
    start = (run.checkpoint_state or {"n": 0})["n"]
    note(run, f"attempt {run.attempt} from {start}")
    number = start
    try:
        while number < start + run.input["steps"] or run.attempt in run.input.get("endless", [1]):
            number += 1
            await run.say(f"{number} ")
            if number <= run.input.get("saved", 5):
                await run.checkpoint({"n": number})
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        note(run, f"attempt {run.attempt} stopped")
        await run.log("too late")
        raise
    return {"n": number}


@talker.run
async def talk(run: Run) -> int:
    """Say numbers for a while."""
    for number in range(run.input["pieces"]):
        await run.say(f"{number} ")
        await asyncio.sleep(0.002)
    return int(run.input["pieces"])


@waiter.run
async def wait(run: Run) -> dict[str, Any]:
    """Ask and let go."""
    note(run, "begun")
    await run.say("Before. ")
    answer = await run.ask("Go on?", suspend=True)
    await run.say("After.")
    return {"answer": answer}


@stepper.run
async def step(run: Run) -> int:
    """Take ten short steps, each saved."""
    start = (run.checkpoint_state or {"n": 0})["n"]
    for number in range(start, 10):
        async with run.step(f"step {number}"):
            await run.say(f"{number} ")
            await asyncio.sleep(0.05)
        await run.checkpoint({"n": number + 1})
    return 10
