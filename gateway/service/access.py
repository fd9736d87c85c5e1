"""API keys: made, shown once, revoked, and recognised without asking the store on every request."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Final, Protocol, TypeVar
from weakref import WeakValueDictionary

import msgspec
from msgspec.structs import replace
from ulid import ULID

from gateway.domain import access
from gateway.domain.access import Grant, KeyRecord, Principal
from gateway.errors import Contended, KeyEnded, NotFound, StoreUnavailable, Unauthenticated

KEY_PREFIX: Final = "gwk_"
KEY_CHARS: Final = 512
STATIC_KEY_ID: Final = "key_development"
KNOWN_KEYS: Final = 10_000
UNKNOWN_KEYS: Final = 1_000
UNKNOWN_S: Final = 1.0
STORE_RETRY_S: Final = 1.0
CHANGE_TRIES: Final = 8

T = TypeVar("T")

_encoder: Final = msgspec.json.Encoder(order="deterministic")
_decoder: Final = msgspec.json.Decoder(KeyRecord)


class AccessStore(Protocol):
    """Where keys are kept, by digest. Every method may raise StoreUnavailable."""

    async def put_key(self, digest: str, record_json: bytes) -> None:
        """Keep the record of a new key; one that is there stays as it is."""

    async def get_key(self, digest: str) -> bytes | None:
        """Return the record of one key."""

    async def all_keys(self) -> list[bytes]:
        """Return the records of all keys of all tenants, revoked ones too."""

    async def swap_key(self, digest: str, known_json: bytes, record_json: bytes) -> bool:
        """Replace the record of a key; False when it is no longer as it was read."""

    async def secret(self) -> bytes:
        """Return the secret that signs tickets, made once for all processes."""


class _Seen(msgspec.Struct, frozen=True):
    """What the store said of a key (None: there is none), and when, on the monotonic clock."""

    record: KeyRecord | None
    read_s: float


class Access:
    """The keys of all tenants.

    A key is re-read from the store once it is older than `recheck_s`. While the store is away, keys read
    before go on working: nothing can be learnt of them, and nothing can be done with them but wait.

    Args:
        static_key: the development key, which the store does not know; tenant `default`, every scope.
        token_key_id: The id in grants of an identity provider's tokens, which end by their time alone.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        store: AccessStore,
        *,
        recheck_s: float,
        static_key: str | None = None,
        token_key_id: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._recheck_s = recheck_s
        self._clock = clock
        self._token_key_id = token_key_id
        self._static = _static_record(static_key) if static_key else None
        self._known: OrderedDict[str, _Seen] = OrderedDict()
        self._unknown: OrderedDict[str, _Seen] = OrderedDict()
        self._digests: dict[str, str] = {}
        self._reading: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._store_failed_s = float("-inf")

    async def create_key(
        self,
        *,
        tenant: str,
        name: str | None,
        principal: Principal | None,
        scopes: frozenset[str],
        agents: frozenset[str] | None,
        now_ms: int,
        key_id: str | None = None,
        expires_at_ms: int | None = None,
    ) -> tuple[str, KeyRecord]:
        """Make a key and return it, for the only time, with its record; its principal is itself by default.

        Args:
            expires_at_ms: When it stops working, in Unix time; None for never.
            key_id: Of `new_key_id`, settled on before, so that a request that comes again finds its key.

        Raises:
            InvalidBody: an unknown scope, or a tenant's name out of bounds.
        """
        access.check_scopes(scopes)
        access.check_tenant(tenant)
        key = KEY_PREFIX + secrets.token_urlsafe(32)
        key_id = key_id or new_key_id()
        record = KeyRecord(
            id=key_id,
            tenant=tenant,
            name=name,
            principal=principal or Principal(id=key_id, name=name),
            scopes=scopes,
            agents=agents,
            created_at_ms=now_ms,
            revoked_at_ms=None,
            digest=digest_key(key),
            expires_at_ms=expires_at_ms,
        )
        await self._store.put_key(record.digest, _encoder.encode(record))
        self._unknown.pop(record.digest, None)
        return key, record

    async def list_keys(self, tenant: str | None) -> list[KeyRecord]:
        """Return a tenant's keys (None: all tenants'), revoked ones too, oldest first."""
        records = [record for _, record in await self._all_keys()]
        mine = [record for record in records if tenant in (None, record.tenant)]
        return sorted(mine, key=lambda record: (record.created_at_ms, record.id))

    async def find_key(self, tenant: str | None, key_id: str) -> KeyRecord | None:
        """Return the record of a key of this tenant (None: of any), None when there is none of that id."""
        return next((record for record in await self.list_keys(tenant) if record.id == key_id), None)

    async def count_keys(self, *, now_ms: int) -> int:
        """Return how many keys work; the development key does not count."""
        return sum(record.works(now_ms=now_ms) for record in await self.list_keys(None))

    async def revoke_key(self, tenant: str | None, key_id: str, *, now_ms: int) -> KeyRecord:
        """End a key of this tenant (None: of any) and return its record; a key ended before stays as it is.

        Raises:
            NotFound: the tenant has no such key.
        """

        def revoke(record: KeyRecord) -> KeyRecord:
            return record if record.revoked_at_ms is not None else replace(record, revoked_at_ms=now_ms)

        return await self._change(tenant, key_id, revoke)

    async def rotate_key(
        self,
        tenant: str | None,
        key_id: str,
        *,
        overlap_ms: int,
        lifetime_ms: int | None,
        now_ms: int,
        new_id: str | None = None,
    ) -> tuple[str, KeyRecord, KeyRecord]:
        """Make the key that takes the place of one of this tenant (None: of any), and let that one end.

        The new key is for the same principal, scopes and agents. Returns it, for the only time, its record and
        the record of the old one.

        Args:
            overlap_ms: How long the old key works on, unless it was to end before.
            lifetime_ms: How long the new key works; None: as long as the old one was made for.

        Raises:
            NotFound: the tenant has no such key.
            KeyEnded: it does not work any more, or was rotated before; `facts["rotated_to"]` says to what.
        """
        old = await self.find_key(tenant, key_id)
        if old is None:
            raise _no_key(key_id)
        _check_rotatable(old, now_ms=now_ms)
        if lifetime_ms is None and old.expires_at_ms is not None:
            lifetime_ms = old.expires_at_ms - old.created_at_ms
        key, new = await self.create_key(
            tenant=old.tenant,
            name=old.name,
            principal=old.principal,
            scopes=old.scopes,
            agents=old.agents,
            now_ms=now_ms,
            key_id=new_id,
            expires_at_ms=None if lifetime_ms is None else now_ms + lifetime_ms,
        )

        def end(record: KeyRecord) -> KeyRecord:
            _check_rotatable(record, now_ms=now_ms)
            ends_ms = min(now_ms + overlap_ms, record.expires_at_ms or now_ms + overlap_ms)
            return replace(record, expires_at_ms=ends_ms, rotated_to=new.id)

        try:
            return key, new, await self._change(tenant, key_id, end)
        except KeyEnded:
            # Somebody else was quicker: of two keys in its place one would be forgotten, and work.
            await self.revoke_key(new.tenant, new.id, now_ms=now_ms)
            raise

    async def _change(self, tenant: str | None, key_id: str, change: Callable[[KeyRecord], KeyRecord]) -> KeyRecord:
        for _ in range(CHANGE_TRIES):
            found = ((raw, known) for raw, known in await self._all_keys() if tenant in (None, known.tenant))
            raw, record = next(((raw, known) for raw, known in found if known.id == key_id), (b"", None))
            if record is None:
                raise _no_key(key_id)
            changed = change(record)
            if changed == record or await self._store.swap_key(record.digest, raw, _encoder.encode(changed)):
                self._remember(changed.digest, changed)
                return changed
        raise Contended(f"The key {key_id} is being changed by others; try again.", key_id=key_id)

    async def _all_keys(self) -> list[tuple[bytes, KeyRecord]]:
        return [(raw, _decoder.decode(raw)) for raw in await self._store.all_keys()]

    async def authenticate(self, secret: str, *, now_ms: int) -> Grant:
        """Return what the holder of this key may do.

        Raises:
            Unauthenticated: there is no such key, it was revoked, or has expired; `facts["reason"]` says which.
            StoreUnavailable: the store is away and the key was not seen before.
        """
        if len(secret) > KEY_CHARS:
            raise _unknown_key()
        digest = digest_key(secret)
        if self._static is not None and hmac.compare_digest(self._static.digest, digest):
            return access.grant_key(self._static)
        return access.grant_key(_check_record(await self._read(digest), digest, now_ms=now_ms))

    async def admit(self, grant: Grant, *, now_ms: int) -> None:
        """Let a grant pass if it has not expired and the key that it came of still works.

        Raises:
            Unauthenticated: `facts["reason"]` is ticket_expired, token_expired, unknown_key, key_revoked or
                key_expired.
            StoreUnavailable: the store is away and the key was not seen before.
        """
        if grant.expires_ms is not None and grant.expires_ms <= now_ms:
            shown = "token" if grant.kind == "token" else "ticket"
            raise Unauthenticated(f"The {shown} has expired.", reason=f"{shown}_expired")
        if grant.key_id == self._token_key_id:
            return
        if grant.key_id == STATIC_KEY_ID and self._static is not None:
            return
        digest = self._digests.get(grant.key_id) or await self._find_digest(grant.key_id)
        _check_record(await self._read(digest), digest, now_ms=now_ms)

    async def find_end(self, grant: Grant, *, now_ms: int) -> str | None:
        """Return why a stream may not go on under `grant`, as the store said within `recheck_s`; None if it may.

        None while the store is away: then nothing is streamed, and the next look decides.
        """
        try:
            await self.admit(grant, now_ms=now_ms)
        except Unauthenticated as error:
            reason: str = error.facts["reason"]
            # To whoever listened with it, a key that is gone from the store was taken away.
            return "key_revoked" if reason == "unknown_key" else reason
        except StoreUnavailable:
            return None
        return None

    def hear(self, hint: bytes) -> None:
        """Take the store's hint that the key of this digest has changed."""
        digest = hint.decode("ascii", "replace")
        if (seen := self._known.get(digest)) is not None:
            self._known[digest] = _Seen(seen.record, float("-inf"))

    async def signing_secret(self) -> bytes:
        """Return the secret that signs tickets."""
        return await self._store.secret()

    async def _read(self, digest: str) -> KeyRecord | None:
        seen = self._known.get(digest)
        if seen is not None and self._clock() - seen.read_s < self._recheck_s:
            return seen.record
        # One reader a key: a thousand streams of one key come here in the same moment.
        async with self._alone(digest):
            seen = self._known.get(digest) or self._unknown.get(digest)
            if seen is not None and self._clock() - seen.read_s < self._lasts_s(seen):
                return seen.record
            try:
                raw = await self._ask(lambda: self._store.get_key(digest))
            except StoreUnavailable:
                if seen is None or seen.record is None:
                    raise
                return seen.record
            return self._remember(digest, None if raw is None else _decoder.decode(raw))

    async def _find_digest(self, key_id: str) -> str:
        async with self._alone(key_id):
            if key_id not in self._digests:
                records = map(_decoder.decode, await self._ask(self._store.all_keys))
                record = next((record for record in records if record.id == key_id), None)
                if record is None:
                    raise _unknown_key()
                self._remember(record.digest, record)
            return self._digests[key_id]

    def _alone(self, name: str) -> asyncio.Lock:
        return self._reading.setdefault(name, asyncio.Lock())

    async def _ask(self, call: Callable[[], Awaitable[T]]) -> T:
        if self._clock() - self._store_failed_s < STORE_RETRY_S:
            raise StoreUnavailable("The store does not answer.", outcome="not_written")
        try:
            return await call()
        except StoreUnavailable:
            self._store_failed_s = self._clock()
            raise

    def _lasts_s(self, seen: _Seen) -> float:
        return self._recheck_s if seen.record is not None else min(UNKNOWN_S, self._recheck_s)

    def _remember(self, digest: str, record: KeyRecord | None) -> KeyRecord | None:
        kept, most = (self._unknown, UNKNOWN_KEYS) if record is None else (self._known, KNOWN_KEYS)
        kept[digest] = _Seen(record, self._clock())
        kept.move_to_end(digest)
        if record is not None:
            self._digests[record.id] = digest
        if len(kept) > most:
            _, evicted = kept.popitem(last=False)
            if evicted.record is not None:
                self._digests.pop(evicted.record.id, None)
        return record


