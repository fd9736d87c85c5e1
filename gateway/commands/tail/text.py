"""Foreign text made fit for a terminal."""

from __future__ import annotations

import re
from typing import Any

import msgspec

STATUS_STYLES = {
    "running": "cyan",
    "waiting_for_input": "yellow",
    "paused": "yellow",
    "cancelling": "yellow",
    "completed": "green",
    "cancelled": "magenta",
    "failed": "red",
    "timed_out": "red",
    "crashed": "red",
    "system_failed": "red",
    "dead_letter": "red",
    "expired": "red",
}
"""How each status is coloured; the others are not."""

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Return `text` without what would move the cursor, recolour or retitle the terminal.

    Of a line that overwrites itself with carriage returns, as progress bars do, the last state stays.
    """
    plain = _ESCAPES.sub("", text)
    if "\r" in plain:
        plain = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in plain.split("\n"))
    return _CONTROLS.sub("�", plain)


def compact(value: Any, *, limit_chars: int = 160) -> str:
    """Return a JSON value on one line, cut to `limit_chars`; text goes without its quotes."""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    text = printable(text).replace("\n", " ⏎ ")
    return text if len(text) <= limit_chars else text[: limit_chars - 1] + "…"


def duration(duration_ms: Any) -> str:
    """Return milliseconds as people read them: 85 ms, 1.2 s, 3 min 20 s; empty when it is no number."""
    if isinstance(duration_ms, bool) or not isinstance(duration_ms, int | float):
        return ""
    if duration_ms < 1000:
        return f"{duration_ms:.0f} ms"
    if duration_ms < 60_000:
        return f"{duration_ms / 1000:.1f} s"
    minutes, rest_ms = divmod(duration_ms, 60_000)
    return f"{minutes:.0f} min {rest_ms / 1000:.0f} s"
