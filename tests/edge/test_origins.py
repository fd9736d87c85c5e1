"""Whose page a request comes from: told by browsers, compared as they write it."""

from __future__ import annotations

import pytest

from gateway.edge.origins import comes_from, is_at_home, parse_origin, told_origin

APP = "https://app.example"


def headers(**values: str) -> list[tuple[bytes, bytes]]:
    """Return headers as the server gives them."""
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in values.items()]


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        (APP, APP),
        ("HTTPS://App.Example:443", APP),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://app.example:80", "http://app.example"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("https://app.example:80", "https://app.example:80"),
    ],
)
def test_an_origin_is_written_as_browsers_write_it(text: str, origin: str) -> None:
    """In lower case, without the port that goes without saying."""
    assert parse_origin(text) == origin


NOT_ORIGINS = ["", "null", "*", "app.example", "https://", "https://a/", "https://a/b", "https://a b", "https://u@a"]
NOT_ORIGINS += ["https://é", "https://a,https://b", "//a", "https://a?b", "https://a#b", "https://a\n"]
NOT_ORIGINS += ["a://" + "b" * 300]


@pytest.mark.parametrize("text", NOT_ORIGINS)
def test_what_is_no_origin_is_told(text: str) -> None:
    """A ticket that no page could show is not made."""
    assert parse_origin(text) is None


@pytest.mark.parametrize(
    "shown",
    [
        headers(origin=APP),
        headers(origin="https://APP.example"),
        headers(host="app.example", sec_fetch_site="same-origin"),
        headers(host="APP.example:443", sec_fetch_site="same-origin"),
    ],
    ids=["named", "in capitals", "at home", "at home with its port"],
)
def test_a_page_of_the_origin_is_recognised(shown: list[tuple[bytes, bytes]]) -> None:
    """By its name, or where the browser leaves that out since it asks where it came from."""
    assert comes_from(shown, APP)


@pytest.mark.parametrize(
    "shown",
    [
        [],
        headers(origin="http://app.example"),
        headers(origin="https://app.example.evil.example"),
        headers(origin="https://app.example:444"),
        headers(origin="null"),
        headers(origin=""),
        [*headers(origin=APP), *headers(origin="https://evil.example")],
        [*headers(origin="https://evil.example"), *headers(origin=APP)],
        headers(host="app.example"),
        headers(host="app.example", sec_fetch_site="same-site"),
        headers(host="app.example", sec_fetch_site="cross-site"),
        headers(host="evil.example", sec_fetch_site="same-origin"),
        headers(origin="https://evil.example", host="app.example", sec_fetch_site="same-origin"),
        headers(sec_fetch_site="same-origin"),
        [*headers(host="app.example", sec_fetch_site="same-origin"), *headers(host="evil.example")],
    ],
    ids=str,
)
def test_no_other_request_is_taken_for_one(shown: list[tuple[bytes, bytes]]) -> None:
    """Nor one that says nothing, or two things."""
    assert not comes_from(shown, APP)


def test_two_origins_are_none_of_both() -> None:
    """No proxy and no server can read them differently."""
    assert told_origin([*headers(origin=APP), *headers(origin=APP)]) == f"{APP}, {APP}"
    assert told_origin(headers(host="app.example")) is None


@pytest.mark.parametrize(
    ("origin", "host", "home"),
    [
        ("http://localhost:8000", "localhost:8000", True),
        ("http://app.example", "app.example:80", True),
        ("https://app.example", "app.example:443", True),
        ("http://app.example", "app.example:443", False),
        ("http://localhost:8001", "localhost:8000", False),
        ("null", "", False),
        ("null", "null", False),
        ("https://", "", False),
        ("", "", False),
    ],
)
def test_a_page_is_at_home_where_it_came_from(origin: str, host: str, home: bool) -> None:
    """The scheme is not looked at: before a proxy that ends TLS it is another."""
    assert is_at_home(headers(host=host), origin) is home
