"""Runs as tables and paragraphs for a terminal."""

from __future__ import annotations

from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.client import Question, Run
from gateway.commands.tail.text import STATUS_STYLES, compact, printable


def print_table(console: Console, runs: list[Run]) -> None:
    """Print one line a run: when, how it stands, which agent, its title and id."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("created", no_wrap=True, min_width=19)
    table.add_column("status", no_wrap=True, min_width=max((len(run.status) for run in runs), default=0))
    table.add_column("agent")
    table.add_column("title")
    table.add_column("id", no_wrap=True, min_width=26)
    for run in runs:
        table.add_row(
            Text((run.created_at or "")[:19].replace("T", " ")),
            Text(run.status, style=STATUS_STYLES.get(run.status, "")),
            Text(printable(run.agent_id)),
            Text(printable(run.title or "")),
            Text(run.id),
        )
    console.print(table)


def print_run(console: Console, run: Run) -> None:
    """Print what a run's record says beyond the defaults, one field a line, and its open questions."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for field in msgspec.structs.fields(run):
        value = getattr(run, field.name)
        if field.name != "open_requests" and value != field.default and not _is_empty(value):
            style = STATUS_STYLES.get(run.status, "") if field.name == "status" else ""
            table.add_row(field.name, Text(_shown(value), style=style))
    for question in run.open_requests:
        table.add_row("asks", Text(_question(question), style="yellow"))
    console.print(table)


def _is_empty(value: Any) -> bool:
    return value in ("", {}) or (isinstance(value, dict) and not any(value.values()))


def _question(question: Question) -> str:
    return f"{_shown(question.prompt)}  (request {printable(question.request_id)})"


def _shown(value: Any) -> str:
    return printable(value) if isinstance(value, str) else compact(value, limit_chars=2000)
