"""Tokens of an identity provider: JWTs whose signature, issuer, audience and time are good become grants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

import msgspec
from joserfc import jws, jwt
from joserfc._rfc7515.model import JWSAlgModel
from joserfc.errors import JoseError, UnsupportedAlgorithmError

from gateway.domain.access import SCOPES, Grant, Principal, check_tenant
from gateway.errors import InvalidBody, Unauthenticated
from gateway.service.provider_keys import KEY_TYPES, Key, ProviderKeys

TOKEN_CHARS: Final = 8_192
NAME_CHARS: Final = 256
AGENTS: Final = 100
LATEST_S: Final = 253_402_300_799
"""The last second of the year 9999: what lies beyond is no time that could be written."""

_MALFORMED: Final = (JoseError, ValueError, TypeError, LookupError, AttributeError, RecursionError)


class _Registry(jws.JWSRegistry):
    """Takes the algorithms of `KEY_TYPES`; headers may carry a chain of certificates, which is not looked at."""

    max_header_length = 4_096

    def get_alg(self, name: str) -> JWSAlgModel:
        """Return an algorithm, without a word on which of those that are taken is the newest."""
        if name not in KEY_TYPES:
            raise UnsupportedAlgorithmError(f"{name} is not taken")
        return self.algorithms[name]


# Parameters that are not known mean nothing; those that are critical and not known are refused by it all the same.
REGISTRY: Final = _Registry(algorithms=list(KEY_TYPES), strict_check_header=False)


class TokenRules(msgspec.Struct, frozen=True, kw_only=True):
    """Whose tokens are taken, and which claims say what their holders may do."""

    issuer: str
    audience: str
    tenant_claim: str
    scopes_claim: str
    agents_claim: str
    leeway_s: int


class Tokens:
    """Verifies the tokens of one issuer."""

    def __init__(self, rules: TokenRules, keys: ProviderKeys) -> None:
        self._rules = rules
        self._keys = keys
        self.key_id = f"token_{sha256(rules.issuer.encode()).hexdigest()[:16]}"

    @staticmethod
    def looks_like_one(secret: str) -> bool:
        """Whether a credential has the three parts of a signed token; no key of ours has a dot."""
        return secret.count(".") == 2

    async def authenticate(self, text: str, *, now_ms: int) -> Grant:
        """Return what the holder of a token may do, until it expires.

        Raises:
            Unauthenticated: `facts["reason"]` is bad_token or token_expired.
            ProviderUnavailable: the provider's keys could not be had.
        """
        if len(text) > TOKEN_CHARS or not text.isascii():
            raise _bad("it is too long, or not ASCII")
        try:
            headers = jws.extract_compact(text.encode("ascii"), registry=REGISTRY).headers()
            algorithm, key_id = headers["alg"], headers.get("kid")
        except _MALFORMED:
            raise _bad("it is no signed JWT") from None
        known = isinstance(algorithm, str) and algorithm in KEY_TYPES
        if not known or not isinstance(key_id, str | None):
            raise _bad(f"its algorithm is none of {', '.join(KEY_TYPES)}")
        claims = _verify(text, await self._keys.find(algorithm, key_id))
        return self._grant(claims, now_ms / 1000)

    def _grant(self, claims: Mapping[str, Any], now_s: float) -> Grant:
        rules = self._rules
        expires_s = self._check(claims, now_s)
        subject = claims.get("sub")
        if not _is_name(subject):
            raise _bad("sub names nobody")
        tenant = claims.get(rules.tenant_claim)
        try:
            check_tenant(tenant if isinstance(tenant, str) else "")
        except InvalidBody:
            raise _bad(f"the claim {rules.tenant_claim} names no tenant") from None
        names = {name: claims[name] for name in ("name", "email") if _is_name(claims.get(name))}
        return Grant(
            tenant=str(tenant),
            principal=Principal(id=str(subject), **names),
            scopes=frozenset(_words(claims, rules.scopes_claim)) & SCOPES,
            agents=self._agents(claims),
            key_id=self.key_id,
            expires_ms=int((expires_s + rules.leeway_s) * 1000),
            kind="token",
        )

    def _check(self, claims: Mapping[str, Any], now_s: float) -> float:
        """Return when the token expires, in Unix seconds, if it is for us and its time is now."""
        rules = self._rules
        if claims.get("iss") != rules.issuer:
            raise _bad("its issuer is another")
        audience = claims.get("aud")
        if rules.audience not in (audience if isinstance(audience, list) else [audience]):
            raise _bad("it is meant for others")
        expires_s = _time(claims, "exp")
        if expires_s is None:
            raise _bad("it has no exp")
        if expires_s + rules.leeway_s <= now_s:
            raise Unauthenticated("The token has expired.", reason="token_expired")
        for name in ("nbf", "iat"):
            if (_time(claims, name) or 0) - rules.leeway_s > now_s:
                raise _bad(f"its time has not come ({name})")
        return expires_s

    def _agents(self, claims: Mapping[str, Any]) -> frozenset[str] | None:
        """Return the agents that a token is bound to; without the claim it reaches all."""
        if claims.get(self._rules.agents_claim) is None:
            return None
        agents = frozenset(_words(claims, self._rules.agents_claim))
        if not agents or len(agents) > AGENTS:
            raise _bad(f"the claim {self._rules.agents_claim} names no agents, or more than {AGENTS}")
        return agents


def _verify(text: str, keys: Sequence[Key]) -> Mapping[str, Any]:
    for key in keys:
        try:
            return jwt.decode(text, key, algorithms=list(KEY_TYPES), registry=REGISTRY).claims
        except _MALFORMED:
            continue
    raise _bad("its signature is not of the provider's keys")


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LATEST_S:
        raise _bad(f"{name} is no time")
    return value


def _words(claims: Mapping[str, Any], name: str) -> list[str]:
    """Return a claim that is a list of texts, or one text of words."""
    value = claims.get(name)
    if value is None:
        return []
    words = value.split() if isinstance(value, str) else value
    if not isinstance(words, list) or not all(_is_name(word) for word in words):
        raise _bad(f"the claim {name} is no list of words")
    return words


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= NAME_CHARS and value.isprintable()


def _bad(why: str) -> Unauthenticated:
    return Unauthenticated(f"The token is not good here: {why}.", reason="bad_token")
