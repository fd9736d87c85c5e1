"""Tickets: good until they expire, and only as they were signed."""

from __future__ import annotations

from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import Signer

from gateway.edge.tickets import TICKET_CHARS, Ticket, TicketHolder, new_ticket_id, sign_ticket, verify_ticket
from gateway.errors import TooLarge, Unauthenticated

SECRET = b"s" * 32
TICKET = Ticket(
    tenant="default",
    principal=TicketHolder(id="ada", name="Ada"),
    scopes=("runs:read",),
    key_id="key_1",
    expires_ms=2_000,
    jti="one",
    runs=("01J0000000000000000000000A",),
)


def test_a_ticket_says_what_was_signed_until_it_expires() -> None:
    """Everything comes back, up to the last millisecond."""
    assert verify_ticket(sign_ticket(TICKET, SECRET), SECRET, now_ms=1_999) == TICKET


def test_an_expired_ticket_is_refused_as_expired() -> None:
    """A client can tell that it needs a new ticket."""
    with pytest.raises(Unauthenticated) as refused:
        verify_ticket(sign_ticket(TICKET, SECRET), SECRET, now_ms=2_000)
    assert refused.value.facts["reason"] == "ticket_expired"


def test_a_ticket_of_another_secret_is_refused() -> None:
    """Only who holds the secret makes tickets."""
    with pytest.raises(Unauthenticated) as refused:
        verify_ticket(sign_ticket(TICKET, b"other"), SECRET, now_ms=0)
    assert refused.value.facts["reason"] == "bad_ticket"


def test_a_signature_made_for_something_else_is_refused() -> None:
    """The same secret used with another salt signs no tickets."""
    text = sign_ticket(TICKET, SECRET).rpartition(".")[0]
    with pytest.raises(Unauthenticated):
        verify_ticket(Signer(SECRET, salt=b"webhooks").sign(text).decode(), SECRET, now_ms=0)


@given(st.data())
def test_a_ticket_changed_in_any_character_is_refused(data: st.DataObject) -> None:
    """A ticket cannot be stretched, widened or shortened."""
    text = sign_ticket(TICKET, SECRET)
    place = data.draw(st.integers(0, len(text) - 2))
    put = data.draw(st.sampled_from(["", "A", "b", ".", "-", "é", "\x00"]))
    changed = text[:place] + put + text[place + 1 :]
    if changed == text:
        return
    with pytest.raises(Unauthenticated) as refused:
        verify_ticket(changed, SECRET, now_ms=0)
    assert refused.value.facts["reason"] == "bad_ticket"


@given(st.text())
def test_any_text_is_refused(text: str) -> None:
    """No text makes the verifier fail otherwise than by refusing it."""
    with pytest.raises(Unauthenticated):
        verify_ticket(text, SECRET, now_ms=0)


@given(st.binary())
def test_a_signed_payload_that_is_no_ticket_is_refused(payload: bytes) -> None:
    """Even with the right signature, only a ticket is a ticket."""
    text = Signer(SECRET, salt=b"gateway.ticket", key_derivation="hmac", digest_method=sha256)
    with pytest.raises(Unauthenticated):
        verify_ticket(text.sign(payload).decode("latin-1"), SECRET, now_ms=0)


def test_a_ticket_fits_into_an_address() -> None:
    """A ticket is URL-safe, and one that no proxy would pass on is not made."""
    assert set(sign_ticket(TICKET, SECRET)) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")
    with pytest.raises(TooLarge) as refused:
        sign_ticket(msgspec.structs.replace(TICKET, runs=tuple(f"{n:026}" for n in range(200))), SECRET)
    assert refused.value.facts == {"limit_chars": TICKET_CHARS}


def test_tickets_differ_by_their_id() -> None:
    """Two tickets of one grant can be told apart in the audit trail."""
    assert new_ticket_id() != new_ticket_id()
