"""A thread's position: short, and never saying of a run that all of it was seen when it was not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.native.thread_position import LISTED, ThreadPosition
from gateway.domain.cursor import START, Cursor
from gateway.domain.lifecycle import Status
from gateway.domain.run import SYSTEM, Run, RunSpec, RunState
from gateway.errors import BadRequest


def name(number: int) -> str:
    """Return the id of the run that was created as the `number`th."""
    return f"01{number:024}"


def record(number: int, head: int, *, ended_ms: int | None) -> Run:
    """Return a run's record; the tag of each event is ten times its seq."""
    spec = RunSpec(id=name(number), tenant="t", agent_id="a", mode="direct", thread_id="t", created_us=1, actor=SYSTEM)
    state = RunState(status=Status.RUNNING if ended_ms is None else Status.COMPLETED, ended_ms=ended_ms)
    return Run(spec=spec, state=state, rev=1, head_seq=head, head_tag=head * 10, first_seq=1, updated_ms=0, marks={})


def test_a_position_survives_its_text() -> None:
    """What a client hands back is what it was given."""
    position = ThreadPosition({name(7): Cursor(3, 30), name(2): START}, done_through=name(5), done_ms=99)
    assert position.text == f"~{name(5)}@99,{name(7)}:3-30,{name(2)}:0"
    again = ThreadPosition.parse(position.text)
    assert (again.text, again.cursors) == (position.text, position.cursors)
    assert ThreadPosition.parse("").text == ""


@pytest.mark.parametrize("text", [",", "x", "~", "~x@1", f"~{name(1)}@", f"~{name(1)}@1,", f"{name(1)}:0-5", "1:1"])
def test_anything_else_is_refused(text: str) -> None:
    """A text that no stream has given out is a bad request."""
    with pytest.raises(BadRequest):
        ThreadPosition.parse(text)


def test_what_is_older_and_not_listed_is_complete_unless_it_went_on() -> None:
    """It is told by when it ended."""
    position = ThreadPosition({name(3): Cursor(4, 40)}, done_through=name(5), done_ms=100)
    assert position.has_all_of(record(2, 9, ended_ms=100))
    assert not position.has_all_of(record(2, 9, ended_ms=101))
    assert not position.has_all_of(record(2, 9, ended_ms=None))
    assert not position.has_all_of(record(6, 9, ended_ms=50))
    assert position.has_all_of(record(3, 4, ended_ms=500))
    assert not position.has_all_of(record(3, 5, ended_ms=50))


def test_runs_that_go_on_do_not_keep_ended_ones_listed() -> None:
    """One old run that never ends costs the id its own name only."""
    position = ThreadPosition({})
    position.follow(name(0))
    for number in range(1, 200):
        position.follow(name(number))
        position.end(name(number), number, None)
    assert len(position.cursors) == LISTED + 1
    assert name(0) in position.cursors


def test_a_run_that_waits_to_be_sent_again_is_not_passed_over() -> None:
    """It went on and ended while newer ones were sent: until it is begun, none that ended later sums it up."""
    position = ThreadPosition({}, listed=3)
    for number in range(1, 6):
        position.follow(name(number))
        position.end(name(number), number, None)
    assert position.passed(name(1))
    for number in range(6, 20):
        position.follow(name(number))
        position.end(name(number), 1000 + number, name(1))
    assert not position.has_all_of(record(1, 3, ended_ms=1000))
    position.follow(name(1))
    position.end(name(1), 1000, None)
    assert len(position.cursors) == 3
    assert position.has_all_of(record(1, 3, ended_ms=1000))


moves = st.lists(
    st.tuples(st.sampled_from(["create", "open", "read", "end", "restart"]), st.integers(0, 12)), max_size=80
)


@given(moves, st.integers(0, 12))
def test_no_position_claims_what_was_not_delivered(moves: list[tuple[str, int]], first: int) -> None:
    """However runs come, are opened late, read, end and go on: whoever returns with the id misses nothing."""
    position = ThreadPosition({}, listed=3)
    heads = dict.fromkeys(range(first), 2)
    ended: dict[int, int] = {number: number + 1 for number in heads}
    opened: set[int] = set()
    waiting: set[int] = set()
    delivered: dict[int, int] = {}
    now_ms = 1000
    for move, number in moves:
        now_ms += 1
        if move == "create":
            heads[len(heads)] = 1
        elif move == "open" or number not in heads:
            for run in sorted(waiting | (set(heads) - opened - set(delivered)))[: number + 1]:
                opened.add(run)
                waiting.discard(run)
                position.follow(name(run))
        elif move == "read" and number in opened:
            delivered[number] = heads[number]
            position.cursors[name(number)] = Cursor(heads[number], heads[number] * 10)
            if number in ended:
                opened.discard(number)
                unseen = [name(run) for run in heads if run in waiting or run not in {*opened, *delivered}]
                position.end(name(number), ended[number], min(unseen, default=None))
        elif move == "end" and number not in ended:
            heads[number] += 1
            ended[number] = now_ms
        elif move == "restart" and number in ended:
            heads[number] += 1
            del ended[number]
            # Noticed at once, opened later.
            if number in delivered and number not in opened:
                waiting.add(number)
        told = ThreadPosition.parse(position.text)
        for run, head in heads.items():
            if told.has_all_of(record(run, head, ended_ms=ended.get(run))):
                assert delivered.get(run) == head
