"""What a reader is given of a stream, whatever the stream repeats, loses or takes back."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.client import BadRequest, Event, Gap, Reset, Snapshot
from gateway.client.frames import Frame
from gateway.client.position import FeedPosition, Position, StreamBroken


def frame(seq: int, tag: int = 7) -> Frame:
    """Return event `seq` as a stream brings it."""
    event = {
        "seq": seq,
        "type": "log",
        "run_id": "01J",
        "created_at": "2026-11-22T08:00:00.000Z",
        "attempt": 1,
        "data": {"level": "info", "message": str(seq)},
    }
    return Frame("message", f"{seq}-{tag}", msgspec.json.encode(event).decode())


def control(name: str, **facts: object) -> Frame:
    """Return a control frame."""
    return Frame(f"stream.{name}", "", msgspec.json.encode(facts).decode())


def seqs(position: Position, frames: list[Frame]) -> list[int]:
    """Return the seqs of the events that a position lets through."""
    items = (position.accept(frame) for frame in frames)
    return [item.seq for item in items if isinstance(item, Event)]


@settings(deadline=None)
@given(st.lists(st.integers(min_value=1, max_value=30), max_size=200))
def test_an_event_is_given_once_and_in_order(stream: list[int]) -> None:
    """Whatever a stream repeats, a reader gets 1, 2, 3 … and a hole breaks the stream instead."""
    position = Position(None, dense=True)
    given_seqs: list[int] = []
    for seq in stream:
        try:
            given_seqs += seqs(position, [frame(seq)])
        except StreamBroken:
            assert seq > position.seq + 1
    assert given_seqs == list(range(1, len(given_seqs) + 1))
    assert position.seq == len(given_seqs)


@settings(deadline=None)
@given(st.lists(st.integers(min_value=1, max_value=30), max_size=200))
def test_a_filtered_stream_still_never_goes_back(stream: list[int]) -> None:
    """With a filter holes are expected, repeats are not."""
    given_seqs = seqs(Position(None, dense=False), [frame(seq) for seq in stream])
    assert given_seqs == sorted(set(given_seqs))


def test_a_stream_is_opened_again_by_the_last_cursor() -> None:
    """The start is asked for as a parameter, where the stream broke as Last-Event-ID."""
    position = Position("3-9", dense=True, snapshot=False)
    assert (position.params(), position.headers()) == ({"after": "3-9"}, {})
    position.accept(frame(4, tag=11))
    assert (position.params(), position.headers()) == ({}, {"Last-Event-ID": "4-11"})


def test_a_gap_moves_the_reader_to_what_is_left() -> None:
    """After a gap the next event is its first_seq, also when the stream breaks right there."""
    position = Position(None, dense=True)
    assert position.accept(control("gap", run_id="01J", requested=0, first_seq=8)) == Gap(
        first_seq=8, run_id="01J", requested=0
    )
    assert position.params() == {"after": "7"}
    assert seqs(position, [frame(7), frame(8)]) == [8]


@pytest.mark.parametrize(("valid_through", "next_seq"), [(2, 3), (0, 1), (None, 1)])
def test_a_reset_takes_events_back(valid_through: int | None, next_seq: int) -> None:
    """After a reset events are given again from just after what is still valid."""
    position = Position(None, dense=True)
    assert seqs(position, [frame(seq) for seq in (1, 2, 3, 4)]) == [1, 2, 3, 4]
    reset = position.accept(control("reset", reason="rolled_back", valid_through=valid_through, head_seq=3))
    assert isinstance(reset, Reset)
    assert reset.valid_through == valid_through
    assert position.headers() == {}
    assert seqs(position, [frame(next_seq, tag=1)]) == [next_seq]


def test_a_snapshot_is_asked_for_once() -> None:
    """Events go on after the snapshot, and a broken stream resumes there without another one."""
    position = Position(None, dense=True, snapshot=True)
    assert position.params() == {"snapshot": "true"}
    item = position.accept(Frame("stream.snapshot", "5-3", '{"run_id":"01J","as_of_seq":5,"state":{"a":1}}'))
    assert item == Snapshot(as_of_seq=5, state={"a": 1}, run_id="01J", cursor="5-3")
    assert (position.params(), position.headers()) == ({}, {"Last-Event-ID": "5-3"})
    assert seqs(position, [frame(5), frame(6)]) == [6]


def test_frames_of_later_protocols_are_passed_over() -> None:
    """An unknown control frame and a blank frame are no events."""
    position = Position(None, dense=True)
    assert position.accept(control("weather", sky="blue")) is None
    assert position.accept(Frame("message", "3-9", "")) is None
    assert position.headers() == {}


@pytest.mark.parametrize("name", ["message", "stream.gap", "stream.reset", "stream.snapshot"])
def test_an_unreadable_frame_breaks_the_stream(name: str) -> None:
    """Half a frame is not an event."""
    with pytest.raises(StreamBroken):
        Position(None, dense=True).accept(Frame(name, "", '{"seq":'))


@pytest.mark.parametrize("after", ["", "x", "-3", "²", "1.5-2"])
def test_what_is_no_cursor_is_refused(after: str) -> None:
    """A cursor begins with a number."""
    with pytest.raises(BadRequest):
        Position(after, dense=True)


def test_a_feed_goes_on_after_its_last_item() -> None:
    """A feed that broke is asked for what came after the last item that was read."""
    position = FeedPosition(None)
    data = '{"seq":4,"type":"run.status","run_id":"01J","created_at":"x","data":{"status":"running"}}'
    item = position.accept(Frame("message", "4-0", data))
    assert item is not None
    assert (item.seq, item.cursor, item.data) == (4, "4-0", {"status": "running"})
    assert position.headers() == {"Last-Event-ID": "4-0"}
    with pytest.raises(StreamBroken):
        position.accept(Frame("message", "5-0", "nonsense"))
