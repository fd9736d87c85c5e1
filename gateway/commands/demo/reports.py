"""Where published reports lie; only the newest are kept."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

REPORTS = 20
FOLDER = "demo-reports"
DEFAULT_DATA_DIR = ".gateway"
"""Where `gateway serve` keeps everything, unless it is told otherwise."""


def find_folder(environment: Mapping[str, str]) -> Path:
    """Return a folder within the gateway's data directory where that is here, else a temporary one."""
    data_dir = Path(environment.get("GATEWAY_DATA_DIR") or DEFAULT_DATA_DIR)
    if data_dir.is_dir():
        return data_dir.absolute() / FOLDER
    return Path(tempfile.gettempdir()) / f"gateway-{FOLDER}"


def save_report(path: Path, text: str) -> int:
    """Write a report, whole or not at all, and return its size in bytes.

    Raises:
        OSError: it could not be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = text.encode()
    draft = path.with_suffix(".draft")
    try:
        draft.write_bytes(content)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    for old in sorted(path.parent.glob("*.md"))[:-REPORTS]:
        # Named after their runs, whose ids are in the order of time.
        old.unlink(missing_ok=True)
    return len(content)
