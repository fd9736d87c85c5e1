"""When schedules tick: in their time zone, once each, also where clocks are put forward or back."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.cron import ALIASES, Timetable, parse_timetable
from gateway.domain.times import format_time, parse_time
from gateway.errors import InvalidBody

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def ticks(timetable: Timetable, after: str, count: int) -> list[str]:
    """Return the next ticks after a moment."""
    at_ms, found = parse_time(after), []
    for _ in range(count):
        tick_ms = timetable.next_after_ms(at_ms)
        assert tick_ms is not None
        found.append(format_time(tick_ms)[:16])
        at_ms = tick_ms
    return found


def test_an_expression_ticks_in_its_time_zone() -> None:
    """Told in UTC."""
    table = parse_timetable("30 9 * * 1-5", "America/New_York")
    assert ticks(table, "2026-11-26T00:00:00Z", 3) == ["2026-11-26T14:30", "2026-11-27T14:30", "2026-11-30T14:30"]
    assert ticks(table, "2026-07-01T00:00:00Z", 1) == ["2026-07-01T13:30"]


def test_a_tick_is_after_its_moment_never_at_it() -> None:
    """So that one tick leads to the next."""
    table = parse_timetable("*/5 * * * *", "UTC")
    assert ticks(table, "2026-01-01T00:00:00Z", 2) == ["2026-01-01T00:05", "2026-01-01T00:10"]
    assert ticks(table, "2026-01-01T00:04:59.999Z", 1) == ["2026-01-01T00:05"]


def test_a_time_that_is_skipped_comes_at_the_end_of_the_gap() -> None:
    """Once, and the day after at its own time again: Berlin goes from 02:00 to 03:00."""
    table = parse_timetable("30 2 * * *", "Europe/Berlin")
    assert ticks(table, "2026-03-28T00:00:00Z", 3) == ["2026-03-28T01:30", "2026-03-29T01:00", "2026-03-30T00:30"]
    several = parse_timetable("15,30,45 2 * * *", "Europe/Berlin")
    assert ticks(several, "2026-03-29T00:00:00Z", 2) == ["2026-03-29T01:00", "2026-03-30T00:15"]


def test_a_time_that_comes_twice_ticks_the_first_time() -> None:
    """Berlin goes from 03:00 back to 02:00, at 01:00 UTC."""
    table = parse_timetable("30 2 * * *", "Europe/Berlin")
    assert ticks(table, "2026-10-24T00:00:00Z", 3) == ["2026-10-24T00:30", "2026-10-25T00:30", "2026-10-26T01:30"]
    # From between the two as well.
    assert ticks(table, "2026-10-25T00:45:00Z", 1) == ["2026-10-26T01:30"]
    assert ticks(table, "2026-10-25T01:10:00Z", 1) == ["2026-10-26T01:30"]


@pytest.mark.parametrize(("cron", "step_ms"), [("0 * * * *", HOUR_MS), ("*/15 * * * *", HOUR_MS // 4)])
@pytest.mark.parametrize("day", ["2026-03-28T12:00:00Z", "2026-10-24T12:00:00Z"])
def test_what_ticks_every_hour_does_so_whatever_the_clock_shows(cron: str, step_ms: int, day: str) -> None:
    """By the time that passes: no gap, nothing twice, on the days of a change too."""
    table = parse_timetable(cron, "Europe/Berlin")
    found = [parse_time(f"{text}:00Z") for text in ticks(table, day, 120)]
    assert {later - earlier for earlier, later in pairwise(found)} == {step_ms}


def test_a_zone_that_shifts_by_half_an_hour_is_met_too() -> None:
    """Lord Howe goes forward from 02:00 to 02:30."""
    table = parse_timetable("15 2 * * *", "Australia/Lord_Howe")
    assert ticks(table, "2026-10-02T20:00:00Z", 2) == ["2026-10-03T15:30", "2026-10-04T15:15"]


@pytest.mark.parametrize("alias", ALIASES)
def test_an_alias_ticks_as_what_it_stands_for(alias: str) -> None:
    """In any spelling of its letters."""
    after = "2026-05-05T05:05:05Z"
    expected = ticks(parse_timetable(ALIASES[alias], "Asia/Tokyo"), after, 3)
    assert ticks(parse_timetable(alias.upper(), "Asia/Tokyo"), after, 3) == expected


@pytest.mark.parametrize(
    ("cron", "timezone", "path"),
    [
        ("", "UTC", "$.cron"),
        ("* * * *", "UTC", "$.cron"),
        ("* * * * * *", "UTC", "$.cron"),
        ("60 * * * *", "UTC", "$.cron"),
        ("* 24 * * *", "UTC", "$.cron"),
        ("* * 0 * *", "UTC", "$.cron"),
        ("* * * 13 *", "UTC", "$.cron"),
        ("* * * * 8", "UTC", "$.cron"),
        ("*/0 * * * *", "UTC", "$.cron"),
        ("5-1 * * * *", "UTC", "$.cron"),
        ("a * * * *", "UTC", "$.cron"),
        ("² * * * *", "UTC", "$.cron"),
        ("0 0 30 2 *", "UTC", "$.cron"),
        ("@reboot", "UTC", "$.cron"),
        ("@", "UTC", "$.cron"),
        ("1," * 200 + "1 * * * *", "UTC", "$.cron"),
        ("* * * * *", "Mars/Olympus", "$.timezone"),
        ("* * * * *", "", "$.timezone"),
        ("* * * * *", "../../etc/passwd", "$.timezone"),
        ("* * * * *", "/etc/localtime", "$.timezone"),
        ("* * * * *", "europe/berlin", "$.timezone"),
    ],
)
def test_what_is_no_schedule_is_refused_with_its_place(cron: str, timezone: str, path: str) -> None:
    """And why, in a word."""
    with pytest.raises(InvalidBody) as refused:
        parse_timetable(cron, timezone)
    assert refused.value.facts["path"] == path
    assert len(refused.value.detail) > 20


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text("0123456789*/,-#LlW²a?@ ", min_size=1, max_size=5), min_size=5, max_size=5).map(" ".join))
def test_any_text_is_a_schedule_or_refused(cron: str) -> None:
    """Nothing else can come of it."""
    try:
        table = parse_timetable(cron, "Europe/Berlin")
    except InvalidBody:
        return
    assert table.next_after_ms(0) is not None


EXPRESSIONS = st.sampled_from(
    [
        "* * * * *",
        "*/7 * * * *",
        "0 * * * *",
        "30 2 * * *",
        "0,30 1-3 * * *",
        "15 */2 * * *",
        "0 0 1 * *",
        "0 12 * * 5L",
    ]
)
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu"])


@settings(max_examples=200, deadline=None)
@given(EXPRESSIONS, ZONES, st.integers(1_767_225_600_000, 1_798_761_600_000))
def test_from_wherever_one_starts_the_ticks_are_the_same(cron: str, zone: str, at_ms: int) -> None:
    """A process that looks late finds the ticks that an earlier look would have found; they only grow."""
    table = parse_timetable(cron, zone)
    first = table.next_after_ms(at_ms)
    assert first is not None
    assert first > at_ms
    second = table.next_after_ms(first)
    assert second is not None
    assert second > first
    for between_ms in (first + 1, first + (second - first) // 2, second - 1):
        assert table.next_after_ms(between_ms) == second
    assert datetime.fromtimestamp(first / 1000, UTC).second == 0


@settings(max_examples=200, deadline=None)
@given(EXPRESSIONS, ZONES, st.integers(1_767_225_600_000, 1_798_761_600_000), st.integers(0, 3 * DAY_MS))
def test_the_latest_tick_is_the_last_that_one_would_come_to(cron: str, zone: str, at_ms: int, span_ms: int) -> None:
    """By going from tick to tick."""
    table = parse_timetable(cron, zone)
    expected, tick_ms = None, table.next_after_ms(at_ms)
    while tick_ms is not None and tick_ms <= at_ms + span_ms:
        expected, tick_ms = tick_ms, table.next_after_ms(tick_ms)
    assert table.latest_ms(at_ms, at_ms + span_ms) == expected


def test_the_latest_of_many_missed_ticks_is_found_at_once() -> None:
    """A schedule of every minute that stood still for years costs no more than an hour of it."""
    table = parse_timetable("* * * * *", "Europe/Berlin")
    now_ms = parse_time("2026-11-26T12:00:30Z")
    assert table.latest_ms(0, now_ms) == now_ms - 30_000
    yearly = parse_timetable("@yearly", "UTC")
    assert yearly.latest_ms(0, now_ms) == parse_time("2026-01-01T00:00:00Z")
    assert yearly.latest_ms(now_ms - DAY_MS, now_ms) is None
