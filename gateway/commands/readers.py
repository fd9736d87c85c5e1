"""`gateway readers`: which streams are open, what each lacks, why, and since when."""

from __future__ import annotations

from typing import Any, Final

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.commands.runs.connection import Connection, connection_options, perform
from gateway.commands.tail.text import printable

PAGE: Final = 100
HEADINGS: Final = ("lacks", "why", "since", "sent", "of", "by", "key", "log")


@click.command("readers")
@click.option("--behind", "behind_s", type=float, metavar="SECONDS", help="Only those that lack events for so long.")
@click.option("--run", "run_id", metavar="ID", help="Only those of this run.")
@click.option("--tenant", help="Another tenant's, or * for everybody's; for operators.")
@click.option("--limit", default=PAGE, show_default=True, type=click.IntRange(1, 10_000), help="How many at most.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line instead of a table.")
@connection_options
def command(connection: Connection, limit: int, as_json: bool, **filters: Any) -> None:
    """List open streams, those of every gateway on the store, longest open first; takes a key with `admin`."""
    asked = {name: value for name, value in filters.items() if value is not None}
    readers, processes = perform(_fetch(connection, limit, asked))
    if as_json:
        for reader in readers:
            click.echo(msgspec.json.encode(reader))
    else:
        _print(Console(), readers)
    if processes["asked"] is None:
        click.echo("The store is away: these are the readers of one process.", err=True)
    elif processes["answered"] < processes["asked"]:
        click.echo(f"Only {processes['answered']} of {processes['asked']} processes answered.", err=True)


async def _fetch(
    connection: Connection, limit: int, asked: dict[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    readers: list[dict[str, Any]] = []
    async with connection.open() as client:
        while True:
            params = {**asked, "limit": min(limit - len(readers), PAGE)}
            page: dict[str, Any] = await client.request("GET", "/v1/readers", params=params)
            readers += page["data"]
            if not page["has_more"] or len(readers) >= limit:
                return readers, page["processes"]
            asked = {**asked, "cursor": page["next_cursor"]}


def _print(console: Console, readers: list[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading in ("lacks", "sent", "of") else "left")
    for reader in readers:
        first = reader["logs"][0] if reader["logs"] else {"log": "", "seq": "", "head_seq": ""}
        more = f" and {reader['log_count'] - 1} more" if reader["log_count"] > 1 else ""
        table.add_row(
            Text(str(reader["lag_events"]), style="red" if reader["behind_since"] else ""),
            Text(reader["reason"] or ""),
            Text((reader["behind_since"] or "")[11:19]),
            Text(str(first["seq"])),
            Text(str(first["head_seq"])),
            Text(f"{reader['transport']} {reader['address']}"),
            Text(printable(reader["key_id"])),
            Text(f"{printable(first['log'])}{more}"),
        )
    console.print(table)
