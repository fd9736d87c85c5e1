"""Signed URLs: good for one file of one tenant until they expire, and only as they were signed."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from itsdangerous import Signer

from gateway.edge.query import Query, parse_query
from gateway.edge.signed_urls import sign_file, verify_file
from gateway.errors import SignatureInvalid, UrlExpired

SECRET = b"s" * 32
TENANT, FILE = "acme", "01J0000000000000000000000F"


def signed(tenant: str = TENANT, file_id: str = FILE, secret: bytes = SECRET, expires_s: int = 100) -> Query:
    """Return the query of a signed URL."""
    return parse_query(sign_file(tenant, file_id, secret, expires_s=expires_s).encode())


def test_a_url_opens_its_file_until_it_expires() -> None:
    """Up to the last millisecond; then it says so."""
    assert verify_file(FILE, signed(), SECRET, now_ms=99_999) == TENANT
    with pytest.raises(UrlExpired) as refused:
        verify_file(FILE, signed(), SECRET, now_ms=100_000)
    assert refused.value.facts == {"expired_at_s": 100}


@given(tenant=st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True))
def test_every_tenant_can_sign(tenant: str) -> None:
    """Whatever it is called."""
    assert verify_file(FILE, signed(tenant), SECRET, now_ms=0) == tenant


def test_a_url_of_another_file_tenant_time_or_secret_is_refused() -> None:
    """Each of them is signed."""
    owner = signed("other")["signature"][0].partition(".")[0]
    made = signed()["signature"][0].partition(".")[2]
    for file_id, query in (
        ("01J0000000000000000000000G", signed()),
        (FILE, signed(secret=b"other")),
        (FILE, {**signed(), "expires": ["101"]}),
        (FILE, {**signed(), "signature": [f"{owner}.{made}"]}),
    ):
        with pytest.raises(SignatureInvalid):
            verify_file(file_id, query, SECRET, now_ms=0)


def test_a_signature_made_for_something_else_is_refused() -> None:
    """The same secret used with another salt signs no URLs."""
    owner = signed()["signature"][0].partition(".")[0]
    ticket = Signer(SECRET, salt=b"gateway.ticket", key_derivation="hmac", digest_method=sha256)
    made = ticket.get_signature(f"{owner}\n{FILE}\n100").decode()
    with pytest.raises(SignatureInvalid):
        verify_file(FILE, {"expires": ["100"], "signature": [f"{owner}.{made}"]}, SECRET, now_ms=0)


@given(expires=st.text(max_size=20), signature=st.text(max_size=300))
def test_whatever_else_is_refused_as_unsigned(expires: str, signature: str) -> None:
    """And nothing makes the check fail."""
    assume(signature != signed()["signature"][0])
    with pytest.raises(SignatureInvalid):
        verify_file(FILE, {"expires": [expires], "signature": [signature]}, SECRET, now_ms=0)


@pytest.mark.parametrize(
    "query", [{}, {"expires": ["100"]}, {**signed(), "x": ["y"]}, {**signed(), "expires": ["1", "2"]}]
)
def test_missing_and_added_parameters_are_refused(query: Query) -> None:
    """A signed URL is used as it is."""
    with pytest.raises(SignatureInvalid):
        verify_file(FILE, query, SECRET, now_ms=0)
