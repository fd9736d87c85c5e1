"""`gateway runs list` and `show`."""

from __future__ import annotations

from contextlib import aclosing

import click
import msgspec
from rich.console import Console

from gateway.client import Run
from gateway.client.fields import RunFilters
from gateway.commands.runs.connection import Connection, connection_options, perform
from gateway.commands.runs.views import print_run, print_table

PAGE_RUNS = 100


@click.command("list")
@click.option("--status", help="Only runs in this status, for instance running or waiting_for_input.")
@click.option("--agent", help="Only runs of this agent.")
@click.option("--thread", help="Only runs of this thread.")
@click.option("--tag", metavar="KEY:VALUE", help="Only runs with this tag.")
@click.option("--after", metavar="TIME", help="Only runs created after this RFC 3339 time.")
@click.option("--before", metavar="TIME", help="Only runs created before this RFC 3339 time.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 10_000), help="How many at most.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line instead of a table.")
@connection_options
def list_runs(connection: Connection, limit: int, as_json: bool, **filters: str | None) -> None:
    """List runs, newest first."""
    runs = perform(_fetch(connection, limit, _filters(filters)))
    if as_json:
        for run in runs:
            click.echo(msgspec.json.encode(run))
    else:
        print_table(Console(), runs)


def _filters(options: dict[str, str | None]) -> RunFilters:
    fields = {
        "agent": "agent_id",
        "thread": "thread_id",
        "after": "created_after",
        "before": "created_before",
    }
    given = {fields.get(name, name): value for name, value in options.items() if value is not None}
    return msgspec.convert(given, RunFilters)


async def _fetch(connection: Connection, limit: int, filters: RunFilters) -> list[Run]:
    runs: list[Run] = []
    async with connection.open() as client:
        found = client.runs.list(page_runs=min(limit, PAGE_RUNS), **filters)
        async with aclosing(found):
            async for run in found:
                runs.append(run)
                if len(runs) == limit:
                    break
    return runs


@click.command("show")
@click.argument("run_id")
@click.option("--json", "as_json", is_flag=True, help="The record as one JSON object.")
@connection_options
def show(connection: Connection, run_id: str, as_json: bool) -> None:
    """Show a run's record and the questions it waits on."""
    run = perform(_get(connection, run_id))
    if as_json:
        click.echo(msgspec.json.encode(run))
    else:
        print_run(Console(), run)


async def _get(connection: Connection, run_id: str) -> Run:
    async with connection.open() as client:
        return await client.runs.get(run_id)
