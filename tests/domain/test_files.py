"""Files: what they may be called, and who reaches which."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.access import RUNS_READ, Grant, Principal
from gateway.domain.files import (
    FileRecord,
    check_content_type,
    check_name,
    manages_file,
    parse_file_id,
    reaches_file,
)
from gateway.domain.run import Actor
from gateway.errors import InvalidBody, NotFound

RUN = "01J0000000000000000000000A"


def record(*, agent_id: str | None = None, by: str = "ada", tenant: str = "t") -> FileRecord:
    """Return a file: an output of a run of this agent, or an uploaded one."""
    return FileRecord(
        file_id="01J0000000000000000000000F",
        tenant=tenant,
        name="x",
        size_bytes=0,
        content_type="a/b",
        sha256="",
        created_ms=0,
        created_by=Actor("key", by),
        blob="f/x",
        run_id=None if agent_id is None else RUN,
        agent_id=agent_id,
        thread_id=None if agent_id is None else "thread",
    )


def grant(**bounds: object) -> Grant:
    """Return a grant with some bounds."""
    unbound = {"tenant": "t", "principal": Principal("ada"), "scopes": frozenset({RUNS_READ}), "agents": None}
    return Grant(**{**unbound, "key_id": "k", **bounds})  # type: ignore[arg-type]


@given(st.text(max_size=300))
def test_a_name_that_is_taken_is_one_line_and_one_segment(name: str) -> None:
    """Whatever is given: it is refused, or it can be a file's name anywhere."""
    try:
        taken = check_name(name)
    except InvalidBody:
        return
    assert taken == name
    assert 0 < len(name) <= 255
    assert not set(name) & set("/\\")
    assert name not in (".", "..")
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name)
    assert name.splitlines() == [name]


@pytest.mark.parametrize(
    "text",
    [
        "text/plain",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        'text/plain; charset=utf-8 ; x="a \\" b;c"',
        "multipart/mixed;boundary=x",
        "x/y+z",
    ],
)
def test_media_types_are_kept_as_they_are(text: str) -> None:
    """With their parameters."""
    assert check_content_type(text) == text


@pytest.mark.parametrize("text", [None, "", "  \t"])
def test_without_a_type_a_file_is_just_bytes(text: str | None) -> None:
    """As the standard says of what is not known."""
    assert check_content_type(text) == "application/octet-stream"


@given(st.text(max_size=300) | st.from_regex(r"[a-z]{1,5}/[a-z;=\" \n\\]{0,40}", fullmatch=True))
def test_a_type_that_is_taken_can_be_a_header(text: str) -> None:
    """One line of visible ASCII, with its slash."""
    try:
        taken = check_content_type(text)
    except InvalidBody:
        return
    assert taken.isascii()
    assert taken.replace("\t", " ").isprintable()
    assert "/" in taken


@pytest.mark.parametrize("text", ["", "x", "01J0000000000000000000000", "../01J00000000000000000000", "8" + "0" * 25])
def test_what_is_no_id_names_no_file(text: str) -> None:
    """Told as any file that is not there."""
    with pytest.raises(NotFound):
        parse_file_id(text)


def test_an_id_has_one_spelling() -> None:
    """As run ids have."""
    assert parse_file_id("01j0000000000000000000000f") == "01J0000000000000000000000F"


def test_an_output_is_reached_like_its_run() -> None:
    """By agent, by run, by thread."""
    output = record(agent_id="mine")
    for bounds in ({}, {"agents": {"mine"}}, {"runs": {RUN}}, {"thread_id": "thread"}):
        assert reaches_file(grant(**bounds), output), bounds
        assert manages_file(grant(**bounds), output), bounds
    for bounds in ({"tenant": "u"}, {"agents": {"others"}}, {"runs": {"other"}}, {"thread_id": "other"}):
        assert not reaches_file(grant(**bounds), output), bounds
        assert not manages_file(grant(**bounds), output), bounds


def test_an_uploaded_file_belongs_to_its_tenant() -> None:
    """A key for some agents may have it by its name, and manages it if it sent it; a ticket for runs does not."""
    own, others = record(), record(by="bob")
    assert reaches_file(grant(), others)
    assert manages_file(grant(), others)
    assert reaches_file(grant(agents={"mine"}), others)
    assert not manages_file(grant(agents={"mine"}), others)
    assert manages_file(grant(agents={"mine"}), own)
    for bounds in ({"tenant": "u"}, {"runs": {RUN}}, {"thread_id": "thread"}):
        assert not reaches_file(grant(**bounds), own), bounds
