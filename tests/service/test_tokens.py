"""Tokens of an identity provider: taken when everything about them is good, refused in words when anything is not."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OKPKey, RSAKey

from gateway.errors import ProviderUnavailable, Unauthenticated
from gateway.service.outbound import Fetched
from gateway.service.provider_keys import FRESH_S, KEPT_S, RETRY_S, ProviderKeys
from gateway.service.tokens import TokenRules, Tokens
from tests.support.provider import AUDIENCE, ISSUER, Provider
from tests.support.receiver import Receiver

RULES = TokenRules(
    issuer=ISSUER,
    audience=AUDIENCE,
    tenant_claim="tenant",
    scopes_claim="scope",
    agents_claim="agents",
    leeway_s=30,
)


class House:
    """A provider, what the gateway knows of it, and a clock that is set by hand."""

    def __init__(self) -> None:
        self.provider = Provider(Receiver())
        self.now_s = 1_000.0
        self.asked = 0
        self.away: str | None = None
        self.keys = ProviderKeys("https://login.example/jwks", self.fetch, clock=lambda: self.now_s)
        self.tokens = Tokens(RULES, self.keys)

    async def fetch(self, _url: str, *, limit_bytes: int) -> Fetched:
        """Answer for the provider."""
        self.asked += 1
        assert limit_bytes > 0
        return Fetched(error=self.away) if self.away else Fetched(200, self.provider.published())

    async def take(self, text: str) -> Any:
        """Return the grant of a token."""
        return await self.tokens.authenticate(text, now_ms=time.time_ns() // 1_000_000)

    async def reason(self, text: str) -> str:
        """Return why a token is refused."""
        with pytest.raises(Unauthenticated) as refused:
            await self.take(text)
        assert text not in refused.value.detail
        reason: str = refused.value.facts["reason"]
        return reason


@pytest.fixture
def house() -> House:
    """A provider with one key."""
    return House()


def part(value: Any) -> str:
    """Return a part of a token."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


async def test_a_good_token_is_a_grant(house: House) -> None:
    """Tenant, principal, scopes and agents are those of its claims, and it ends with the token."""
    expires_s = int(time.time()) + 60
    grant = await house.take(
        house.provider.sign(
            exp=expires_s, name="Ada", email="ada@example.org", scope="runs:read openid admin", agents=["a", "b"]
        )
    )
    assert (grant.tenant, grant.kind, grant.key_id) == ("acme", "token", house.tokens.key_id)
    assert (grant.principal.id, grant.principal.name, grant.principal.email) == ("ada", "Ada", "ada@example.org")
    assert grant.scopes == {"runs:read", "admin"}
    assert grant.agents == {"a", "b"}
    assert grant.expires_ms == (expires_s + 30) * 1000


async def test_scopes_may_be_a_list_and_unknown_ones_mean_nothing(house: House) -> None:
    """Providers write them either way; without any, a token opens nothing."""
    assert (await house.take(house.provider.sign(scope=["runs:input", "email"]))).scopes == {"runs:input"}
    assert (await house.take(house.provider.sign(scope=None))).scopes == frozenset()


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"iss": "https://elsewhere.example"}, "bad_token"),
        ({"iss": ISSUER + "/"}, "bad_token"),
        ({"aud": "another"}, "bad_token"),
        ({"aud": None}, "bad_token"),
        ({"aud": ["another", "third"]}, "bad_token"),
        ({"exp": None}, "bad_token"),
        ({"exp": 1}, "token_expired"),
        ({"exp": "tomorrow"}, "bad_token"),
        ({"exp": True}, "bad_token"),
        ({"exp": 10**30}, "bad_token"),
        ({"exp": float("inf")}, "bad_token"),
        ({"exp": float("nan")}, "bad_token"),
        ({"nbf": 4_000_000_000}, "bad_token"),
        ({"iat": 4_000_000_000}, "bad_token"),
        ({"sub": None}, "bad_token"),
        ({"sub": ""}, "bad_token"),
        ({"sub": "ada\r\nX-Admin: 1"}, "bad_token"),
        ({"sub": ["ada"]}, "bad_token"),
        ({"tenant": None}, "bad_token"),
        ({"tenant": "a/b"}, "bad_token"),
        ({"tenant": ["acme"]}, "bad_token"),
        ({"tenant": "gw:{x}"}, "bad_token"),
        ({"agents": []}, "bad_token"),
        ({"agents": [1]}, "bad_token"),
        ({"agents": {"a": 1}}, "bad_token"),
        ({"scope": 7}, "bad_token"),
    ],
)
async def test_a_signed_token_with_a_bad_claim_is_refused(house: House, claims: dict[str, Any], reason: str) -> None:
    """However well it is signed."""
    assert await house.reason(house.provider.sign(**claims)) == reason


