"""The API keys of a store, reached without serving: for the command line, and before there is a gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from gateway.domain.access import KeyRecord, Principal
from gateway.errors import NotFound
from gateway.service.access import Access
from gateway.settings import Settings
from gateway.store.access import AccessStore
from gateway.store.clock import StoreClock
from gateway.store.links import linked


class Keys:
    """The API keys of a store, for whoever may reach the store itself."""

    def __init__(self, access: Access, clock: StoreClock) -> None:
        self._access = access
        self._clock = clock

    async def create(
        self,
        *,
        tenant: str,
        name: str | None,
        scopes: frozenset[str],
        principal: Principal | None,
        agents: frozenset[str] | None,
        lifetime_s: int | None = None,
    ) -> tuple[str, KeyRecord]:
        """Make a key and return it, for the only time, with its record."""
        now_ms = self._clock.now_ms()
        return await self._access.create_key(
            tenant=tenant,
            name=name,
            principal=principal,
            scopes=scopes,
            agents=agents,
            now_ms=now_ms,
            expires_at_ms=None if lifetime_s is None else now_ms + lifetime_s * 1000,
        )

    async def rotate(
        self, key_id: str, /, *, overlap_s: int, lifetime_s: int | None
    ) -> tuple[str, KeyRecord, KeyRecord]:
        """Make the key that takes another's place; return it, for the only time, its record, and the old one's.

        Raises:
            NotFound, KeyEnded: there is none of that id, or it has ended.
        """
        return await self._access.rotate_key(
            None,
            key_id,
            overlap_ms=overlap_s * 1000,
            lifetime_ms=None if lifetime_s is None else lifetime_s * 1000,
            now_ms=self._clock.now_ms(),
        )

    async def list(self) -> Sequence[KeyRecord]:
        """Return every key's record, revoked ones too."""
        return await self._access.list_keys(None)

    async def revoke(self, key_id: str, /) -> bool:
        """End a key; False when there is none of that id."""
        try:
            await self._access.revoke_key(None, key_id, now_ms=self._clock.now_ms())
        except NotFound:
            return False
        return True

    async def count(self) -> int:
        """Return how many keys work."""
        return await self._access.count_keys(now_ms=self._clock.now_ms())


@asynccontextmanager
async def open_access(settings: Settings, store_url: str) -> AsyncIterator[Keys]:
    """Give the keys of a store, without serving."""
    async with linked(store_url, "gateway-keys", timeout_s=settings.store_timeout_s) as link:
        yield Keys(Access(AccessStore(link), recheck_s=settings.access_recheck_s), StoreClock())
