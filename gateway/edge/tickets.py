"""Tickets: signed, short-lived grants for browsers, whose streams cannot send headers."""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from typing import Final

import msgspec
from itsdangerous import BadSignature, Signer

from gateway.edge.origins import Headers, comes_from
from gateway.errors import TooLarge, Unauthenticated

TICKET_CHARS: Final = 4_096
_SALT: Final = b"gateway.ticket"


class TicketHolder(msgspec.Struct, frozen=True, omit_defaults=True):
    """The principal that a ticket speaks for."""

    id: str
    name: str | None = None
    email: str | None = None


class Ticket(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a ticket says; lists are sorted, so that one grant has one text. `expires_ms` is Unix time.

    With `single_use` it opens one connection; with `origin` only pages of that one may show it.
    """

    tenant: str
    principal: TicketHolder
    scopes: tuple[str, ...]
    key_id: str
    expires_ms: int
    jti: str
    agents: tuple[str, ...] | None = None
    runs: tuple[str, ...] | None = None
    thread_id: str | None = None
    single_use: bool = False
    origin: str | None = None


_decoder: Final = msgspec.json.Decoder(Ticket)


def new_ticket_id() -> str:
    """Return an id that tells one ticket from another in the audit trail."""
    return secrets.token_urlsafe(12)


def sign_ticket(ticket: Ticket, secret: bytes) -> str:
    """Return `ticket` as URL-safe text that only `secret` can make.

    Raises:
        TooLarge: it names so many runs or agents that no URL should carry it.
    """
    payload = urlsafe_b64encode(msgspec.json.encode(ticket)).rstrip(b"=")
    text = _signer(secret).sign(payload).decode("ascii")
    if len(text) > TICKET_CHARS:
        detail = f"The ticket would have {len(text):,} characters; at most {TICKET_CHARS:,} are allowed."
        raise TooLarge(detail, limit_chars=TICKET_CHARS)
    return text


def verify_ticket(text: str, secret: bytes, *, now_ms: int) -> Ticket:
    """Return what a ticket says, once its signature and its time are found good.

    Raises:
        Unauthenticated: `facts["reason"]` is bad_ticket or ticket_expired.
    """
    if len(text) > TICKET_CHARS or not text.isascii():
        raise _bad_ticket()
    try:
        payload = _signer(secret).unsign(text)
        ticket = _decoder.decode(urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
    except (BadSignature, msgspec.DecodeError, ValueError):
        raise _bad_ticket() from None
    if ticket.expires_ms <= now_ms:
        raise Unauthenticated("The ticket has expired.", reason="ticket_expired")
    return ticket


def check_origin(ticket: Ticket, headers: Headers) -> None:
    """Let a ticket pass that a page of its origin shows, or that has none.

    Raises:
        Unauthenticated: `facts["reason"]` is ticket_origin.
    """
    if ticket.origin is not None and not comes_from(headers, ticket.origin):
        raise Unauthenticated(f"The ticket is for pages of {ticket.origin}.", reason="ticket_origin")


def _signer(secret: bytes) -> Signer:
    return Signer(secret, salt=_SALT, key_derivation="hmac", digest_method=sha256)


def _bad_ticket() -> Unauthenticated:
    return Unauthenticated("The ticket is not one of this gateway's.", reason="bad_ticket")
