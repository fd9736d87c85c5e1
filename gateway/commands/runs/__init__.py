"""`gateway runs`: find runs and steer them."""

from __future__ import annotations

import click

from gateway.commands.runs.finding import list_runs, show
from gateway.commands.runs.steering import answer, cancel, pause, resume


class _ListsByDefault(click.Group):
    """A group that means `list` when no command is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] != "--help"):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group("runs", cls=_ListsByDefault)
def command() -> None:
    """Find runs and steer them; without a command: list them.

    \b
    Exit codes:
      0  done
      2  the command line makes no sense
      3  the gateway refused, or could not be reached
    """


for _subcommand in (list_runs, show, cancel, pause, resume, answer):
    command.add_command(_subcommand)
