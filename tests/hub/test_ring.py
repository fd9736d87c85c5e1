"""The ring: the newest entries of a log, without a hole, within its bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.hub.ring import Ring
from gateway.store.log import Entry


def make(first: int, count: int, size: int = 10) -> list[Entry]:
    """Return consecutive entries of `size` bytes, the tag of each its seq times ten."""
    return [Entry(seq, seq * 10, bytes(size)) for seq in range(first, first + count)]


def ring_of(count: int, *, entries: int = 100, payload_bytes: int = 10_000, start: int = 0) -> Ring:
    """Return a ring that was filled from `start` on."""
    ring = Ring(entries=entries, payload_bytes=payload_bytes)
    ring.start_at(start, start * 10)
    ring.extend(make(start + 1, count))
    return ring


def test_a_new_ring_stands_before_the_first_event() -> None:
    """A ring of a log without events holds nothing, lacks nothing, and begins at 1."""
    ring = Ring(entries=10, payload_bytes=100)
    assert (ring.first_seq, ring.head_seq, ring.head_tag) == (1, 0, 0)
    assert not ring.continues(0)
    assert ring.after(0, 100) == []
    assert ring.tags() == {}


def test_a_ring_keeps_as_many_entries_as_it_may() -> None:
    """Older entries make room, and the ring says that it no longer continues from before them."""
    ring = ring_of(25, entries=10)
    assert (ring.first_seq, ring.head_seq) == (16, 25)
    assert ring.continues(15)
    assert ring.continues(24)
    assert not ring.continues(14)
    assert not ring.continues(25)


def test_a_ring_keeps_as_many_bytes_as_it_may() -> None:
    """The bound in bytes holds like the one in entries."""
    ring = ring_of(25, payload_bytes=95)
    assert (ring.first_seq, ring.head_seq) == (17, 25)


def test_the_newest_entry_stays_whatever_its_size() -> None:
    """Live readers get an event that is larger than the whole ring from the ring."""
    ring = ring_of(5, payload_bytes=50)
    ring.extend(make(6, 1, size=1_000))
    assert [entry.seq for entry in ring.after(5, 10)] == [6]
    assert ring.first_seq == 6
    ring.extend(make(7, 1))
    assert ring.first_seq == 7


def test_a_ring_that_forgot_its_entries_continues_nothing() -> None:
    """Where it stands is known still, but what led there must be read from the log."""
    ring = ring_of(5)
    ring.clear()
    assert (ring.head_seq, ring.first_seq) == (5, 6)
    assert not ring.continues(4)
    assert ring.after(4, 100) == []


def test_a_hole_is_refused() -> None:
    """An entry that does not follow the head is an error, never a hole."""
    ring = ring_of(3)
    with pytest.raises(ValueError, match="does not follow"):
        ring.extend(make(5, 1))
    with pytest.raises(ValueError, match="does not follow"):
        ring.extend(make(3, 1))


def test_a_chunk_is_bounded_and_never_empty() -> None:
    """A reader gets at least one entry that it lacks, and about as many bytes as it asked for."""
    ring = ring_of(10)
    assert [entry.seq for entry in ring.after(2, 25)] == [3, 4, 5]
    assert [entry.seq for entry in ring.after(9, 1)] == [10]
    assert ring.after(10, 100) == []


def test_tags_are_known_of_what_is_held_and_of_the_head() -> None:
    """A tag that is not known is None, so that nobody takes it for a difference."""
    ring = ring_of(5, start=100)
    assert ring.tag_at(101) == 1010
    assert ring.tag_at(105) == 1050
    assert ring.tag_at(100) is None
    assert ring.tag_at(106) is None
    ring.start_at(200, 7)
    assert ring.tag_at(200) == 7
    assert ring.tag_at(105) is None
    assert ring.tags() == {200: 7}


def test_a_ring_is_cut_back() -> None:
    """After a rollback the ring ends where the log still agrees, and grows again from there."""
    ring = ring_of(10)
    ring.cut_to(6)
    assert (ring.first_seq, ring.head_seq, ring.head_tag) == (1, 6, 60)
    ring.extend([Entry(7, 71, b"x")])
    assert ring.tag_at(7) == 71
    assert [entry.seq for entry in ring.after(5, 1_000)] == [6, 7]


@given(
    st.integers(1, 20),
    st.integers(1, 200),
    st.lists(st.one_of(st.integers(1, 8), st.integers(-20, -1)), max_size=30),
)
def test_a_ring_is_always_contiguous_up_to_its_head(most: int, payload_bytes: int, moves: list[int]) -> None:
    """However it grows and is cut back, it holds first..head without a hole, within its bounds."""
    ring = Ring(entries=most, payload_bytes=payload_bytes)
    for move in moves:
        if move > 0:
            ring.extend(make(ring.head_seq + 1, move))
        elif ring.first_seq <= ring.head_seq + move:
            ring.cut_to(ring.head_seq + move)
        held = ring.after(0, 10**9)
        assert [entry.seq for entry in held] == list(range(ring.first_seq, ring.head_seq + 1))
        assert all(ring.tag_at(entry.seq) == entry.tag for entry in held)
        assert len(held) <= most
        assert len(held) <= 1 or sum(len(entry.line) for entry in held) <= payload_bytes
