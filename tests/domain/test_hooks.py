"""Webhooks' rules: what they want, when they try again."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.hooks import (
    DEFAULT_EVENTS,
    Hook,
    check_event_pattern,
    filter_of,
    next_try_ms,
    read_retry_after,
    wanted_by,
)
from gateway.domain.lifecycle import ENDINGS
from gateway.errors import BadRequest, UnknownEventType

DAY_MS = 86_400_000
NOW_MS = 1_800_000_000_000


def hook(*events: str) -> Hook:
    """Return a webhook that wants these."""
    return Hook(id="h", url="https://a.example", events=events)


@pytest.mark.parametrize("pattern", ["*", "run.*", "tool.call", "custom.*", "custom.mine", *DEFAULT_EVENTS])
def test_a_pattern_of_known_events_is_taken(pattern: str) -> None:
    """As filters of streams take it."""
    check_event_pattern(pattern)


@pytest.mark.parametrize("pattern", ["", "Run.*", "run.*,tool.*", "tool.", "*.call"])
def test_a_malformed_pattern_is_refused(pattern: str) -> None:
    """It would match nothing."""
    with pytest.raises(BadRequest):
        check_event_pattern(pattern)


def test_a_type_that_no_event_has_is_refused() -> None:
    """With the one that was meant."""
    with pytest.raises(UnknownEventType) as refused:
        check_event_pattern("run.complete")
    assert refused.value.facts["nearest"] == "run.completed"


def test_every_end_of_a_run_is_told_by_default() -> None:
    """Whatever ends it, and that it waits."""
    assert set(DEFAULT_EVENTS) == {*ENDINGS, "run.waiting_for_input"}


@given(st.lists(st.sampled_from(["run.*", "tool.call", "custom.x", "log", "custom." + "y" * 100]), max_size=8))
def test_what_any_webhook_wants_passes_the_filter_of_all(wanted: list[str]) -> None:
    """However many patterns there are: where they are too many, everything passes."""
    hooks = [hook(pattern, f"custom.{index}{'z' * 80}") for index, pattern in enumerate(wanted)]
    joined = wanted_by(hooks)
    assert len(joined) <= 512
    for one in hooks:
        for pattern in one.events:
            assert filter_of(joined).passes(pattern.replace("*", "created"))


@given(st.integers(1, 3), st.floats(0, 1), st.none() | st.integers(0, 10 * DAY_MS))
def test_a_try_rests_its_delay_and_longer_if_asked_to(failures: int, jitter: float, asked_ms: int | None) -> None:
    """At most a fifth longer by chance, and at most a day by the receiver's wish."""
    delays_ms = (5_000, 60_000, 600_000)
    rest_ms = next_try_ms(delays_ms, failures, jitter, asked_ms)
    assert rest_ms is not None
    delay_ms = delays_ms[failures - 1]
    assert rest_ms >= max(delay_ms, min(asked_ms or 0, DAY_MS))
    assert rest_ms <= max(delay_ms * 1.2, min(asked_ms or 0, DAY_MS))


def test_after_the_last_try_there_is_none() -> None:
    """Whatever the receiver asks for."""
    assert next_try_ms((1, 2), 3, 0.0, 1000) is None
    assert next_try_ms((), 1, 0.0, None) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("7", 7_000),
        (" 0 ", 0),
        ("-1", None),
        ("soon", None),
        ("", None),
        ("9" * 30, DAY_MS),
        (format_datetime(datetime.fromtimestamp(NOW_MS / 1000 + 90, UTC), usegmt=True), 90_000),
        (format_datetime(datetime.fromtimestamp(NOW_MS / 1000 - 90, UTC), usegmt=True), 0),
        ("Fri, 99 Nov 2026 99:99:99 GMT", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_a_date(text: str | None, expected: int | None) -> None:
    """What cannot be read says nothing."""
    assert read_retry_after(text, NOW_MS) == expected
