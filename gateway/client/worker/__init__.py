"""Agents: functions that execute runs, and the worker that runs them.

agent = Agent("researcher")

@agent.run
async def research(run: Run) -> dict:
    async with run.step("search"):
        ...
    return {"published": True}

Worker(Client.from_environment(), [agent]).main()
"""

from gateway.client.worker.agent import Agent, Retry
from gateway.client.worker.outcome import Fatal
from gateway.client.worker.run import Run
from gateway.client.worker.spans import Step, Tool
from gateway.client.worker.threads import SyncRun, SyncStep, SyncTool
from gateway.client.worker.worker import Worker

__all__ = ["Agent", "Fatal", "Retry", "Run", "Step", "SyncRun", "SyncStep", "SyncTool", "Tool", "Worker"]
