"""`gateway tail`: a run, live, in a terminal or a pipe."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import click
import msgspec
from rich.console import Console

from gateway.client import Client, StreamItem
from gateway.commands.runs.connection import Connection, connection_options, perform
from gateway.commands.tail.view import View


@click.command("tail")
@click.argument("run_id")
@click.option("--after", metavar="CURSOR", help="Begin after this cursor or event number.")
@click.option("--types", metavar="TYPE,…", help="Only events of these types.")
@click.option("--json", "as_json", is_flag=True, help="One event a line as JSON, with its cursor.")
@click.option("--no-follow", is_flag=True, help="Stop at what the log has now.")
@connection_options
def command(
    connection: Connection,
    run_id: str,
    after: str | None,
    types: str | None,
    as_json: bool,
    no_follow: bool,
) -> None:
    """Show a run as it happens, until it ends. Outlives restarts of the gateway.

    \b
    Exit codes:
      0    the run completed (with --no-follow: or goes on)
      1    the run ended in any other way
      2    the command line makes no sense
      3    the gateway refused, or could not be reached
      130  interrupted; the run goes on
    """
    view = View(Console())
    show = _print_json if as_json else view.show
    try:
        status = perform(_tail(connection, run_id, after, types, show, follow=not no_follow))
    except KeyboardInterrupt:
        raise click.exceptions.Exit(130) from None
    finally:
        view.close()
    going_on = no_follow and status is None
    raise click.exceptions.Exit(0 if going_on or status == "completed" else 1)


async def _tail(
    connection: Connection,
    run_id: str,
    after: str | None,
    types: str | None,
    show: Callable[[StreamItem], None],
    *,
    follow: bool,
) -> str | None:
    """Show the run's events and return the status that it ended with, None while it goes on."""
    async with connection.open() as client:
        # A gateway that is not there at all is said at once; a stream would wait for its return.
        await client.runs.get(run_id)
        async with aclosing(_items(client, run_id, after, types, follow=follow)) as items:
            async for item in items:
                show(item)
        run = await client.runs.get(run_id)
    return run.status if run.ended else None


def _items(
    client: Client, run_id: str, after: str | None, types: str | None, *, follow: bool
) -> AsyncGenerator[StreamItem, None]:
    wanted = types.split(",") if types else None
    if follow:
        return client.runs.events(run_id, after=after, types=wanted)
    return client.runs.log(run_id, after=after, types=wanted)


def _print_json(item: StreamItem) -> None:
    click.echo(msgspec.json.encode(item))
