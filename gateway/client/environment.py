"""Where the gateway is and who asks, when nobody says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

DEFAULT_URL = "http://127.0.0.1:8000"
DEV_KEY_FILE = Path(".gateway/dev.key")


def find_key(environment: Mapping[str, str], directory: Path) -> str | None:
    """Return the key of `GATEWAY_KEY`, else the development key that `gateway serve` left in `directory`."""
    if key := environment.get("GATEWAY_KEY", "").strip():
        return key
    try:
        return (directory / DEV_KEY_FILE).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def find_url(environment: Mapping[str, str]) -> str:
    """Return the address of `GATEWAY_URL`, else that of a gateway on this machine."""
    return environment.get("GATEWAY_URL", "").strip() or DEFAULT_URL
