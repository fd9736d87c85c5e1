"""`gateway exec`: any program as a live run."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress

import click

from gateway.client import ClientError
from gateway.commands.exec.outcome import EXIT_RECORDER
from gateway.commands.exec.recording import Order, run_command
from gateway.commands.runs.connection import Connection, connection_options, explain


class _Pattern(click.ParamType[re.Pattern[str]]):
    name = "regex"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> re.Pattern[str]:
        try:
            return re.compile(value)
        except re.error as error:
            self.fail(f"{value!r} is no regular expression: {error}", param, ctx)


class _Tag(click.ParamType[tuple[str, str]]):
    name = "tag"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        key, equals, content = value.partition("=")
        if not key or not equals:
            self.fail(f"a tag looks like key=value, not {value!r}", param, ctx)
        return key, content


@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.option("--title", help="The run's title.  [default: the command line]")
@click.option("--agent", default="exec", show_default=True, help="The agent that the run is of.")
@click.option("--tag", "tags", metavar="KEY=VALUE", multiple=True, type=_Tag(), help="A tag; repeatable.")
@click.option("--thread", metavar="ID", help="The thread that the run belongs to.")
@click.option(
    "--ask",
    metavar="REGEX",
    type=_Pattern(),
    help="A last line of output that matches is a question: when the program falls silent after it, the "
    "run waits for input, and the answer is typed into the program's standard input.",
)
@click.option(
    "--patience-s",
    default=3600.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="How many seconds output waits for a gateway that is away.",
)
@click.option("--quiet", is_flag=True, help="Do not repeat the output here.")
@click.argument("argv", metavar="COMMAND [ARG]…", nargs=-1, required=True, type=click.UNPROCESSED)
@connection_options
def command(
    connection: Connection,
    title: str | None,
    agent: str,
    tags: tuple[tuple[str, str], ...],
    thread: str | None,
    ask: re.Pattern[str] | None,
    patience_s: float,
    quiet: bool,
    argv: tuple[str, ...],
) -> None:
    """Run COMMAND as a live run: its output is the run's log, its exit status the run's end.

    Cancelling the run terminates the command (TERM, then KILL), pausing stops it and resuming lets it
    go on.
    Without --ask its standard input is empty.
    It finds the run's id in GATEWAY_RUN_ID and the gateway in GATEWAY_URL.
    Ctrl-C asks the command to stop, a second one forces it.

    \b
    Exit codes:
      those of COMMAND; 128 + n when signal n ended it
      2    the command line makes no sense
      125  the run could not be created; COMMAND was not started
      126  COMMAND cannot be executed
      127  COMMAND was not found
    """
    order = Order(
        argv=list(argv),
        url=connection.url,
        agent_id=agent,
        title=title,
        tags=dict(tags),
        thread_id=thread,
        ask=ask,
        patience_s=patience_s,
        quiet=quiet,
    )
    raise click.exceptions.Exit(asyncio.run(_run(connection, order)))


async def _run(connection: Connection, order: Order) -> int:
    async with connection.open() as client:
        try:
            return await run_command(client, order, _say)
        except ClientError as error:
            _say(explain(error))
            return EXIT_RECORDER


def _say(sentence: str) -> None:
    # A terminal that is gone does not end the recording.
    with suppress(OSError):
        click.echo(f"gateway: {sentence}", err=True)
