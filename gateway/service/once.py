"""Doing once what comes again under its idempotency key, where no run's log is there to remember it."""

from __future__ import annotations

import msgspec

from gateway.errors import IdempotencyMismatch
from gateway.service.actors import Caller, fingerprint_of
from gateway.store.indexes import IndexStore
from gateway.store.keys import digest


class _Kept(msgspec.Struct, frozen=True):
    fingerprint: str
    value: str


class Once:
    """Remembers, a tenant and action, what was decided under an idempotency key.

    Args:
        lifetime_ms: How long it is remembered.
    """

    def __init__(self, indexes: IndexStore, *, lifetime_ms: int) -> None:
        self._indexes = indexes
        self._lifetime_ms = lifetime_ms

    async def settle(self, caller: Caller, action: str, body: object, value: str) -> str:
        """Return what stands for this request: `value`, or what an earlier one under the same key settled on.

        Raises:
            IdempotencyMismatch: the earlier one had another body.
        """
        if caller.idempotency_key is None:
            return value
        mine = _Kept(fingerprint_of(action, body), value)
        known = await self._indexes.settle(
            caller.tenant, digest(action, caller.idempotency_key), msgspec.json.encode(mine), self._lifetime_ms
        )
        return _agree(msgspec.json.decode(known, type=_Kept), mine.fingerprint)

    async def settled(self, caller: Caller, action: str, body: object) -> str | None:
        """Return what an earlier request under the same key settled on, None when there was none.

        Raises:
            IdempotencyMismatch: the earlier one had another body.
        """
        if caller.idempotency_key is None:
            return None
        known = await self._indexes.settled(caller.tenant, digest(action, caller.idempotency_key))
        if known is None:
            return None
        return _agree(msgspec.json.decode(known, type=_Kept), fingerprint_of(action, body))

    async def forget(self, caller: Caller, action: str) -> None:
        """Let the key be used anew: what was decided under it was undone."""
        if caller.idempotency_key is not None:
            await self._indexes.unsettle(caller.tenant, digest(action, caller.idempotency_key))


def _agree(kept: _Kept, fingerprint: str) -> str:
    if kept.fingerprint != fingerprint:
        raise IdempotencyMismatch("This idempotency key was used before with another body.")
    return kept.value