def new_key_id() -> str:
    """Return the id of a key to come."""
    return f"key_{ULID()}"


def digest_key(key: str) -> str:
    """Return the digest under which a key is kept: SHA-256, in hex."""
    return sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _static_record(key: str) -> KeyRecord:
    developer = Principal(id="developer", name="Developer")
    return KeyRecord(
        id=STATIC_KEY_ID,
        tenant=access.DEFAULT_TENANT,
        name="development",
        principal=developer,
        scopes=access.SCOPES,
        agents=None,
        created_at_ms=0,
        revoked_at_ms=None,
        digest=digest_key(key),
    )


def _check_record(record: KeyRecord | None, digest: str, *, now_ms: int) -> KeyRecord:
    if record is None or not hmac.compare_digest(record.digest, digest):
        raise _unknown_key()
    if record.revoked_at_ms is not None:
        raise Unauthenticated("The key has been revoked.", reason="key_revoked")
    if not record.works(now_ms=now_ms):
        raise Unauthenticated("The key has expired.", reason="key_expired")
    return record


def _check_rotatable(record: KeyRecord, *, now_ms: int) -> None:
    if record.rotated_to is not None:
        detail = f"The key {record.id} was rotated before, to {record.rotated_to}."
        raise KeyEnded(detail, key_id=record.id, rotated_to=record.rotated_to)
    if not record.works(now_ms=now_ms):
        raise KeyEnded(f"The key {record.id} has ended; make a new one.", key_id=record.id)


def _no_key(key_id: str) -> NotFound:
    return NotFound(f"There is no key {key_id}.", key_id=key_id)


def _unknown_key() -> Unauthenticated:
    return Unauthenticated("There is no such key.", reason="unknown_key")
