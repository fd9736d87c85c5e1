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
        fingerprint = fingerprint_of(action, body)
        known = await self._indexes.settle(
            caller.tenant, digest(action, caller.idempotency_key), _encode(fingerprint, value), self._lifetime_ms
        )
        return _agree(msgspec.json.decode(known, type=_Kept), fingerprint)

    async def begin(self, caller: Caller, action: str, body: object, *, within_ms: int) -> str | None:
        """Note that a request is under way; returns None, or what stands for one that came before: '' while that is
        under way itself.

        Args:
            within_ms: After so long it is taken for dead.

        Raises:
            IdempotencyMismatch: the earlier one had another body.
        """
        if caller.idempotency_key is None:
            return None
        fingerprint = fingerprint_of(action, body)
        known = await self._indexes.begin(
            caller.tenant, digest(action, caller.idempotency_key), _encode(fingerprint, ""), within_ms
        )
        return None if known is None else _agree(msgspec.json.decode(known, type=_Kept), fingerprint)

    async def conclude(
        self, caller: Caller, action: str, body: object, value: str, *, lifetime_ms: int | None = None
    ) -> str:
        """Return what stands for this request from now on: `value`, or what another under the same key came to.

        Args:
            value: '' for nothing: the key is free again.
            lifetime_ms: How long it is remembered, where that is less than usual.
        """
        if caller.idempotency_key is None:
            return value
        fingerprint = fingerprint_of(action, body)
        known = await self._indexes.conclude(
            caller.tenant,
            digest(action, caller.idempotency_key),
            _encode(fingerprint, ""),
            _encode(fingerprint, value) if value else b"",
            self._lifetime_ms if lifetime_ms is None else lifetime_ms,
        )
        return value if known is None else _agree(msgspec.json.decode(known, type=_Kept), fingerprint)

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


def _encode(fingerprint: str, value: str) -> bytes:
    return msgspec.json.encode(_Kept(fingerprint, value))


def _agree(kept: _Kept, fingerprint: str) -> str:
    if kept.fingerprint != fingerprint:
        raise IdempotencyMismatch("This idempotency key was used before with another body.")
    return kept.value
