"""The keys of an identity provider: read from its address or a file, kept, and read again when they change."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias
from urllib.parse import unquote, urlsplit

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey

from gateway.errors import ProviderUnavailable
from gateway.service.outbound import Fetched

logger = logging.getLogger(__name__)

Key: TypeAlias = RSAKey | ECKey | OKPKey

KEY_TYPES: Final = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    **dict.fromkeys(("ES256", "ES384", "ES512"), "EC"),
    **dict.fromkeys(("EdDSA", "Ed25519"), "OKP"),
}
"""The algorithms that are taken, and the keys that they need: none that a public key could sign with."""

FRESH_S: Final = 300.0
KEPT_S: Final = 3_600.0
RETRY_S: Final = 10.0
SET_BYTES: Final = 256 * 1024
SET_KEYS: Final = 100
TRIED_KEYS: Final = 8
RSA_BITS: Final = 2_048


class Fetch(Protocol):
    """Gets a URL."""

    async def __call__(self, url: str, /, *, limit_bytes: int) -> Fetched:
        """Return what came of it."""


class _Unreadable(Exception):
    """No keys could be read, and why."""


class ProviderKeys:
    """The signing keys of one provider.

    They are read every five minutes, and when a token names a key that is not among them, though at most every ten
    seconds: whoever sends tokens at random must not make the gateway storm the provider. While the provider is away
    its keys are good for an hour.

    Args:
        source: A file:// URL, or one that `fetch` gets.
        clock: Seconds, monotonic.
    """

    def __init__(self, source: str, fetch: Fetch, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._fetch = fetch
        self._clock = clock
        self._keys: list[Key] = []
        self._read_s = self._tried_s = float("-inf")
        self._alone = asyncio.Lock()

    async def run(self) -> None:
        """Keep the keys fresh; for ever."""
        while True:
            await self._refresh()
            fresh = self._clock() - self._read_s < FRESH_S
            await asyncio.sleep(FRESH_S if fresh else RETRY_S)

    async def find(self, algorithm: str, key_id: str | None) -> Sequence[Key]:
        """Return the keys that may have signed a token; none where it names one that the provider does not have.

        Raises:
            ProviderUnavailable: nothing is known of the provider's keys.
        """
        found = self._match(algorithm, key_id)
        if not found or self._is_old():
            await self._refresh()
            found = self._match(algorithm, key_id)
        if self._is_old():
            raise ProviderUnavailable("The identity provider's keys cannot be had; try again.", retry_after_s=10)
        return found

    def _is_old(self) -> bool:
        return self._clock() - self._read_s > KEPT_S

    def _match(self, algorithm: str, key_id: str | None) -> list[Key]:
        kind = KEY_TYPES[algorithm]
        fitting = (key for key in self._keys if key.key_type == kind and key.get("alg", algorithm) == algorithm)
        return [key for key in fitting if key_id is None or key.kid == key_id][:TRIED_KEYS]

    async def _refresh(self) -> None:
        async with self._alone:
            if self._clock() - self._tried_s < RETRY_S:
                return
            self._tried_s = self._clock()
            try:
                keys = _read_keys(await self._load())
            except _Unreadable as error:
                logger.warning("the identity provider's keys could not be read: %s", error)
                return
            self._keys, self._read_s = keys, self._clock()

    async def _load(self) -> bytes:
        if self._source.startswith("file:"):
            try:
                return await asyncio.to_thread(Path(unquote(urlsplit(self._source).path)).read_bytes)
            except OSError as error:
                raise _Unreadable(str(error)) from None
        fetched = await self._fetch(self._source, limit_bytes=SET_BYTES)
        if fetched.status != 200 or fetched.body is None:
            raise _Unreadable(fetched.error or f"status {fetched.status}")
        return fetched.body


def _read_keys(raw: bytes) -> list[Key]:
    """Return the keys of a set that can verify signatures; others may stand beside them."""
    try:
        listed = json.loads(raw)["keys"][:SET_KEYS]
    except (ValueError, TypeError, LookupError, RecursionError):
        raise _Unreadable("it is no JSON Web Key Set") from None
    keys = [key for described in listed if (key := _read_key(described)) is not None]
    if not keys:
        raise _Unreadable("none of its keys can verify a signature")
    return keys


def _read_key(described: Any) -> Key | None:
    try:
        if described["kty"] not in KEY_TYPES.values() or described.get("use", "sig") != "sig":
            return None
        (key,) = KeySet.import_key_set({"keys": [described]})
        key.check_key_op("verify")
    except (JoseError, ValueError, TypeError, LookupError, AttributeError):
        return None
    if isinstance(key, RSAKey) and key.raw_value.key_size < RSA_BITS:
        return None
    return key if isinstance(key, RSAKey | ECKey | OKPKey) else None
