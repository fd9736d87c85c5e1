"""How soon tests try again."""

from __future__ import annotations

from gateway.client import Backoff

SOON = Backoff(initial_s=0.01, max_s=0.05)
"""Tests do not wait as long between attempts as programs should."""
