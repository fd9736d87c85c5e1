"""The store's clock, as near as this process can tell: times in the log come from one place."""

from __future__ import annotations

import time

from gateway.store.link import Link


class StoreClock:
    """Unix time of the store, read now and then and carried on by the local monotonic clock."""

    def __init__(self) -> None:
        self._offset_us = int(time.time() * 1e6) - _monotonic_us()
        self._latest_ms = 0

    async def sync(self, link: Link) -> None:
        """Read the store's time; half of the round trip is taken off."""
        before = _monotonic_us()
        seconds, micros = await link.call("TIME")
        after = _monotonic_us()
        self._offset_us = int(seconds) * 1_000_000 + int(micros) - (before + after) // 2

    @property
    def ahead_s(self) -> float:
        """How far the store's clock is ahead of this machine's."""
        return (self._offset_us + _monotonic_us()) / 1e6 - time.time()

    def now_ms(self) -> int:
        """Return the store's Unix time in ms, never less than before: a reading may find that it was ahead."""
        self._latest_ms = max(self._latest_ms, (self._offset_us + _monotonic_us()) // 1000)
        return self._latest_ms


def _monotonic_us() -> int:
    return time.monotonic_ns() // 1000
