"""Sentinels promote a replica in the place of a store that died or stood still."""

from __future__ import annotations

from tests.faults.bench import Bench
from tests.faults.crew import Crew

EVENTS = 40


async def kill_primary(bench: Bench, crew: Crew) -> None:
    """Kill the primary, and wait for another; afterwards it is the replica."""
    watched = bench.the_watched
    await watched.healed()
    await crew.grows(EVENTS)
    primary = await watched.primary()
    primary.kill()
    await watched.replaced(primary)
    await crew.grows(EVENTS)
    await primary.start()


async def freeze_primary(bench: Bench, crew: Crew) -> None:
    """Stop the primary without ending its connections until another has its place, and let it go on."""
    watched = bench.the_watched
    await watched.healed()
    await crew.grows(EVENTS)
    primary = await watched.primary()
    primary.freeze()
    await watched.replaced(primary)
    await crew.grows(EVENTS)
    primary.thaw()
    await crew.grows(EVENTS)
