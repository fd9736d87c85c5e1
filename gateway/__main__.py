"""The command line: a command's module is imported when that command, or the list of all, is asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Final

import click

from gateway.errors import GatewayError

# The command's name, and the module that exports it as `command`; in the order in which help shows them.
COMMANDS: Final = {
    "serve": "gateway.commands.serve",
    "keys": "gateway.commands.keys",
    "exec": "gateway.commands.exec",
    "tail": "gateway.commands.tail",
    "runs": "gateway.commands.runs",
    "readers": "gateway.commands.readers",
    "worker": "gateway.commands.worker",
    "doctor": "gateway.commands.doctor",
    "demo": "gateway.commands.demo",
    "serve-worker": "gateway.commands.serve_worker",
}


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports them by need."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return every command's name."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command, None for a name that is none."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name]).command
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="run-gateway", prog_name="gateway")
def cli() -> None:
    """A real-time gateway for agent and workflow runs: their logs, live, and their control."""


def main() -> None:
    """Run the command line; what the gateway refuses ends it with status 1 and one clear message."""
    try:
        cli(prog_name="gateway")
    except GatewayError as error:
        sys.exit(_say(error))
    except ExceptionGroup as group:
        refusals = list(_leaves(group))
        if not all(isinstance(leaf, GatewayError) for leaf in refusals):
            raise
        sys.exit("\n".join(_say(leaf) for leaf in refusals))


def _leaves(group: ExceptionGroup[Exception]) -> Iterator[Exception]:
    for error in group.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _say(error: Exception) -> str:
    return f"gateway: {error}"


if __name__ == "__main__":
    main()
