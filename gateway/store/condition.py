"""How a store is set up and how it fares, as it says itself; the judgement is left to whoever reads it."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping
from typing import Final

import msgspec
from redis.exceptions import ResponseError

from gateway.store import keys
from gateway.store.link import Argument, Link
from gateway.store.wire import open_wire

PINGS: Final = 30
CLOCK_READS: Final = 5
CONFIG_NAMES: Final = ("appendfsync", "save", "timeout", "maxclients", "min-replicas-to-write")
# What the gateway cannot do without, in a form that changes nothing.
NEEDED: Final[Mapping[str, tuple[Argument, ...]]] = {
    "EVAL": ("EVAL", "return 1", 0),
    "EVALSHA": ("EVALSHA", "0" * 40, 0),
    "SPUBLISH": ("SPUBLISH", keys.probe_channel("doctor"), ""),
}


class StoreCondition(msgspec.Struct, frozen=True, kw_only=True):
    """What a store says of itself, and what was measured of it.

    Args:
        info: The fields of `INFO`.
        config: What `CONFIG GET` told; None where it may not be asked, as with many hosted stores.
        clock_ahead_ms: How far its clock is ahead of this machine's, give or take half of the fastest round trip.
        round_trips_ms: Of pings, one after the other.
        refused: The commands that the gateway needs and that its user may not give.
        cluster_state: What `CLUSTER INFO` calls its state; None of a store that is no cluster.
    """

    info: Mapping[str, str]
    config: Mapping[str, str] | None
    clock_ahead_ms: float
    round_trips_ms: tuple[float, ...]
    refused: tuple[str, ...]
    cluster_state: str | None

    @property
    def median_ms(self) -> float:
        """The usual round trip."""
        return statistics.median(self.round_trips_ms)


async def read_condition(link: Link) -> StoreCondition:
    """Ask a store how it is; nothing in it changes.

    Raises:
        StoreUnavailable: it did not answer.
    """
    round_trips_ms = [await _time_ping_ms(link) for _ in range(PINGS)]
    info = _fields(await link.call("INFO", "ALL"))
    return StoreCondition(
        info=info,
        config=await _read_config(link),
        clock_ahead_ms=await _read_clock_ahead_ms(link),
        round_trips_ms=tuple(round_trips_ms),
        refused=tuple([name for name, command in NEEDED.items() if await _is_refused(link, command)]),
        cluster_state=await _read_cluster_state(link) if info.get("cluster_enabled") == "1" else None,
    )


async def _time_ping_ms(link: Link) -> float:
    began = time.perf_counter()
    await link.call("PING")
    return (time.perf_counter() - began) * 1_000


async def _read_clock_ahead_ms(link: Link) -> float:
    """Return the difference of the reading that took the least time: it is the least uncertain."""
    readings = []
    for _ in range(CLOCK_READS):
        before_s = time.time()
        seconds, micros = await link.call("TIME")
        after_s = time.time()
        ahead_s = int(seconds) + int(micros) / 1e6 - (before_s + after_s) / 2
        readings.append((after_s - before_s, ahead_s * 1_000))
    return min(readings)[1]


async def _read_config(link: Link) -> Mapping[str, str] | None:
    found: dict[str, str] = {}
    for name in CONFIG_NAMES:
        try:
            reply = await link.call("CONFIG", "GET", name)
        except ResponseError:
            return None
        words = [word.decode(errors="replace") for word in reply]
        found |= dict(zip(words[::2], words[1::2], strict=True))
    return found


async def find_trouble(url: str) -> str | None:
    """Return in the system's or the store's own words why no connection stands; None when one does, or nobody says."""
    try:
        wire = await open_wire(url, "gateway-doctor")
    except TimeoutError:
        return "nothing answers in time"
    except OSError as error:
        # A name that is not found has a number below zero, which the system has no words for.
        return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    except ResponseError as error:
        return str(error)
    except ValueError:
        return None
    wire.close()
    return None


async def _is_refused(link: Link, command: tuple[Argument, ...]) -> bool:
    try:
        await link.call(*command)
    except ResponseError as error:
        # An unknown script is the answer of a store that would run a known one.
        return "NOSCRIPT" not in str(error) and type(error).__name__ != "NoScriptError"
    return False


async def _read_cluster_state(link: Link) -> str | None:
    try:
        return _fields(await link.call("CLUSTER", "INFO")).get("cluster_state")
    except ResponseError:
        return None


def _fields(reply: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in reply.decode(errors="replace").splitlines() if not line.startswith("#"))
    return {name: value for name, colon, value in lines if colon}
