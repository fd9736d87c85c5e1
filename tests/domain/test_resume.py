"""The resume rule: what a returning reader is told, and where it goes on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.cursor import Cursor
from gateway.domain.resume import Gap, Reset, Verdict, judge, start_over

TAGS = {seq: 1000 + seq for seq in range(1, 11)}


def ask(seq: int, tag: int | None = None, *, head: int = 10, first: int = 1) -> Verdict:
    """Judge a cursor against a log that holds `first..head`, the tag of each entry 1000 more than its seq."""
    found = TAGS[seq] if first <= seq <= head else None
    return judge(Cursor(seq, tag), head_seq=head, head_tag=TAGS.get(head, 0), first_seq=first, found_tag=found)


def test_a_reader_without_anything_begins_at_the_beginning() -> None:
    """Nothing seen, nothing trimmed: from event 1."""
    assert ask(0) == Verdict(0)
    assert ask(0, head=0) == Verdict(0)


def test_a_reader_without_anything_is_told_of_what_was_trimmed() -> None:
    """The first event it can get is not the first there was."""
    assert ask(0, first=4) == Verdict(3, gap=Gap(1, 4))


@pytest.mark.parametrize("tag", [None, 1005])
def test_a_reader_whose_event_is_there_goes_on_after_it(tag: int | None) -> None:
    """The same tag, or none to compare."""
    assert ask(5, tag) == Verdict(5)


def test_a_reader_whose_event_is_another_begins_anew() -> None:
    """The log was rolled back and went another way: nothing the reader has is vouched for."""
    assert ask(5, 77) == Verdict(0, reset=Reset("log_changed", 0))
    assert ask(5, 77, first=4) == Verdict(3, reset=Reset("log_changed", 0), gap=Gap(1, 4))


def test_a_reader_at_the_head_is_compared_with_the_head() -> None:
    """Also when the entry itself was trimmed."""
    assert ask(10, 1010) == Verdict(10)
    assert ask(10) == Verdict(10)
    assert ask(10, 77).reset == Reset("log_changed", 0)
    assert ask(10, 1010, first=11) == Verdict(10)
    assert ask(10, 77, first=11) == Verdict(10, reset=Reset("log_changed", 0), gap=Gap(1, 11))


@pytest.mark.parametrize("tag", [None, 5])
def test_a_reader_beyond_the_head_begins_anew(tag: int | None) -> None:
    """It has events that the log does not have."""
    assert ask(11, tag) == Verdict(0, reset=Reset("ahead_of_log", 0))
    assert ask(1, tag, head=0) == Verdict(0, reset=Reset("ahead_of_log", 0))
    assert ask(11, tag, first=11) == Verdict(10, reset=Reset("ahead_of_log", 0), gap=Gap(1, 11))


@pytest.mark.parametrize("tag", [None, 1002, 77])
def test_a_reader_whose_next_event_was_trimmed_is_told(tag: int | None) -> None:
    """Its own event is gone, too, and cannot be compared."""
    assert ask(2, tag, first=4) == Verdict(3, gap=Gap(3, 4))


@pytest.mark.parametrize("tag", [None, 1003, 77])
def test_a_reader_just_before_the_first_event_goes_on_unverified(tag: int | None) -> None:
    """It misses nothing; whether its event was the log's cannot be known any more."""
    assert ask(3, tag, first=4) == Verdict(3)


def test_starting_over_keeps_what_is_valid() -> None:
    """From the point of agreement on, with a gap where the log does not reach back to it."""
    assert start_over("x", first_seq=1, valid_through=7) == Verdict(7, reset=Reset("x", 7))
    assert start_over("x", first_seq=9, valid_through=7) == Verdict(8, reset=Reset("x", 7), gap=Gap(8, 9))
    assert start_over("x", first_seq=8, valid_through=7) == Verdict(7, reset=Reset("x", 7))


@given(st.integers(0, 14), st.none() | st.integers(1000, 1014), st.integers(0, 10), st.integers(1, 11))
def test_nothing_is_skipped_or_repeated_silently(seq: int, tag: int | None, head: int, first: int) -> None:
    """Whatever a reader has: it goes on right after it, or is told; and it can go on where it is told to."""
    first = min(first, head + 1)
    verdict = ask(seq, tag, head=head, first=first)
    stands = seq if verdict.reset is None else verdict.reset.valid_through
    if verdict.gap is not None:
        assert verdict.gap == Gap(stands + 1, first)
        assert stands + 1 < first
        stands = first - 1
    assert verdict.after_seq == stands
    assert first - 1 <= verdict.after_seq <= head
