"""A worker behind a network that breaks: the log does not show it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.client import Client
from gateway.client.worker import Agent, Run
from tests.client.waits import SOON
from tests.client.worker.bench import end_of, queue_run, read_log, read_texts, until_status, working
from tests.support.proxy import Dooms, lay_proxy
from tests.support.running import RunningGateway

pytestmark = pytest.mark.anyio


async def test_lost_connections_cost_nothing(gateway: RunningGateway, client: Client) -> None:
    """Claims, appends, questions and streams are cut again and again; each piece is there once, in one attempt."""
    agent = Agent("steady")

    @agent.run
    async def handle(run: Run) -> list[Any]:
        answers = []
        for part in range(3):
            async with run.step(f"part {part}"):
                for number in range(40):
                    await run.say(f"{part}.{number} ")
                    await asyncio.sleep(0.003)
            answers.append(await run.ask(f"Question {part}?"))
        return answers

    dooms = Dooms(5, cuts=60, most_bytes=1500, most_s=2, black_holes=0)
    async with (
        lay_proxy(gateway.port, choose=dooms) as proxy,
        Client(proxy.url, key=gateway.key, backoff=SOON) as shaky,
        working(shaky, agent),
    ):
        run_ids = [await queue_run(client, agent, lease_s=20) for _ in range(4)]
        for part in range(3):
            for run_id in run_ids:
                await until_status(client, run_id, "waiting_for_input")
                await client.runs.input(run_id, part)
        runs = [await end_of(client, run_id) for run_id in run_ids]
    assert proxy.cuts.total() > 10
    for run in runs:
        assert (run.status, run.attempt, run.output) == ("completed", 1, [0, 1, 2])
        assert await read_texts(client, run.id) == [f"{part}.{number} " for part in range(3) for number in range(40)]
        types = [event.type for event in await read_log(client, run.id)]
        assert [types.count(kind) for kind in ("run.started", "run.waiting_for_input", "step.completed")] == [1, 3, 3]
