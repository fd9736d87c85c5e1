"""Cursors: what a reader has, as text that it hands back."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.cursor import MAX_SEQ, MAX_TAG, START, Cursor, format_many, parse, parse_many
from gateway.errors import BadRequest

tags = st.integers(0, MAX_TAG)
cursors = st.just(START) | st.builds(Cursor, st.integers(1, MAX_SEQ), st.none() | tags)


@given(cursors)
def test_a_cursor_survives_its_text(cursor: Cursor) -> None:
    """What a client hands back is the position that it was given."""
    assert parse(cursor.text) == cursor


@given(st.lists(cursors, min_size=1, max_size=16))
def test_a_list_of_cursors_survives_its_text(positions: list[Cursor]) -> None:
    """A position in several logs reads back in the same order."""
    assert parse_many(format_many(positions), len(positions)) == positions


@pytest.mark.parametrize(
    ("text", "cursor"),
    [
        ("13-2886794313", Cursor(13, 2886794313)),
        ("13", Cursor(13)),
        ("0", START),
        (f"{2**53}", Cursor(2**53)),
    ],
)
def test_both_spellings_are_read(text: str, cursor: Cursor) -> None:
    """A cursor may be a bare number or carry the tag of its event."""
    assert parse(text) == cursor


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 13",
        "13 ",
        "+13",
        "-1",
        "1.0",
        "1e3",
        "0x1",
        "013",
        "13-",
        "-13",
        "13-1-1",
        "13-01",
        "13--1",
        "0-5",
        "x13",
        "13x",
        "13\n",
        "١٣",
        "²",
        f"{2**53 + 1}",
        f"13-{2**32}",
        "9" * 500,
        "13,14",
        "\x00",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    """Text that no gateway has given out is a bad request, never a guess."""
    with pytest.raises(BadRequest) as caught:
        parse(text)
    assert len(caught.value.detail) < 500


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    """Any text is a cursor that spells itself, or a bad request."""
    with suppress(BadRequest):
        assert parse(text).text == text


@pytest.mark.parametrize("text", ["", "1", "1,", "1,2,3", "1,2,", "1,,2", "1;2", ",".join("1" * 100)])
def test_a_list_of_another_length_is_refused(text: str) -> None:
    """As many cursors as runs, or a bad request."""
    with pytest.raises(BadRequest):
        parse_many(text, 2)
