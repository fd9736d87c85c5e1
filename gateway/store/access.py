"""API key records and the signing secret, as bytes; what is in them is the service's."""

from __future__ import annotations

import logging
import os

from gateway.errors import StoreUnavailable
from gateway.store import keys
from gateway.store.link import Link
from gateway.store.scripts import SWAP_KEY, Word

logger = logging.getLogger(__name__)


class AccessStore:
    """Keys by the SHA-256 of their secret."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def put_key(self, digest: str, record_json: bytes) -> None:
        """Store a new key's record; one that is there stays as it is."""
        await self._link.call("HSETNX", keys.API_KEYS, digest, record_json)

    async def swap_key(self, digest: str, known_json: bytes, record_json: bytes) -> bool:
        """Replace a key's record and tell every process; False when it is no longer as it was read."""
        word, _ = await SWAP_KEY.call(self._link, [keys.API_KEYS], [digest, known_json, record_json])
        if word is not Word.OK:
            return False
        try:
            await self._link.call("SPUBLISH", keys.ACCESS_CHANNEL, digest)
        except StoreUnavailable:
            # It is written; without the hint others learn of it when they read the key again.
            logger.info("no process was told of a changed key")
        return True

    async def get_key(self, digest: str) -> bytes | None:
        """Return a key's record, None for an unknown key."""
        record: bytes | None = await self._link.call("HGET", keys.API_KEYS, digest)
        return record

    async def all_keys(self) -> list[bytes]:
        """Return every key's record."""
        records: list[bytes] = await self._link.call("HVALS", keys.API_KEYS)
        return records

    async def secret(self) -> bytes:
        """Return the secret that signs tickets, made once."""
        await self._link.call("SET", keys.SECRET, os.urandom(32).hex(), "NX")
        secret: bytes = await self._link.call("GET", keys.SECRET)
        return secret
