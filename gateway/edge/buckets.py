"""How much somebody may ask for in a second: token buckets by name, a second's worth at once."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Final

MOST_NAMES: Final = 10_000
# What sums of fractions may be off by.
GRAIN_S: Final = 1e-6
UNLIMITED: Final = sys.maxsize


class Buckets:
    """One bucket for each name, kept while it is not full.

    A bucket is the moment at which it will be full again: that is all there is to remember of it.

    Args:
        rate_s: What a bucket gains in a second; 0 lets everything pass.
        clock: Seconds, monotonic.
    """

    def __init__(self, rate_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate_s = rate_s
        self._slack_s = max(0.0, 1.0 - 1.0 / rate_s) if rate_s else 0.0
        self._clock = clock
        self._full_s: dict[str, float] = {}

    def wait_s(self, name: str) -> float:
        """Return how long until `name` may take something; 0 when it may now."""
        full_s = self._full_s.get(name)
        wait_s = 0.0 if full_s is None else full_s - self._clock() - self._slack_s
        return wait_s if wait_s > GRAIN_S else 0.0

    def room(self, name: str) -> int:
        """Return how many times `name` may take one now."""
        if not self._rate_s:
            return UNLIMITED
        now_s = self._clock()
        left_s = now_s + self._slack_s - max(self._full_s.get(name, now_s), now_s)
        return max(0, math.floor((left_s + GRAIN_S) * self._rate_s) + 1)

    def take(self, name: str, amount: float = 1.0) -> None:
        """Take from the bucket of `name`, more than is in it if need be: whoever comes next waits for that."""
        if not self._rate_s:
            return
        now_s = self._clock()
        if len(self._full_s) >= MOST_NAMES:
            self._full_s = {known: full_s for known, full_s in self._full_s.items() if full_s > now_s}
        self._full_s[name] = max(self._full_s.get(name, now_s), now_s) + amount / self._rate_s
