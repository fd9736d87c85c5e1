"""Query parameters: typed, or refused by name with what is allowed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.edge import query as q
from gateway.errors import BadRequest


def ask(**values: str | list[str]) -> q.Query:
    """Return the query that asks for these."""
    return q.parse_query(urlencode(values, doseq=True).encode())


READERS: list[tuple[Callable[[q.Query, str], Any], str, Any]] = [
    (lambda query, name: q.read_text(query, name, max_chars=9), "abc", "abc"),
    (lambda query, name: q.read_choice(query, name, ["open", "closed"]), "open", "open"),
    (lambda query, name: q.read_int(query, name, low=1, high=100), "100", 100),
    (lambda query, name: q.read_seconds(query, name, low=0, high=60), "1.5", 1.5),
    (q.read_flag, "true", True),
    (q.read_time_ms, "1970-01-01T00:00:01.5Z", 1_500),
    (q.read_object, '{"a":[1]}', {"a": [1]}),
]


@pytest.mark.parametrize(("read", "text", "value"), READERS)
def test_a_parameter_has_its_type(read: Callable[[q.Query, str], Any], text: str, value: Any) -> None:
    """A good value is what its reader says, a missing one nothing."""
    assert read(ask(p=text), "p") == value
    assert read(ask(other=text), "p") in (None, False)


@pytest.mark.parametrize(("read", "text", "value"), READERS)
def test_a_parameter_given_twice_is_refused(read: Callable[[q.Query, str], Any], text: str, value: Any) -> None:
    """Two values for one question are never answered by picking one."""
    with pytest.raises(BadRequest, match="p is given 2 times"):
        read(ask(p=[text, text]), "p")


@pytest.mark.parametrize(
    ("read", "text", "allowed"),
    [
        (lambda query, name: q.read_text(query, name, max_chars=9), "x" * 10, "at most 9 characters"),
        (lambda query, name: q.read_choice(query, name, ["open", "closed"]), "ajar", "one of open, closed"),
        (lambda query, name: q.read_int(query, name, low=1, high=100), "0", "an integer from 1 to 100"),
        (lambda query, name: q.read_int(query, name, low=1, high=100), "101", "an integer from 1 to 100"),
        (lambda query, name: q.read_int(query, name, low=1, high=100), "1.0", "an integer from 1 to 100"),
        (lambda query, name: q.read_int(query, name, low=1, high=100), "", "an integer from 1 to 100"),
        (lambda query, name: q.read_int(query, name, low=1, high=100), "٣", "an integer from 1 to 100"),
        (lambda query, name: q.read_int(query, name, low=1, high=100), "9" * 4_000, "an integer from 1 to 100"),
        (lambda query, name: q.read_seconds(query, name, low=0, high=60), "60.1", "a number of seconds from 0 to 60"),
        (lambda query, name: q.read_seconds(query, name, low=0, high=60), "nan", "a number of seconds from 0 to 60"),
        (lambda query, name: q.read_seconds(query, name, low=0, high=60), "-1", "a number of seconds from 0 to 60"),
        (q.read_flag, "maybe", "true or false"),
        (q.read_time_ms, "yesterday", "an RFC 3339 time such as 2026-11-22T08:00:00Z"),
        (q.read_time_ms, "2026-11-22", "an RFC 3339 time such as 2026-11-22T08:00:00Z"),
        (q.read_time_ms, "2026-11-22T08:00:00", "an RFC 3339 time from 1970 on, with its offset or Z"),
        (q.read_time_ms, "0001-01-01T00:00:00+14:00", "an RFC 3339 time from 1970 on, with its offset or Z"),
        (q.read_pairs, "novalue", "key:value, at most 4096 characters"),
        (q.read_pairs, ":v", "key:value, at most 4096 characters"),
        (lambda query, name: q.read_choices(query, name, ["a", "b"]), "a,c", "any of a, b"),
        (lambda query, name: q.read_many(query, name, max_chars=2), "ab,abc", "at most 2 characters"),
    ],
)
def test_a_bad_value_is_refused_with_what_is_allowed(
    read: Callable[[q.Query, str], Any], text: str, allowed: str
) -> None:
    """The refusal names the parameter, the value (never more than its beginning) and the allowed range."""
    with pytest.raises(BadRequest) as refused:
        read(ask(p=text), "p")
    facts = refused.value.facts
    assert (facts["parameter"], facts["allowed"]) == ("p", allowed)
    assert len(facts["value"]) <= q.TOLD_CHARS + 1


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"a":1e999}', "{" * 1_000, "null"])
def test_a_parameter_that_is_no_object_is_refused(text: str) -> None:
    """A JSON parameter is an object, and the refusal says what is wrong with it."""
    with pytest.raises(BadRequest) as refused:
        q.read_object(ask(p=text), "p")
    assert refused.value.facts["allowed"].startswith("a JSON object (")


@pytest.mark.parametrize(("text", "value"), [("1", True), ("TRUE", True), ("", True), ("0", False), ("false", False)])
def test_a_flag_may_be_said_in_few_ways(text: str, value: bool) -> None:
    """`?p`, `?p=1` and `?p=true` mean the same."""
    assert q.read_flag(ask(p=text), "p", default=not value) is value


def test_several_values_are_repeated_or_joined() -> None:
    """`p=a&p=b,c` asks for three."""
    assert q.read_many(ask(p=["a", "b,c,"]), "p") == ["a", "b", "c"]
    assert q.read_choices(ask(p="a,b"), "p", ["a", "b"]) == ["a", "b"]
    assert q.read_many(ask(), "p") == []


def test_several_values_have_a_bound() -> None:
    """A list in a query is not endless."""
    with pytest.raises(BadRequest, match="at most 100"):
        q.read_many(ask(p=",".join(map(str, range(101)))), "p")


def test_pairs_split_at_their_first_colon() -> None:
    """A value may hold colons; the same pair twice is one pair."""
    assert q.read_pairs(ask(p=["a:b:c", "d:", "d:"]), "p") == {"a": "b:c", "d": ""}


def test_pairs_that_contradict_are_refused() -> None:
    """One key cannot have two values at once."""
    with pytest.raises(BadRequest, match="one value for each key"):
        q.read_pairs(ask(p=["a:1", "a:2"]), "p")


def test_pairs_have_a_bound() -> None:
    """A filter has at most twenty pairs."""
    with pytest.raises(BadRequest, match="at most 20"):
        q.read_pairs(ask(p=[f"{key}:1" for key in range(21)]), "p")


@given(st.datetimes(datetime(1971, 1, 1), datetime(9998, 1, 1)), st.integers(-23 * 60, 23 * 60), st.booleans())  # noqa: DTZ001
def test_a_time_is_the_same_moment_in_every_offset(moment: datetime, minutes: int, escaped: bool) -> None:
    """An offset counts, and its plus sign may come unescaped, as people write it."""
    at = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    text = quote(at.isoformat(), safe=":" if escaped else ":+")
    expected = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    assert q.read_time_ms(q.parse_query(f"p={text}".encode()), "p") == expected


def test_an_unknown_parameter_is_refused() -> None:
    """A mistyped filter does not silently widen a list."""
    q.refuse_unknown(ask(limit="1"), ["limit", "cursor"])
    with pytest.raises(BadRequest, match="'limt'") as refused:
        q.refuse_unknown(ask(limt="1"), ["limit", "cursor"])
    assert refused.value.facts["allowed"] == ["cursor", "limit"]


@pytest.mark.parametrize("raw", [b"p=%ff", b"%ff=1", b"p=\xff", b"p=%ed%a0%80", b"&".join([b"p=1"] * 201)])
def test_a_query_that_cannot_be_read_is_refused(raw: bytes) -> None:
    """Bytes that are not UTF-8, and endless queries, are bad requests."""
    with pytest.raises(BadRequest):
        q.parse_query(raw)


@given(st.binary() | st.text().map(lambda text: b"p=" + quote(text).encode()))
def test_any_query_is_read_or_refused(raw: bytes) -> None:
    """No query makes a reader fail otherwise than by refusing it."""
    readers: list[Callable[[q.Query, str], Any]] = [read for read, _, _ in READERS]
    for read in (*readers, q.read_pairs, q.read_many):
        with contextlib.suppress(BadRequest):
            read(q.parse_query(raw), "p")
