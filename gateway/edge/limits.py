"""What one request may cost, and what all requests of a process may cost together.

`IdentifiedRequests` gives every request a `Visit`; whoever learns who asks admits it, whoever reads its body has the
bytes counted, and both end with the request. Limits are those of one process: it asks nobody else.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from typing import Final

import msgspec
from starlette.types import Scope

from gateway import telemetry
from gateway.edge.buckets import Buckets
from gateway.edge.ledger import Ledger
from gateway.edge.plain import find_header
from gateway.edge.turns import Turn, Turns
from gateway.errors import TooManyRequests

_KEY: Final = "visit"


class Rates(msgspec.Struct, frozen=True):
    """What a key or tenant may ask for in a second; 0 is no limit."""

    key_requests_s: float = 0.0
    tenant_requests_s: float = 0.0
    key_bytes_s: float = 0.0


class Limits:
    """The limits of one process.

    Args:
        bodies_bytes: What the bodies of all requests may take in memory.
    """

    def __init__(self, rates: Rates, turns: Turns, *, bodies_bytes: int) -> None:
        self.turns = turns
        self.bodies = Ledger(bodies_bytes)
        self._key_requests = Buckets(rates.key_requests_s)
        self._tenant_requests = Buckets(rates.tenant_requests_s)
        self._key_bytes = Buckets(rates.key_bytes_s)
        self._unlimited = rates == Rates()

    def room(self, tenant: str, key_id: str, *, operator: bool) -> int:
        """Return how many requests would be let pass now, one after another."""
        key_room = self._key_requests.room(key_id)
        return key_room if operator else min(key_room, self._tenant_requests.room(tenant))

    def charge(self, tenant: str, key_id: str, size: int, *, operator: bool) -> None:
        """Count a request of `size` bytes; an operator's is not held against its tenant.

        Raises:
            TooManyRequests: its key or tenant has asked for too much in the last second.
        """
        if self._unlimited:
            return
        asked = [("key_requests_s", self._key_requests, key_id), ("key_bytes_s", self._key_bytes, key_id)]
        if not operator:
            asked.append(("tenant_requests_s", self._tenant_requests, tenant))
        for limit, buckets, name in asked:
            wait_s = buckets.wait_s(name)
            if wait_s > 0:
                telemetry.REFUSED.labels(limit).inc()
                detail = f"Too much was asked for: come back in {math.ceil(wait_s)} s."
                raise TooManyRequests(detail, limit=limit, retry_after_s=math.ceil(wait_s))
        self.owe(tenant, key_id, size, operator=operator)

    def owe(self, tenant: str, key_id: str, size: int, *, operator: bool, requests: int = 1) -> None:
        """Count requests that are let pass in any case: whoever comes next waits for them."""
        self._key_requests.take(key_id, requests)
        if size:
            self._key_bytes.take(key_id, size)
        if not operator:
            self._tenant_requests.take(tenant, requests)

    def owe_bytes(self, key_id: str, size: int) -> float:
        """Count bytes that a key has sent, and return for how long it is to send no more, in seconds."""
        self._key_bytes.take(key_id, size)
        return self._key_bytes.wait_s(key_id)


class Visit:
    """One request under its limits, or one command of a WebSocket."""

    __slots__ = ("_charged", "_held_bytes", "_key_id", "_limits", "_tenant", "_told_size", "_turn")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._tenant = ""
        self._key_id = ""
        self._charged = self._told_size = False
        self._turn: Turn | None = None
        self._held_bytes = 0

    async def admit(self, tenant: str, key_id: str, size: int, *, operator: bool) -> None:
        """Count the request once, and wait for its turn.

        Args:
            size: What its body will have, where it says so.
            operator: Whether its key may administer the tenant.

        Raises:
            TooManyRequests: it is to come back later.
        """
        if not self._charged:
            self._limits.charge(tenant, key_id, size, operator=operator)
            self._charged, self._tenant, self._key_id, self._told_size = True, tenant, key_id, size > 0
        if self._turn is None:
            turns = self._limits.turns
            self._turn = turns.enter_now(tenant) or await turns.enter(tenant)

    def count(self, size: int) -> float:
        """Count what has come of a body that did not say its size; returns for how long its key is to send no more.

        A body that said it is counted already.
        """
        return self._limits.owe_bytes(self._key_id, size) if self._charged and not self._told_size else 0.0

    async def hold(self, size: int) -> None:
        """Have so many bytes in memory until the request ends.

        Raises:
            Overloaded: there is no room for them.
        """
        if not self._limits.bodies.take_now(self._tenant, size):
            await self._limits.bodies.take(self._tenant, size)
        self._held_bytes += size

    def rest(self) -> None:
        """Let another have the turn: the answer has begun."""
        if self._turn is not None:
            self._limits.turns.leave(self._turn)
            self._turn = None

    def end(self) -> None:
        """Hold nothing any more."""
        self.rest()
        if self._held_bytes:
            self._limits.bodies.give_back(self._tenant, self._held_bytes)
            self._held_bytes = 0


def begin_visit(scope: Scope, limits: Limits) -> Visit:
    """Return the visit that a request begins."""
    visit = scope["state"][_KEY] = Visit(limits)
    return visit


def visit_of(scope: Scope) -> Visit | None:
    """Return the visit of a request; None where nothing is limited."""
    visit: Visit | None = scope.get("state", {}).get(_KEY)
    return visit


async def keep_pace(scope: Scope, size: int) -> None:
    """Count what has come of a body that goes on, and let its sender wait for as long as its key has sent too much."""
    visit = visit_of(scope)
    wait_s = 0.0 if visit is None else visit.count(size)
    if wait_s > 0:
        telemetry.REFUSED.labels("key_bytes_s").inc()
        await asyncio.sleep(wait_s)


def announced_bytes(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """Return the size that a request gives of its body, 0 where it gives none that can be read."""
    length = find_header(headers, b"content-length") or ""
    return int(length[:20]) if length.isdecimal() and length.isascii() else 0
