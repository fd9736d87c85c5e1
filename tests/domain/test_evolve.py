"""One reducer: the record's state is the fold of its log, whatever was done to the run in whatever order."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.domain.draft import Draft
from gateway.domain.due import next_look_ms
from gateway.domain.events import NewEvent, check
from gateway.domain.evolve import evolve
from gateway.domain.lifecycle import ENDINGS, HELD, PERMITTED, TERMINAL, Status
from gateway.domain.run import Run, RunSpec, RunState
from gateway.errors import Conflict, GatewayError
from tests.support.histories import ACTION_OF, BEGIN_MS, HISTORIES, RETENTION, SPECS, STEPS, begin, commit, make_spec

Log = list[tuple[NewEvent, int]]


def take(run: Run, name: str, at_ms: int) -> tuple[Run, Draft | None]:
    """Do one step, and return the run after it and its draft; None when it was refused."""
    draft = Draft.of(run, at_ms)
    try:
        STEPS[name](run, draft)
    except GatewayError:
        return run, None
    return commit(run, draft, by_holder=hasattr(STEPS[name], "by_holder")), draft


def live(spec: RunSpec, history: list[tuple[str, int]]) -> list[tuple[str, Run, Run, Draft | None]]:
    """Return every step of a history: its name, the run before and after it, its draft."""
    run, _ = begin(spec)
    at_ms, lived = BEGIN_MS, []
    for name, pause_ms in history:
        at_ms += pause_ms
        after, draft = take(run, name, at_ms)
        lived.append((name, run, after, draft))
        run = after
    return lived


def refold(log: Log) -> tuple[RunState, dict[str, int]]:
    """Return the state and the marks that a log says."""
    state: RunState | None = None
    marks: dict[str, int] = {}
    for seq, (event, at_ms) in enumerate(log, 1):
        state, named = evolve(state, event.type, event.data, at_ms)
        marks |= dict.fromkeys(named, seq)
    assert state is not None
    return state, marks


@settings(max_examples=300, deadline=None)
@given(spec=SPECS, history=HISTORIES)
@example(spec=make_spec(), history=[("log", 0), ("ask", 0), ("pause", 0), ("restart", 0), ("log", 0), ("complete", 0)])
def test_the_log_is_the_run(spec: RunSpec, history: list[tuple[str, int]]) -> None:
    """Refolding the events of any history gives the state and the marks that the decisions left."""
    run, log = begin(spec)
    for _, _, after, draft in live(spec, history):
        run = after
        log += [(event, draft.at_ms) for event in draft.events] if draft else []
    assert refold(log) == (run.state, run.marks)
    assert len(log) == run.head_seq


@settings(max_examples=300, deadline=None)
@given(spec=SPECS, history=HISTORIES)
def test_every_attempt_ends_once(spec: RunSpec, history: list[tuple[str, int]]) -> None:
    """A terminal event is the last of its attempt: only a restart follows it."""
    _, log = begin(spec)
    for _, _, _, draft in live(spec, history):
        log += [(event, 0) for event in draft.events] if draft else []
    types = [event.type for event, _ in log]
    for kind, following in itertools.pairwise(types):
        assert kind not in ENDINGS or following in ("run.restarted", "run.debug_mode_set")


@settings(max_examples=300, deadline=None)
@given(spec=SPECS, history=HISTORIES)
def test_steps_obey_the_table(spec: RunSpec, history: list[tuple[str, int]]) -> None:
    """An action is done from a status that permits it; a refusal leaves the draft empty and the run as it was."""
    for name, before, after, draft in live(spec, history):
        if draft is None:
            assert after is before
        elif name in ACTION_OF:
            assert before.status in PERMITTED[ACTION_OF[name]]
        if before.status in TERMINAL and draft is not None and draft.events:
            assert name in ("restart", "replay dead", "debug")


@settings(max_examples=300, deadline=None)
@given(spec=SPECS, history=HISTORIES)
def test_a_state_never_contradicts_itself(spec: RunSpec, history: list[tuple[str, int]]) -> None:
    """Held, open questions, deadlines and times are what the status says they are."""
    for _, _, run, _ in live(spec, history):
        state = run.state
        assert not state.held or state.status in HELD
        # Whoever claimed a run may let it go at a question.
        free = {Status.PAUSED, Status.WAITING} if spec.is_queued else {Status.PAUSED}
        assert state.held or state.status not in HELD - free
        assert state.leased == (spec.is_queued and (state.held or state.status is Status.DEQUEUED))
        assert (state.status is Status.WAITING) <= bool(state.open)
        assert not state.open or state.status in HELD - {Status.RUNNING}
        assert (state.cancel_deadline_ms is not None) == (state.status is Status.CANCELLING)
        assert (state.ended_ms is not None) == state.terminal
        assert (state.scheduled_ms is not None) == (state.status is Status.DELAYED)
        assert (state.expires_ms is not None) == (state.status is Status.QUEUED)
        assert state.failures < spec.policy.max_attempts or state.terminal
        assert (state.paused_ms is not None) == (state.status is Status.PAUSED)
        assert state.paused_for_ms >= 0


@settings(max_examples=300, deadline=None)
@given(spec=SPECS, history=HISTORIES, late_ms=st.sampled_from([0, 1, 5_000, 10**7]))
def test_time_does_what_is_due_and_then_rests(spec: RunSpec, history: list[tuple[str, int]], late_ms: int) -> None:
    """A look when it is due changes something; a few looks later nothing is due; before it is due nothing happens."""
    lived = live(spec, history)
    run = lived[-1][2] if lived else begin(spec)[0]
    now_ms = run.updated_ms
    for _ in range(8):
        due_ms = None if run.state.terminal else next_look_ms(run, **RETENTION)
        if due_ms is None:
            return
        if due_ms > now_ms:
            _, draft = take(run, "time", due_ms - 1)
            assert draft is not None
            assert draft.events == []
            now_ms = due_ms + late_ms
        run, draft = take(run, "time", now_ms)
        assert draft is not None
        assert draft.events, "a look at a due run must change it, or it would be looked at for ever"
    pytest.fail(f"still due after eight looks: {run.state}")


@settings(max_examples=200, deadline=None)
@given(spec=SPECS, history=HISTORIES)
def test_what_the_gateway_writes_is_fit_for_the_log(spec: RunSpec, history: list[tuple[str, int]]) -> None:
    """Every event that a decision makes has the shape of its type."""
    _, log = begin(spec)
    for _, _, _, draft in live(spec, history):
        log += [(event, 0) for event in draft.events] if draft else []
    for event, _ in log:
        data: Any = event.data
        check(NewEvent(event.type, data))


def test_an_event_of_a_writer_changes_no_state() -> None:
    """What only says something leaves the state object as it is."""
    run, _ = begin(make_spec())
    state, marks = evolve(run.state, "message.delta", {"content": "x"}, 1)
    assert state is run.state
    assert marks == ()


def test_refusals_are_conflicts_with_the_present_status() -> None:
    """Whoever acts on an ended run is told how it ended."""
    run, _ = begin(make_spec())
    run, _ = take(run, "complete", BEGIN_MS)
    for name in ACTION_OF.keys() - {"restart"}:
        with pytest.raises(Conflict) as refused:
            STEPS[name](run, Draft.of(run, BEGIN_MS))
        assert refused.value.facts["current_status"] == "completed"
