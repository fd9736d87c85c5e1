"""Tables for people."""

from __future__ import annotations

from collections.abc import Sequence


def table(rows: Sequence[dict[str, object]]) -> str:
    """Return rows as a Markdown table; columns in the order of the first row."""
    if not rows:
        return "nothing measured"
    names = list(rows[0])
    cells = [names, *([_cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in cells]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` (0 to 1) of the values lie; 0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def _cell(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
