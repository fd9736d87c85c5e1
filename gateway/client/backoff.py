"""How long to wait before trying again."""

from __future__ import annotations

import random

import msgspec

_DOUBLINGS = 16


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """Full jitter under a ceiling that doubles: a thousand clients do not return in step.

    `initial_s` is the ceiling before the first repeat, until a stream's `retry:` names another;
    `max_s` bounds every ceiling, also one that the gateway asked for.
    """

    initial_s: float = 0.5
    max_s: float = 15.0

    def delay_s(self, failures: int, *, initial_s: float | None = None) -> float:
        """Return the seconds to wait after `failures` earlier attempts in a row failed (from 0)."""
        first_s = self.initial_s if initial_s is None else initial_s
        return random.uniform(0, min(self.max_s, first_s * 2 ** min(failures, _DOUBLINGS)))