async def test_clocks_may_differ_by_the_leeway(house: House) -> None:
    """A token that expired, or begins, within it is good."""
    now_s = int(time.time())
    await house.take(house.provider.sign(exp=now_s - 20))
    await house.take(house.provider.sign(nbf=now_s + 20, iat=now_s + 20, aud=["x", AUDIENCE]))


async def test_no_algorithm_that_a_public_key_could_sign_with_is_taken(house: House) -> None:
    """Neither none, nor an HMAC under the text of the public key, whatever the header says."""
    public = house.provider.keys["one"]
    payload = house.provider.sign().split(".")[1]
    assert isinstance(public, RSAKey)
    secrets = (
        public.as_pem(private=False),
        house.provider.published(),
        json.dumps(public.as_dict(private=False)).encode(),
    )
    for alg in ("none", "None", "NONE", ""):
        assert await house.reason(f"{part({'alg': alg, 'kid': 'one'})}.{payload}.") == "bad_token"
    for secret in secrets:
        head = f"{part({'alg': 'HS256', 'kid': 'one', 'typ': 'JWT'})}.{payload}"
        made = hmac.digest(secret, head.encode(), hashlib.sha256)
        assert await house.reason(f"{head}.{part(made)}") == "bad_token"
    good = house.provider.sign().split(".")
    assert await house.reason(f"{good[0]}.{good[1]}.") == "bad_token"
    assert await house.reason(f"{good[0]}.{part({'sub': 'eve'})}.{good[2]}") == "bad_token"


@pytest.mark.parametrize(
    "header",
    [
        {"jwk": {"kty": "oct", "k": "AAAA"}},
        {"jku": "https://evil.example/jwks"},
        {"x5u": "https://evil.example/cert"},
    ],
)
async def test_a_key_that_a_token_brings_along_is_not_looked_at(house: House, header: dict[str, Any]) -> None:
    """Only the provider says which keys are its own."""
    house.provider.keys["evil"] = RSAKey.generate_key(2048, {"kid": "evil"})
    forged = house.provider.sign(kid="evil", header={**header, "kid": "one"})
    del house.provider.keys["evil"]
    assert await house.reason(forged) == "bad_token"


async def test_a_critical_parameter_that_is_not_understood_refuses(house: House) -> None:
    """RFC 7515, section 4.1.11."""
    payload = house.provider.sign().split(".")[1]
    head = part({"alg": "RS256", "kid": "one", "crit": ["exp"], "exp": 1})
    assert await house.reason(f"{head}.{payload}.{part(b'x' * 256)}") == "bad_token"


@pytest.mark.parametrize("alg", ["PS256", "ES256", "EdDSA"])
async def test_other_kinds_of_key_are_taken(house: House, alg: str) -> None:
    """Each with its own algorithm."""
    kinds: dict[str, Any] = {
        "PS256": RSAKey.generate_key(2048, {"kid": "k"}),
        "ES256": ECKey.generate_key("P-256", {"kid": "k"}),
        "EdDSA": OKPKey.generate_key("Ed25519", {"kid": "k"}),
    }
    house.provider.keys["k"] = kinds[alg]
    assert (await house.take(house.provider.sign(kid="k", alg=alg))).tenant == "acme"


