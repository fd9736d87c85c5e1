"""What every command that talks to a gateway shares: where it is, who asks, how it fails."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from gateway.client import DEFAULT_URL, Client, ClientError, ConnectionLost, Unauthenticated, find_key

T = TypeVar("T")

EXIT_REFUSED = 3
"""The gateway refused, or could not be reached."""
CALL_S = 10.0


class Connection(msgspec.Struct, frozen=True):
    """An address and a key, not yet connected."""

    url: str
    key: str | None

    def open(self, *, repeat_s: float | None = CALL_S) -> Client:
        """Return a client; a gateway that is away is asked again for `repeat_s` seconds.

        Raises:
            click.BadParameter: the address is none.
        """
        try:
            return Client(self.url, key=self.key, repeat_s=repeat_s)
        except (ValueError, TypeError) as error:
            raise click.BadParameter(str(error), param_hint="--url") from error


def connection_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command `--url` and `--key`, and its function one argument `connection` for both."""

    @click.option(
        "--url",
        envvar="GATEWAY_URL",
        default=DEFAULT_URL,
        show_default=True,
        show_envvar=True,
        help="The gateway's address.",
    )
    @click.option(
        "--key",
        envvar="GATEWAY_KEY",
        default=lambda: find_key(os.environ, Path.cwd()),
        show_default="the development key in ./.gateway/dev.key, if there is one",
        show_envvar=True,
        help="An API key.",
    )
    @functools.wraps(function)
    def with_connection(*args: Any, url: str, key: str | None, **options: Any) -> None:
        function(*args, connection=Connection(url, key), **options)

    return with_connection


def perform(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end and return its result.

    Raises:
        click.exceptions.Exit: with `EXIT_REFUSED`, after saying on stderr what the gateway said.
    """
    try:
        return asyncio.run(work)
    except ClientError as error:
        click.echo(f"gateway: {explain(error)}", err=True)
        raise click.exceptions.Exit(EXIT_REFUSED) from error


def explain(error: ClientError) -> str:
    """Return what went wrong and, where it is known, what to do about it."""
    match error:
        case ConnectionLost():
            return f"{error}; is `gateway serve` running there?"
        case Unauthenticated():
            return f"{error}; give a key with --key or GATEWAY_KEY"
    return "; ".join([str(error), *getattr(error, "__notes__", ())])
