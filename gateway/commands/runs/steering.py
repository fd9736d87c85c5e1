"""`gateway runs cancel`, `pause`, `resume` and `answer`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import click
import msgspec

from gateway.client import ApiError, Client, Run
from gateway.commands.runs.connection import Connection, connection_options, perform


@click.command("cancel")
@click.argument("run_id")
@click.option("--reason", help="Why, for whoever reads the log.")
@click.option("--force", is_flag=True, help="Do not wait for the program to confirm.")
@connection_options
def cancel(connection: Connection, run_id: str, reason: str | None, force: bool) -> None:
    """Ask a run to stop."""
    if reason is None:
        _steer(connection, lambda client: client.runs.cancel(run_id, force=force))
    else:
        _steer(connection, lambda client: client.runs.cancel(run_id, force=force, reason=reason))


@click.command("pause")
@click.argument("run_id")
@connection_options
def pause(connection: Connection, run_id: str) -> None:
    """Let a run stand still until it is resumed."""
    _steer(connection, lambda client: client.runs.pause(run_id))


@click.command("resume")
@click.argument("run_id")
@connection_options
def resume(connection: Connection, run_id: str) -> None:
    """Let a paused run go on."""
    _steer(connection, lambda client: client.runs.resume(run_id))


@click.command("answer")
@click.argument("run_id")
@click.argument("content")
@click.option("--request", "request_id", metavar="ID", help="Which question, when several are open.")
@click.option("--json", "is_json", is_flag=True, help="CONTENT is JSON; otherwise it is taken as text.")
@connection_options
def answer(connection: Connection, run_id: str, content: str, request_id: str | None, is_json: bool) -> None:
    """Answer the question that a run waits on."""
    value = _parse(content) if is_json else content
    perform(_answer(connection, run_id, value, request_id))


async def _answer(connection: Connection, run_id: str, content: Any, request_id: str | None) -> None:
    async with connection.open() as client:
        try:
            answered = await client.runs.input(run_id, content, request_id=request_id)
        except ApiError as error:
            if error.code == "invalid_body" and isinstance(content, str) and _is_json(content):
                error.add_note(f"{content} was sent as text, --json sends it as JSON")
            raise
    click.echo(f"{run_id} took the answer to {answered.request_id} as event {answered.seq}")


def _is_json(content: str) -> bool:
    try:
        msgspec.json.decode(content)
    except msgspec.DecodeError:
        return False
    return True


def _parse(content: str) -> Any:
    try:
        return msgspec.json.decode(content)
    except msgspec.DecodeError as error:
        raise click.BadParameter(str(error), param_hint="CONTENT") from error


def _steer(connection: Connection, act: Callable[[Client], Awaitable[Run]]) -> None:
    run = perform(_perform_on(connection, act))
    click.echo(f"{run.id} is {run.status}")


async def _perform_on(connection: Connection, act: Callable[[Client], Awaitable[Run]]) -> Run:
    async with connection.open() as client:
        return await act(client)
