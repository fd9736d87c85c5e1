"""The credential that a request carries."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.edge.auth import Credential, find_credential, require_credential
from gateway.errors import BadRequest, Unauthenticated

KEY = Credential("key", "gwk_a")


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer gwk_a")],
        [(b"authorization", b"bearer  gwk_a ")],
        [(b"x-api-key", b"gwk_a")],
        [(b"x-api-key", b"gwk_a"), (b"authorization", b"Bearer gwk_a")],
        [(b"accept", b"*/*"), (b"x-api-key", b"gwk_a"), (b"x-api-key", b"gwk_a")],
    ],
)
def test_a_key_may_come_in_either_header(headers: list[tuple[bytes, bytes]]) -> None:
    """Bearer and x-api-key mean the same, also together."""
    assert find_credential(headers, {}) == KEY


@pytest.mark.parametrize(
    ("headers", "tickets"),
    [
        ([(b"x-api-key", b"a"), (b"authorization", b"Bearer b")], []),
        ([(b"x-api-key", b"a"), (b"x-api-key", b"b")], []),
        ([(b"x-api-key", b"a")], ["a"]),
        ([], ["a", "b"]),
    ],
)
def test_two_credentials_that_differ_are_refused(headers: list[tuple[bytes, bytes]], tickets: list[str]) -> None:
    """The gateway never picks one of two identities."""
    with pytest.raises(BadRequest, match="two credentials"):
        find_credential(headers, {"ticket": tickets}, tickets=True)


def test_a_ticket_opens_what_cannot_send_headers() -> None:
    """Where tickets are honoured, the query may carry one."""
    assert find_credential([], {"ticket": ["t"]}, tickets=True) == Credential("ticket", "t")


def test_a_ticket_elsewhere_is_refused() -> None:
    """A URL that a browser remembers never opens a write."""
    with pytest.raises(BadRequest, match="streams only"):
        find_credential([], {"ticket": ["t"]})


@pytest.mark.parametrize("value", [b"Basic dXNlcjpwYXNz", b"gwk_a", b""])
def test_another_scheme_is_not_taken_for_a_key(value: bytes) -> None:
    """Only Bearer is understood, and the refusal says so."""
    with pytest.raises(Unauthenticated) as refused:
        find_credential([(b"authorization", value)], {})
    assert refused.value.facts["reason"] == "bad_scheme"


@pytest.mark.parametrize("headers", [[], [(b"x-api-key", b" ")], [(b"authorization", b"Bearer")]])
def test_a_request_without_a_credential_is_told_how_to_send_one(headers: list[tuple[bytes, bytes]]) -> None:
    """None and an empty one are the same."""
    with pytest.raises(Unauthenticated, match="Bearer <key>") as refused:
        require_credential(headers, {})
    assert refused.value.facts["reason"] == "no_credential"


def test_a_secret_is_not_shown() -> None:
    """A credential that ends up in a log line or a traceback does not tell its secret."""
    assert "gwk_a" not in f"{KEY} {KEY!r}"


@given(st.lists(st.tuples(st.sampled_from([b"authorization", b"x-api-key", b"host"]), st.binary())), st.booleans())
def test_any_headers_are_a_credential_or_a_refusal(headers: list[tuple[bytes, bytes]], tickets: bool) -> None:
    """No header makes the search fail, and what is found is never empty."""
    with contextlib.suppress(BadRequest, Unauthenticated):
        assert require_credential(headers, {}, tickets=tickets).secret
