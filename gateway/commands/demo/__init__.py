"""`gateway demo`: an agent to watch, which does true work with no network and no model."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click

from gateway.client import Client, ClientError
from gateway.client.worker import Worker
from gateway.commands.demo.agent import Manner, make_agent
from gateway.commands.demo.reports import find_folder
from gateway.commands.demo.wishes import AT_ONCE, create_run, keep_asking
from gateway.commands.runs.connection import EXIT_REFUSED, Connection, connection_options, explain
from gateway.commands.welcome import find_own_command

EXIT_NOT_COMPLETED = 1


@click.command("demo")
@click.option("--once", is_flag=True, help="Execute one run and end.")
@click.option(
    "--interval-s",
    default=60.0,
    show_default=True,
    type=click.FloatRange(min=1),
    help="Seconds from one new run to the next; five times as many once nobody has answered five in a row.",
)
@click.option(
    "--approval-s",
    default=30.0,
    show_default=True,
    type=click.FloatRange(min=0.1, max=600),
    help="Seconds that a run waits for leave to publish its report; then it is not published.",
)
@click.option(
    "--pace-s",
    default=0.4,
    show_default=True,
    type=click.FloatRange(min=0, max=10),
    help="Seconds to pause before each action, so that a person can follow.",
)
@click.option(
    "--reports",
    type=click.Path(file_okay=False, path_type=Path),
    default=lambda: find_folder(os.environ),
    show_default="demo-reports in the gateway's data directory, else a temporary folder",
    help="Where approved reports are written.",
)
@connection_options
def command(
    connection: Connection, once: bool, interval_s: float, approval_s: float, pace_s: float, reports: Path
) -> None:
    """Run an agent that searches this project's documents and asks before it publishes what it found.

    It is a worker as any other: it claims every queued run of the agent "demo", so that a retry, or a run that
    you create with {"agent_id": "demo", "mode": "queued", "input": {"topic": "…"}}, is executed, too.
    With "fail_once": true in its input a run fails in its first attempt, and goes on from its checkpoint.

    \b
    Exit codes:
      0  stopped; with --once: the run completed
      1  with --once: the run ended otherwise
      2  the command line makes no sense
      3  the gateway refused, or could not be reached
    """
    manner = Manner(reports, approval_s, pace_s)
    work = _perform_once(connection, manner) if once else _serve(connection, manner, interval_s)
    raise click.exceptions.Exit(asyncio.run(_until_stopped(work)))


async def _until_stopped(work: Coroutine[Any, Any, int]) -> int:
    """Return the exit code of `work`, or 0 when a signal ended it."""
    task = asyncio.create_task(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return 0


async def _perform_once(connection: Connection, manner: Manner) -> int:
    async def see_one_through(client: Client, _worker: Worker) -> int:
        run = await create_run(client)
        _say(f"run {run.id} (watch it: {find_own_command()} tail {run.id})")
        ended = await client.runs.wait(run.id)
        _say(f"run {run.id} {ended.status}")
        return 0 if ended.status == "completed" else EXIT_NOT_COMPLETED

    return await _work(connection.open(), manner, see_one_through)


async def _serve(connection: Connection, manner: Manner, interval_s: float) -> int:
    async def ask_for_ever(client: Client, worker: Worker) -> int:
        await keep_asking(client, worker, interval_s)
        return 0

    # A gateway that is away is waited for: it may be starting, or starting again.
    return await _work(connection.open(repeat_s=None), manner, ask_for_ever)


async def _work(client: Client, manner: Manner, ask: Callable[[Client, Worker], Coroutine[Any, Any, int]]) -> int:
    """Execute runs for as long as `ask` asks for some, and return what it returns."""
    async with client:
        worker = Worker(client, [make_agent(manner)], concurrency=AT_ONCE, drain_s=0)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(worker.run())
                await worker.ready.wait()
                code = await ask(client, worker)
                worker.stop()
        except* ClientError as refused:
            _say(explain(_first(refused)))
            code = EXIT_REFUSED
    return code


def _first(group: BaseExceptionGroup[ClientError]) -> ClientError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _say(text: str) -> None:
    click.echo(f"gateway demo: {text}", err=True)
