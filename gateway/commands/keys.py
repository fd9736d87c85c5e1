"""`gateway keys`: make, list and revoke API keys, straight in the store, whether a gateway runs or not."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final, TypeVar

import anyio
import click

from gateway.domain.access import (
    DEFAULT_TENANT,
    RUNS_INPUT,
    RUNS_READ,
    RUNS_WRITE,
    SCOPES,
    KeyRecord,
    Principal,
)
from gateway.errors import NotFound
from gateway.keyring import Keys, open_access
from gateway.settings import Settings, load, variable
from gateway.store.embedded import borrow_store

T = TypeVar("T")
HEADINGS: Final = ("ID", "TENANT", "NAME", "SCOPES", "AGENTS", "MADE", "STATE")


@click.group()
@click.option("--data-dir", help="Where the embedded store is.  [env: GATEWAY_DATA_DIR; default: .gateway]")
@click.pass_context
def command(context: click.Context, data_dir: str | None) -> None:
    """Make, list and revoke API keys.

    They are read from and written to the store itself: that of a running gateway, or the files it left.
    """
    given = {variable("data_dir"): data_dir} if data_dir is not None else {}
    context.obj = load({**os.environ, **given})


@command.command()
@click.option("--tenant", default=DEFAULT_TENANT, show_default=True, help="Whose runs the key reaches.")
@click.option("--name", help="What the key is for.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(sorted(SCOPES)),
    default=(RUNS_READ, RUNS_WRITE, RUNS_INPUT),
    show_default=True,
    help="What its holder may do; repeatable.",
)
@click.option("--agent", "agents", multiple=True, help="An agent it is bound to; repeatable.  [default: all]")
@click.option("--principal", help="Id of who acts with it, in the audit trail.  [default: the key's id]")
@click.option("--email", help="E-mail address of the principal.")
@click.pass_obj
def create(
    settings: Settings,
    tenant: str,
    name: str | None,
    scopes: tuple[str, ...],
    agents: tuple[str, ...],
    principal: str | None,
    email: str | None,
) -> None:
    """Make a key and print it, for the only time."""

    async def make(keys: Keys) -> tuple[str, KeyRecord]:
        return await keys.create(
            tenant=tenant,
            name=name,
            scopes=frozenset(scopes),
            principal=Principal(id=principal, name=name, email=email) if principal else None,
            agents=frozenset(agents) or None,
        )

    secret, record = perform(settings, make)
    click.echo(f"Key {record.id} of tenant {record.tenant}; it is not shown again:", err=True)
    click.echo(secret)


@command.command(name="list")
@click.pass_obj
def list_keys(settings: Settings) -> None:
    """List all keys of all tenants, revoked ones too; never the keys themselves."""
    records = perform(settings, lambda keys: keys.list())
    click.echo(render([HEADINGS, *(describe(record) for record in records)]))


@command.command()
@click.argument("key_id")
@click.pass_obj
def revoke(settings: Settings, key_id: str) -> None:
    """End the key KEY_ID; streams that were opened with it end within seconds."""
    if not perform(settings, lambda keys: keys.revoke(key_id)):
        raise NotFound(f"There is no key {key_id}.", key_id=key_id)
    click.echo(f"Key {key_id} is revoked.", err=True)


def perform(settings: Settings, work: Callable[[Keys], Awaitable[T]]) -> T:
    """Return what `work` returns when it is given the keys of the configured store."""

    async def run() -> T:
        async with reach_store(settings) as store_url, open_access(settings, store_url) as keys:
            return await work(keys)

    return anyio.run(run)


@asynccontextmanager
async def reach_store(settings: Settings) -> AsyncIterator[str]:
    """Yield the URL of the configured store, else of the embedded one, started for the moment if need be."""
    if settings.redis_url is not None:
        yield settings.redis_url
        return
    async with borrow_store(settings.data_dir, fsync=settings.embedded_fsync) as url:
        yield url


def describe(record: KeyRecord) -> tuple[str, ...]:
    """Return a key's line of the list."""
    return (
        record.id,
        record.tenant,
        record.name or "",
        " ".join(sorted(record.scopes)),
        "all" if record.agents is None else " ".join(sorted(record.agents)),
        datetime.fromtimestamp(record.created_at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M"),
        "works" if record.revoked_at_ms is None else "revoked",
    )


def render(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines of aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