async def test_a_weak_or_secret_key_of_the_set_verifies_nothing(house: House) -> None:
    """What else a provider publishes stands beside its keys and is left alone."""
    good = house.provider.keys["one"].as_dict(private=False)
    strange: list[Any] = [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "s"},
        {"kty": "new"},
        7,
        {},
        {"kty": "RSA", "n": "AQAB"},
    ]
    house.provider.published = lambda: json.dumps({"keys": [*strange, good]}).encode()  # type: ignore[method-assign]
    assert (await house.take(house.provider.sign())).tenant == "acme"
    head = f"{part({'alg': 'HS256', 'kid': 's'})}.{house.provider.sign().split('.')[1]}"
    assert await house.reason(f"{head}.{part(hmac.digest(b'secret', head.encode(), 'sha256'))}") == "bad_token"


async def test_a_new_key_is_found_when_a_token_names_it(house: House) -> None:
    """A provider that rotates its keys is asked again, but not for every token of a stranger."""
    await house.take(house.provider.sign())
    assert house.asked == 1
    house.provider.keys["two"] = RSAKey.generate_key(2048, {"kid": "two"})
    token = house.provider.sign(kid="two")
    assert await house.reason(token) == "bad_token"
    house.now_s += RETRY_S
    await house.take(token)
    assert house.asked == 2
    house.provider.keys["never"] = RSAKey.generate_key(2048, {"kid": "never"})
    stranger = house.provider.sign(kid="never")
    del house.provider.keys["never"]
    for _ in range(50):
        assert await house.reason(stranger) == "bad_token"
    assert house.asked == 2


async def test_a_provider_that_is_away_is_told_from_a_bad_token(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """Without its keys nobody can be judged; with those it had, all go on for a while."""
    house.away = "timeout"
    with pytest.raises(ProviderUnavailable):
        await house.take(house.provider.sign())
    assert "could not be read: timeout" in caplog.text
    house.away = None
    house.now_s += RETRY_S
    await house.take(house.provider.sign())
    house.away = "connect_failed"
    house.now_s += KEPT_S - 1
    await house.take(house.provider.sign())
    house.now_s += 2
    with pytest.raises(ProviderUnavailable):
        await house.take(house.provider.sign())


async def test_a_withdrawn_key_ends(house: House) -> None:
    """Once the set was read again, its tokens are no good."""
    token = house.provider.sign()
    await house.take(token)
    house.provider.keys = {"two": RSAKey.generate_key(2048, {"kid": "two"})}
    house.now_s += FRESH_S
    await house.take(house.provider.sign(kid="two"))
    assert await house.reason(token) == "bad_token"


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[]}', b"\xff", b"[" * 5_000])
async def test_a_set_that_is_none_is_told(house: House, tmp_path: Path, content: bytes) -> None:
    """From a file as from an address."""
    file = tmp_path / "keys of us.json"
    file.write_bytes(content)
    keys = ProviderKeys(file.as_uri(), house.fetch)
    with pytest.raises(ProviderUnavailable):
        await Tokens(RULES, keys).authenticate(house.provider.sign(), now_ms=0)
    file.write_bytes(house.provider.published())
    await Tokens(RULES, ProviderKeys(file.as_uri(), house.fetch)).authenticate(
        house.provider.sign(), now_ms=time.time_ns() // 1_000_000
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(head=st.binary(max_size=200), payload=st.binary(max_size=50), tail=st.text(max_size=50))
async def test_any_text_is_refused(house: House, head: bytes, payload: bytes, tail: str) -> None:
    """And fails nothing."""
    for text in (
        f"{part(head)}.{part(payload)}.{tail}",
        f"{part({'alg': 'RS256', 'kid': tail})}.{part(payload)}.{tail}",
    ):
        assert await house.reason(text) == "bad_token"


@pytest.mark.parametrize(
    "header", [b'{"a":' * 700 + b"1" + b"}" * 700, b"[" * 3_000, b'{"alg":["RS256"]}', b'{"alg":{}}']
)
async def test_a_header_made_to_break_readers_is_refused(house: House, header: bytes) -> None:
    """Nested as deeply as its length allows, or of another shape."""
    assert await house.reason(f"{part(header)}.{part({})}.AAAA") == "bad_token"
