"""`gateway keys`: make, list, rotate and revoke API keys, straight in the store, whether a gateway runs or not."""

from __future__ import annotations

import os
import re
import time
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
HEADINGS: Final = ("ID", "TENANT", "NAME", "SCOPES", "AGENTS", "MADE", "EXPIRES", "STATE")
_DURATION: Final = re.compile(r"([0-9]{1,9})([smhd])")
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


@click.group()
@click.option("--data-dir", help="Where the embedded store is.  [env: GATEWAY_DATA_DIR; default: .gateway]")
@click.pass_context
def command(context: click.Context, data_dir: str | None) -> None:
    """Make, list, rotate and revoke API keys.

    They are read from and written to the store itself: that of a running gateway, or the files it left.
    """
    given = {variable("data_dir"): data_dir} if data_dir is not None else {}
    context.obj = load({**os.environ, **given})


def _read_duration(_context: click.Context, option: click.Parameter, given: str | None) -> int | None:
    """Return a duration such as 90d, 12h, 30m or 45s in seconds."""
    if given is None:
        return None
    found = _DURATION.fullmatch(given)
    if found is None:
        raise click.BadParameter(f"{given!r} is no duration such as 90d, 12h, 30m or 45s.", param=option)
    return int(found[1]) * _UNITS_S[found[2]]


LIFETIME: Final = click.option(
    "--expires-in",
    "lifetime_s",
    callback=_read_duration,
    metavar="DURATION",
    help="How long the key works, such as 90d.  [default: for ever]",
)


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
@LIFETIME
@click.pass_obj
def create(
    settings: Settings,
    tenant: str,
    name: str | None,
    scopes: tuple[str, ...],
    agents: tuple[str, ...],
    principal: str | None,
    email: str | None,
    lifetime_s: int | None,
) -> None:
    """Make a key and print it, for the only time."""

    async def make(keys: Keys) -> tuple[str, KeyRecord]:
        return await keys.create(
            tenant=tenant,
            name=name,
            scopes=frozenset(scopes),
            principal=Principal(id=principal, name=name, email=email) if principal else None,
            agents=frozenset(agents) or None,
            lifetime_s=lifetime_s,
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
@click.option(
    "--overlap",
    "overlap_s",
    callback=_read_duration,
    metavar="DURATION",
    default="24h",
    show_default=True,
    help="How long the old key works on; 0s ends it at once.",
)
@LIFETIME
@click.pass_obj
def rotate(settings: Settings, key_id: str, overlap_s: int, lifetime_s: int | None) -> None:
    """Make the key that takes the place of KEY_ID, and print it, for the only time.

    It has the same tenant, principal, scopes and agents; without --expires-in it works as long as the old one was
    made for. The old key ends after the overlap, with the streams that were opened with it.
    """
    secret, new, old = perform(settings, lambda keys: keys.rotate(key_id, overlap_s=overlap_s, lifetime_s=lifetime_s))
    click.echo(f"Key {new.id} takes the place of {old.id}, which works until {_moment(old.expires_at_ms)}.", err=True)
    click.echo(secret)


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
        _moment(record.created_at_ms),
        _moment(record.expires_at_ms),
        _state(record),
    )


def _state(record: KeyRecord) -> str:
    if record.revoked_at_ms is not None:
        return "revoked"
    return "works" if record.works(now_ms=time.time_ns() // 1_000_000) else "expired"


def _moment(at_ms: int | None) -> str:
    return "never" if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def render(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines of aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
