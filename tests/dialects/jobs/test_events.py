"""Events in the job system's words: a level and a sentence each, made of the event alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.jobs.events import CHUNKS, EVENTS, chunk, run_event
from gateway.domain.catalogue import CATALOGUE
from gateway.domain.events import Event
from gateway.store.log import Entry
from tests.dialects.stateless import check_stateless, logs

RUN_ID = "01J00000000000000000000000"
AT = "2027-01-15T08:00:00.000Z"


def make_event(kind: str, data: Any) -> Event:
    """Return an event of a log."""
    return Event(7, kind, RUN_ID, AT, 1, data)


@given(logs(), st.integers(0, 12))
def test_a_stream_of_events_may_be_cut_anywhere(entries: list[Entry], cut: int) -> None:
    """What a part and the rest show is what the whole shows, whatever writers wrote."""
    check_stateless(EVENTS, entries, cut)


@given(logs(), st.integers(0, 12))
def test_a_stream_of_chunks_may_be_cut_anywhere(entries: list[Entry], cut: int) -> None:
    """What a part and the rest show is what the whole shows, whatever writers wrote."""
    check_stateless(CHUNKS, entries, cut)


@pytest.mark.parametrize("kind", CATALOGUE)
def test_every_known_event_has_a_sentence_and_a_level(kind: str) -> None:
    """Also where its data lacks everything."""
    shown = run_event(make_event(kind, {}))
    assert shown.level in ("debug", "info", "warn", "error")
    assert shown.message != kind
    assert shown.message or kind in ("message.delta", "message.completed", "log", "run.waiting_for_input")


@pytest.mark.parametrize(
    ("kind", "data", "level", "message"),
    [
        ("run.started", {"attempt": 1}, "info", "Attempt started."),
        ("run.failed", {"error": {"code": "c", "message": "It broke."}}, "error", "Run failed. It broke."),
        ("run.cancelled", {"reason": "enough"}, "warn", "Run canceled. enough"),
        ("run.attempt_failed", {"attempt": 2, "error": {"message": "x"}}, "warn", "Attempt 2 failed. x"),
        ("run.waiting_for_input", {"prompt": "Go on?"}, "info", "Go on?"),
        ("log", {"level": "warning", "message": "hot"}, "warning", "hot"),
        ("log", {"message": "hot"}, "info", "hot"),
        ("message.delta", {"content": "Hel"}, "debug", "Hel"),
        ("tool.call", {"name": "search"}, "info", "Tool search called."),
        ("tool.result", {"call_id": "c1", "status": "error"}, "error", "Tool call c1 ended: error."),
        ("tool.result", {"call_id": "c1", "status": ["odd"]}, "info", 'Tool call c1 ended: ["odd"].'),
        ("usage.recorded", {"model": "m", "prompt_tokens": 1, "completion_tokens": 2}, "info", "m took 1 + 2 tokens."),
        ("step.failed", {"step_id": "s", "error": {"message": "no"}}, "error", "Step s failed. no"),
        ("custom.note", {"x": 1}, "info", "custom.note"),
        ("custom.note", "text", "info", "custom.note"),
        ("log", {"level": "info", "message": "{name} {0} %s"}, "info", "{name} {0} %s"),
    ],
)
def test_an_event_says_how_grave_it_is_and_what_it_is(kind: str, data: Any, level: str, message: str) -> None:
    """In a sentence for people; the data is beside it."""
    shown = run_event(make_event(kind, data))
    assert (shown.level, shown.message, shown.type) == (level, message, kind)
    assert shown.data == (data if isinstance(data, dict) else {"value": data})
    assert (shown.id, shown.run_id, shown.created_at) == (f"{RUN_ID}-7", RUN_ID, AT)


def test_a_chunk_is_a_piece_of_a_message() -> None:
    """With the message it is of and who says it, where the writer told."""
    told = chunk(make_event("message.delta", {"content": "Hel", "message_id": "m1", "role": "assistant"}))
    assert (told.content, told.message_id, told.role) == ("Hel", "m1", "assistant")
    bare = chunk(make_event("message.delta", {"content": "lo"}))
    assert (bare.content, bare.message_id, bare.role) == ("lo", None, None)
