"""How a store is set up and how it fares, as it says itself; the judgement is left to whoever reads it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Final

import msgspec
from redis.exceptions import ResponseError

from gateway.errors import StoreUnavailable
from gateway.store.link import Link
from gateway.store.links import linked
from gateway.store.rights import StoreTooOld, find_refused
from gateway.store.slots import NoLayout, SlotMap
from gateway.store.store_url import Kind, read_url

PINGS: Final = 30
CLOCK_READS: Final = 5
CONFIG_NAMES: Final = ("appendfsync", "save", "timeout", "maxclients", "min-replicas-to-write")


class StoreCondition(msgspec.Struct, frozen=True, kw_only=True):
    """What a store says of itself, and what was measured of it.

    Args:
        info: The fields of `INFO`.
        config: What `CONFIG GET` told; None where it may not be asked, as with many hosted stores.
        clock_ahead_ms: How far its clock is ahead of this machine's, give or take half of the fastest round trip.
        round_trips_ms: Of pings, one after the other.
        refused: The commands that the gateway needs and that its user may not give; None of a store that is too old
            to tell.
        cluster_state: What `CLUSTER INFO` calls its state; None of a store that is no cluster.
        info_refused: Whether `INFO` may not be asked.
        cluster_primaries: How many nodes of the cluster have slots; 0 of a store that is no cluster.
    """

    info: Mapping[str, str]
    config: Mapping[str, str] | None
    clock_ahead_ms: float
    round_trips_ms: tuple[float, ...]
    refused: tuple[str, ...] | None
    cluster_state: str | None
    cluster_primaries: int = 0
    info_refused: bool = False

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
    info = await _read_info(link)
    cluster = await _read_cluster(link) if info is None or info.get("cluster_enabled") == "1" else {}
    return StoreCondition(
        info=info or {},
        info_refused=info is None,
        config=await _read_config(link),
        clock_ahead_ms=await _read_clock_ahead_ms(link),
        round_trips_ms=tuple(round_trips_ms),
        refused=await _read_refused(link),
        cluster_state=cluster.get("cluster_state"),
        cluster_primaries=int(cluster.get("cluster_size", 0)),
    )


async def read_conditions(url: str, name: str, *, timeout_s: float) -> dict[str, StoreCondition]:
    """Ask a server, or each primary of a cluster, how it is; by its address, empty for what is no cluster.

    Raises:
        StoreUnavailable: the store did not answer.
    """
    store = read_url(url)
    if store.kind is not Kind.CLUSTER:
        async with linked(url, name, timeout_s=timeout_s) as link:
            return {"": await read_condition(link)}
    slots = SlotMap(store, name)
    try:
        await slots.refresh()
    except NoLayout as error:
        raise StoreUnavailable(f"The store cannot be reached: {error}.", outcome="not_written") from error
    conditions = {}
    for address in sorted(slots.nodes):
        async with linked(store.node(address), name, timeout_s=timeout_s) as link:
            conditions[address] = await read_condition(link)
    return conditions


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


async def _read_refused(link: Link) -> tuple[str, ...] | None:
    try:
        return tuple(await find_refused(link))
    except StoreTooOld:
        return None


async def _read_info(link: Link) -> dict[str, str] | None:
    try:
        return _fields(await link.call("INFO", "ALL"))
    except ResponseError:
        return None


async def _read_cluster(link: Link) -> dict[str, str]:
    try:
        return _fields(await link.call("CLUSTER", "INFO"))
    except ResponseError:
        return {}


def _fields(reply: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in reply.decode(errors="replace").splitlines() if not line.startswith("#"))
    return {name: value for name, colon, value in lines if colon}
