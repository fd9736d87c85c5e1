"""The demo agent, written as a user of `gateway.client.worker` would: where do the documents speak of a topic?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from gateway.client.worker import Agent, Retry, Run
from gateway.commands.demo.research import Research

NAME = "demo"
TIMEOUT_S = 900


class Manner(msgspec.Struct, frozen=True):
    """How runs are executed: where reports go, how long approval may take, how fast actions follow."""

    reports: Path
    approval_s: float
    pace_s: float


def make_agent(manner: Manner) -> Agent:
    """Return an agent that reads the documents again, if need be from its checkpoint, and asks before it publishes."""
    # In a queue of its own, so that no worker of the same gateway claims its runs, or it theirs.
    agent = Agent(
        NAME, queue=NAME, retry=Retry(max_attempts=3, backoff="fixed", initial_delay_s=2), timeout_s=TIMEOUT_S
    )

    @agent.run
    async def research(run: Run) -> dict[str, Any]:
        work = Research(run, pace_s=manner.pace_s)
        notes = await work.recall_notes()
        if notes is None:
            notes = await work.search()
            await run.checkpoint(msgspec.to_builtins(notes), source="search")
        output = {"topic": notes.topic, "lines": notes.found.lines, "files": len(notes.found.files)}
        if not notes.found.files:
            return {**output, "published": False}
        await work.read_passages(notes)
        report = await work.write_report(notes)
        prompt = f"Publish this report of {len(report.split())} words on “{notes.topic}”?"
        leave = await run.ask(prompt, schema={"type": "boolean"}, timeout_s=manner.approval_s, default=False)
        if leave is not True:
            return {**output, "published": False}
        return {**output, "published": True, "report": await work.publish(report, manner.reports)}

    return agent
