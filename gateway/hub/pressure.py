"""What waits in memory for connections that do not take it: bounded, the fullest are let go first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway import telemetry
from gateway.hub.outlet import Outlet

UNSENT_BYTES: Final = 256 * 1024 * 1024


def relieve(unsent: Mapping[Outlet, int], most_bytes: int) -> int:
    """Hang up on the connections with most unsent, until the others have no more than `most_bytes`; return how many.

    Each may have a chunk and its transport's high-water mark; only so many of them at once are too much.
    Whoever is cut off comes back with its cursor, and has lost nothing.
    """
    total = sum(unsent.values())
    telemetry.UNSENT_BYTES.set(total)
    if total <= most_bytes:
        return 0
    dropped = 0
    for outlet, size in sorted(unsent.items(), key=lambda item: item[1], reverse=True):
        if total <= most_bytes:
            break
        total -= size
        outlet.close(hang_up=True)
        dropped += 1
    telemetry.REFUSED.labels("unsent_bytes").inc(dropped)
    return dropped
