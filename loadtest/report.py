"""Tables for people, and a plot beside each."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from loadtest.measuring import Row, is_noisy

BAR_PX, LINE_PX, LABEL_PX, CHART_PX = 14, 20, 330, 420
PLOTTED = ("µs/delivery", "µs/event", "p50 ms", "p99 ms", "deliveries/s", "events/s", "all after s", "KiB/reader")
COLOURS = {"gateway": "#2563eb", "nchan": "#d97706", "nchan-redis": "#b91c1c", "naive": "#6b7280", "loop": "#059669"}


def table(rows: Sequence[Row]) -> str:
    """Return rows as a Markdown table; columns in the order of the longest. Noisy rows are marked."""
    if not rows:
        return "nothing measured"
    longest: Row = max(rows, key=len)
    names = list(longest)
    cells = [names, *([_cell(row.get(name)) for name in names] for row in rows)]
    for line, row in zip(cells[1:], rows, strict=True):
        line[0] += " (noisy)" if is_noisy(row) else ""
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in cells]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def plot(title: str, rows: Sequence[Row]) -> str:
    """Return an SVG with bars for each figure that is worth seeing side by side."""
    parts: list[str] = []
    top = 30
    for name in PLOTTED:
        values = [(row, float(value)) for row in rows if isinstance(value := row.get(name), int | float)]
        most = max((value for _, value in values), default=0.0)
        if most <= 0:
            continue
        parts.append(f'<text x="8" y="{top + 14}" font-weight="bold">{escape(name)}</text>')
        top += LINE_PX
        for row, value in values:
            parts.append(_bar(top, row, value, value / most * CHART_PX))
            top += LINE_PX
        top += LINE_PX // 2
    width = LABEL_PX + CHART_PX + 100
    size = f'width="{width}" height="{top}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">'
    return "\n".join([head, f'<text x="8" y="18" font-size="14">{escape(title)}</text>', *parts, "</svg>", ""])


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` (0 to 1) of the values lie; 0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def _bar(top: int, row: Row, value: float, length: float) -> str:
    about = [str(each) for name, each in row.items() if name == "target" or not isinstance(each, float)]
    colour = COLOURS.get(str(row.get("target")), "#2563eb")
    return (
        f'<text x="{LABEL_PX - 6}" y="{top + 11}" text-anchor="end">{escape(" · ".join(about))}</text>'
        f'<rect x="{LABEL_PX}" y="{top}" width="{length:.1f}" height="{BAR_PX}" fill="{colour}"/>'
        f'<text x="{LABEL_PX + length + 5:.1f}" y="{top + 11}">{_cell(value)}</text>'
    )


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
