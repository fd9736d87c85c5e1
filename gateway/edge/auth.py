"""The credential that a request carries: an API key in a header, or a ticket in the query."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from gateway.edge.query import Query
from gateway.errors import BadRequest, Unauthenticated


class Credential(msgspec.Struct, frozen=True):
    """What a caller shows: `kind` says who can verify `secret`, which no log or message may hold."""

    kind: Literal["key", "ticket"]
    secret: str

    def __repr__(self) -> str:
        return f"Credential(kind={self.kind!r})"


def find_credential(
    headers: Iterable[tuple[bytes, bytes]], query: Query, *, tickets: bool = False
) -> Credential | None:
    """Return the one credential of a request, or None where it carries none.

    Args:
        headers: the ASGI scope's, names in lower case.
        tickets: whether `?ticket=` is honoured here (streams and WebSockets, which cannot send headers).

    Raises:
        BadRequest: two credentials that differ, or a ticket where none is honoured.
        Unauthenticated: an Authorization header that is no Bearer token.
    """
    found = {Credential("key", key) for key in _keys(headers)}
    shown = query.get("ticket", ())
    if shown and not tickets:
        raise BadRequest("A ticket opens streams only; send an API key here.", parameter="ticket")
    found |= {Credential("ticket", ticket) for ticket in shown}
    if len(found) > 1:
        raise BadRequest("The request carries two credentials that differ; send one.")
    return found.pop() if found else None


def require_credential(headers: Iterable[tuple[bytes, bytes]], query: Query, *, tickets: bool = False) -> Credential:
    """Return the one credential of a request; see `find_credential`.

    Raises:
        Unauthenticated: there is none, or it is empty.
    """
    credential = find_credential(headers, query, tickets=tickets)
    if credential is None or not credential.secret:
        detail = "Send an API key as Authorization: Bearer <key> or x-api-key: <key>."
        raise Unauthenticated(detail, reason="no_credential")
    return credential


def _keys(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[str]:
    for name, value in headers:
        if name == b"x-api-key":
            yield value.decode("latin-1").strip()
        elif name == b"authorization":
            scheme, _, token = value.decode("latin-1").strip().partition(" ")
            if scheme.lower() != "bearer":
                raise Unauthenticated("The Authorization header is no Bearer token.", reason="bad_scheme")
            yield token.strip()
