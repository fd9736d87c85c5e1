"""`gateway worker`: a process that executes the runs of agents written in Python."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from gateway.client import ClientError
from gateway.client.worker import Agent, Worker
from gateway.client.worker.worker import MOST_RUNS
from gateway.commands.reloading import again_without, run_reloading
from gateway.commands.runs.connection import EXIT_REFUSED, Connection, connection_options, explain
from gateway.telemetry import set_up_logging


@click.command("worker")
@click.argument("specs", metavar="MODULE:AGENT…", nargs=-1, required=True)
@click.option(
    "--concurrency",
    default=10,
    show_default=True,
    type=click.IntRange(1, MOST_RUNS),
    help="How many runs are executed at once.",
)
@click.option(
    "--queue", "queues", multiple=True, help="Where to claim; may be repeated.  [default: the agents' queues]"
)
@click.option("--name", help="Who this is, for people.  [default: the machine and the process id]")
@click.option(
    "--drain-s",
    default=30.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Seconds that running handlers have when it is stopped; then their runs are given back.",
)
@click.option(
    "--log-level",
    default="info",
    show_default=True,
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    help="What is told on stderr.",
)
@click.option(
    "--reload",
    is_flag=True,
    help="Start again whenever a Python file under the current directory changes; runs are given back at once.",
)
@connection_options
@click.pass_context
def command(
    context: click.Context,
    connection: Connection,
    specs: tuple[str, ...],
    concurrency: int,
    queues: tuple[str, ...],
    name: str | None,
    drain_s: float,
    log_level: str,
    reload: bool,
) -> None:
    """Execute queued runs with these agents, until SIGTERM or Ctrl-C.

    Modules are found from the current directory, too: `gateway worker shop.agents:refunds`.

    \b
    Exit codes:
      0  stopped in order
      2  the command line makes no sense
      3  the gateway refused this worker
    """
    set_up_logging("text", log_level.upper())
    for chatty in ("httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    if reload:
        # What is to run as new code is not waited for.
        said = context.get_parameter_source("drain_s") is click.core.ParameterSource.COMMANDLINE
        drain = () if said else ("--drain-s", "0")
        raise click.exceptions.Exit(run_reloading(again_without("--reload", *drain), Path.cwd()))
    agents = load_agents(specs)
    client = connection.open()
    try:
        worker = Worker(
            client, agents, concurrency=concurrency, queues=list(queues) or None, name=name, drain_s=drain_s
        )
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="MODULE:AGENT") from error
    try:
        worker.main()
    except ClientError as error:
        click.echo(f"gateway worker: {explain(error)}", err=True)
        raise click.exceptions.Exit(EXIT_REFUSED) from error


def load_agents(specs: Sequence[str]) -> list[Agent]:
    """Return the agents that `module:agent` texts name, each once, from the current directory or what is installed.

    Raises:
        click.BadParameter: a text names none; a module that fails as it is imported fails as itself.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    return [_load(spec) for spec in dict.fromkeys(specs)]


def _load(spec: str) -> Agent:
    module_name, colon, name = spec.partition(":")
    if not colon or not module_name or not name:
        raise _refuse(f"{spec!r} is not of the form module:agent")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            # The module is there; something that it imports is not.
            raise
        raise _refuse(f"there is no module {error.name!r} in {Path.cwd()} or installed") from error
    try:
        agent = getattr(module, name)
    except AttributeError:
        known = sorted(key for key, value in vars(module).items() if isinstance(value, Agent))
        told = f"its agents are {', '.join(known)}" if known else "it has no agent"
        raise _refuse(f"{module_name} has no {name!r}; {told}") from None
    if not isinstance(agent, Agent):
        raise _refuse(f"{spec} is a {type(agent).__name__}, not an Agent")
    return agent


def _refuse(problem: str) -> click.BadParameter:
    return click.BadParameter(problem, param_hint="MODULE:AGENT")
