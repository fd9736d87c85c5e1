"""What many faults came to, as a table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.faults.playing import Played

BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->\n"
HEAD = (
    "| fault | times | appended | delivered | lost, and told | **lost** | **repeated** "
    "| longest pause of writers | of readers |\n"
    "|---|--:|--:|--:|--:|--:|--:|--:|--:|\n"
)


def render_table(all_played: Iterable[Played], untried: Mapping[str, str]) -> str:
    """Return a row for each fault and one for all, and after them what was not tried and why."""
    by_fault: defaultdict[str, list[Played]] = defaultdict(list)
    for played in all_played:
        by_fault[played.fault].append(played)
    rows = [_row(fault, times) for fault, times in by_fault.items()]
    rows.append(_row("**all**", [played for times in by_fault.values() for played in times]))
    notes = [f"- Not tried on this machine: {fault} ({why}).\n" for fault, why in untried.items()]
    return HEAD + "".join(rows) + ("\n" if notes else "") + "".join(notes)


def _row(name: str, times: list[Played]) -> str:
    cells = [
        name,
        len(times),
        f"{sum(played.appended for played in times):,}",
        f"{sum(played.delivered for played in times):,}",
        f"{sum(played.told_lost for played in times):,}",
        f"{sum(played.lost for played in times):,}",
        f"{sum(played.repeated for played in times):,}",
        f"{max((played.write_pause_s for played in times), default=0):.2f} s",
        f"{max((played.read_pause_s for played in times), default=0):.2f} s",
    ]
    return f"| {' | '.join(map(str, cells))} |\n"


def put_into(page: Path, heading: str, table: str) -> None:
    """Put a heading line and a table between a page's marks, or at the end of a page that has none."""
    text = page.read_text() if page.exists() else ""
    before, mark, rest = text.partition(BEGIN)
    after = rest.partition(END)[2] if mark else ""
    page.write_text(f"{before}{BEGIN}\n{heading}\n\n{table}\n{END}{after}")
