"""Folds: from a log to steps, calls, messages, usage, outputs, questions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.catalogue import CATALOGUE
from gateway.domain.events import Event, format_time
from gateway.domain.fold import CUSTOM_ENTRIES, LOG_LINES, fold
from gateway.domain.fold_bounds import BOUNDS, Bounds
from gateway.domain.fold_messages import MESSAGE_CHARS
from gateway.domain.fold_state import Folded, Places
from gateway.domain.run import Totals

ERROR = {"code": "boom", "message": "It broke.", "hint": "kept"}


def at(seq: int) -> str:
    """Return the time that `log` gives event `seq`."""
    return format_time(1_795_334_400_000 + seq)


def log(*events: tuple[str, dict[str, Any]], step_id: str | None = None) -> list[Event]:
    """Return a log of these types and data; `run.attempt_started` begins its attempt."""
    attempt, lines = 1, []
    for seq, (name, data) in enumerate(events, 1):
        attempt = data.get("attempt", attempt) if name == "run.attempt_started" else attempt
        lines.append(Event(seq, name, "run", at(seq), attempt, data, data.get("step_id", step_id)))
    return lines


def fold_all(events: Iterable[Event], state: Folded | None = None, bounds: Bounds = BOUNDS) -> Folded:
    """Return what the events fold to, on top of `state`."""
    state = Folded() if state is None else state
    for event in events:
        fold(state, event, len(msgspec.json.encode(event)), bounds)
    return state


def store(state: Folded) -> Folded:
    """Return the state as a snapshot that was written as JSON and read again."""
    return msgspec.json.decode(msgspec.json.encode(state), type=Folded)


def delta(text: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    return "message.delta", {"content": text, **fields}


def call(call_id: str = "c") -> tuple[str, dict[str, Any]]:
    return "tool.call", {"call_id": call_id, "name": "search", "input": {"q": "x"}}


def result(call_id: str = "c", status: str = "ok") -> tuple[str, dict[str, Any]]:
    return "tool.result", {"call_id": call_id, "output": [1], "status": status, "duration_ms": 7}


def begin(step_id: str = "s") -> tuple[str, dict[str, Any]]:
    return "step.started", {"step_id": step_id, "name": "plan", "input": 1}


def finish(step_id: str = "s") -> tuple[str, dict[str, Any]]:
    return "step.completed", {"step_id": step_id, "output": 2, "duration_ms": 5}


def attempt(number: int, *supersedes: int) -> tuple[str, dict[str, Any]]:
    return "run.attempt_started", {"attempt": number, "supersedes": supersedes or None}


def test_a_step_is_one_entry() -> None:
    """A step's beginning and end make one entry with both times, input and output."""
    (step,) = fold_all(log(begin(), finish())).steps
    assert (step.name, step.status, step.input, step.output, step.duration_ms) == (
        "plan",
        "completed",
        1,
        2,
        5,
    )
    assert (step.seq, step.started_at, step.ended_at) == (1, at(1), at(2))


def test_a_failed_step_keeps_its_error_whole() -> None:
    """Fields of an error that the catalogue does not know are shown too."""
    (step,) = fold_all(log(begin(), ("step.failed", {"step_id": "s", "error": ERROR}))).steps
    assert (step.status, step.error) == ("failed", ERROR)


def test_a_step_that_runs_again_is_another_entry() -> None:
    """A loop that uses a step's id twice shows two steps."""
    steps = fold_all(log(begin(), finish(), begin(), finish())).steps
    assert [(step.seq, step.status) for step in steps] == [(1, "completed"), (3, "completed")]


def test_a_tool_call_follows_its_events() -> None:
    """A call shows its latest progress while it runs, then its result."""
    events = log(call(), ("tool.progress", {"call_id": "c", "progress": 0.5}), result(status="error"))
    state = fold_all(events[:2])
    assert (state.tool_calls[0].status, state.tool_calls[0].progress) == ("running", 0.5)
    (done,) = fold_all(events[2:], state).tool_calls
    assert (done.status, done.output, done.duration_ms, done.ended_at) == ("error", [1], 7, at(3))


def test_an_end_before_its_beginning_is_one_entry() -> None:
    """Events in the wrong order still tell of one step and one call, ended and named."""
    state = fold_all(log(finish(), begin(), result(), call()))
    assert [(step.name, step.status) for step in state.steps] == [("plan", "completed")]
    assert [(c.name, c.status) for c in state.tool_calls] == [("search", "ok")]


def test_the_end_of_a_run_abandons_what_runs() -> None:
    """Nothing is shown as running once the run has ended, and no question as open."""
    ask = ("run.waiting_for_input", {"request_id": "q", "prompt": "?"})
    state = fold_all(log(begin(), call(), begin("t"), finish("t"), ask, ("run.failed", {"error": ERROR})))
    assert [(step.status, step.ended_at) for step in state.steps] == [
        ("abandoned", at(6)),
        ("completed", at(4)),
    ]
    assert [c.status for c in state.tool_calls] == ["abandoned"]
    assert (state.open_questions, state.questions["q"].reason) == ([], "run_ended")
    assert state.error == ERROR


def test_deltas_join_by_their_message() -> None:
    """Two messages that are streamed at once do not mix, and a whole text replaces its pieces."""
    whole = ("message.completed", {"content": "Hello!", "message_id": "a", "role": "assistant"})
    state = fold_all(log(delta("Hel", message_id="a"), delta("By", message_id="b"), delta("lo", message_id="a"), whole))
    texts = [(m.message_id, m.content, m.completed, m.role) for m in state.messages]
    assert texts == [("a", "Hello!", True, "assistant"), ("b", "By", False, None)]


def test_deltas_without_an_id_join_the_open_message() -> None:
    """A message without an id ends when it is completed, when the role changes, or with the attempt."""
    done = ("message.completed", {"content": "one", "message_id": "late"})
    events = log(
        delta("o"),
        delta("ne"),
        done,
        delta("tw", role="user"),
        delta("o"),
        delta("x", role="tool"),
        attempt(2),
        delta("y"),
    )
    texts = [(m.message_id, m.content, m.role) for m in fold_all(events).messages]
    assert texts == [("late", "one", None), (None, "two", "user"), (None, "x", "tool"), (None, "y", None)]


def test_steps_that_speak_at_once_do_not_mix() -> None:
    """Deltas without an id are kept apart by their step."""
    events = log(delta("a", step_id="s"), delta("1", step_id="t"), delta("b", step_id="s"), delta("2", step_id="t"))
    assert [(m.step_id, m.content) for m in fold_all(events).messages] == [("s", "ab"), ("t", "12")]


def test_a_new_attempt_supersedes_what_it_does_again() -> None:
    """Abandoned work is marked as such; later work under the same ids stands beside it."""
    file = ("file.created", {"file_id": "f", "name": "a", "size_bytes": 1, "content_type": "text/plain"})
    output = ("output.set", {"key": "k", "value": 1})
    old = [begin(), delta("Hel", message_id="m"), call(), file, output]
    state = fold_all(log(begin("kept"), *old, attempt(2, 2, 6), *old))
    entries: list[Any] = [*state.steps, *state.messages, *state.tool_calls, *state.files]
    marks = [(entry.seq, entry.attempt, entry.superseded) for entry in sorted(entries, key=lambda e: e.seq)]
    assert marks == [
        (1, 1, False),
        *[(s, 1, True) for s in (2, 3, 4, 5)],
        *[(s, 2, False) for s in (8, 9, 10, 11)],
    ]
    assert (state.steps[1].status, state.tool_calls[0].status) == ("abandoned", "abandoned")
    assert (state.outputs["k"].seq, state.outputs["k"].superseded) == (12, False)


SAVE = ("checkpoint.created", {"source": "s", "state": 1})


@pytest.mark.parametrize("stored", [False, True])
def test_a_message_is_cut_where_it_was_superseded(stored: bool) -> None:
    """What it had before the checkpoint stays, also of a whole text, and the next attempt goes on from there."""
    events = log(
        delta("kept \N{GRINNING FACE}", message_id="m"),
        delta("own", step_id="s"),
        SAVE,
        delta(" lost", message_id="m"),
        ("message.completed", {"content": "kept \N{GRINNING FACE} lost!", "message_id": "m"}),
        delta("all lost", message_id="n"),
        attempt(2, 4, 6),
        delta(" new", message_id="m"),
    )
    state = fold_all(events[:5])
    state = fold_all(events[5:], store(state) if stored else state)
    assert [(m.content, m.completed, m.superseded) for m in state.messages] == [
        ("kept \N{GRINNING FACE} new", False, False),
        ("own", False, False),
        ("all lost", False, True),
    ]


def test_a_message_is_cut_at_the_checkpoint_that_was_gone_back_to() -> None:
    """Also an older one, and where nothing was said right after it."""
    events = log(delta("a", message_id="m"), SAVE, SAVE, delta("b", message_id="m"), SAVE, delta("c", message_id="m"))
    for first, left in ((3, "a"), (4, "a"), (6, "ab"), (7, "abc")):
        state = fold_all([*events, *log(*[("log", {})] * 6, attempt(2, first, 6))[6:]])
        assert [m.content for m in state.messages] == [left]


def test_a_whole_text_that_says_otherwise_is_withdrawn_whole() -> None:
    """What it said before the checkpoint cannot be told from the rest."""
    done = ("message.completed", {"content": "another", "message_id": "m"})
    state = fold_all(log(delta("one", message_id="m"), SAVE, done, attempt(2, 3, 3)))
    assert [(m.content, m.superseded) for m in state.messages] == [("another", True)]


def test_usage_counts_in_every_attempt() -> None:
    """What was spent stays spent, superseded or not."""
    usage = ("usage.recorded", {"provider": "p", "model": "m", "prompt_tokens": 10, "completion_tokens": 3,
                                "cached_tokens": 4, "cost_microusd": 5, "credits": 0.1})  # fmt: skip
    state = fold_all(log(usage, attempt(2, 1, 1), usage, usage))
    assert state.totals == Totals(30, 9, 12, 15, 300_000)
    assert [entry.attempt for entry in state.usage] == [1, 2, 2]


def test_outputs_and_checkpoints_are_kept() -> None:
    """An output shows its last value, in the order of setting; every checkpoint is listed."""
    events = log(
        ("output.set", {"key": "a", "value": 1}),
        ("output.set", {"key": "b", "value": 2, "schema": {"type": "integer"}}),
        ("checkpoint.created", {"source": "loop", "state": {"i": 1}}),
        ("output.set", {"key": "a", "value": 3}),
    )
    state = fold_all(events)
    assert [(key, entry.value) for key, entry in state.outputs.items()] == [("b", 2), ("a", 3)]
    assert [(c.seq, c.source, c.state) for c in state.checkpoints] == [(3, "loop", {"i": 1})]


def test_questions_open_and_close() -> None:
    """A question is open until an answer or its closing, whichever is first."""
    events = log(
        *(("run.waiting_for_input", {"request_id": key, "prompt": key}) for key in "abc"),
        ("run.input_received", {"request_id": "a", "content": None, "actor": "me"}),
        ("run.input_closed", {"request_id": "a", "reason": "late"}),
        ("run.input_closed", {"request_id": "b", "reason": "withdrawn"}),
    )
    state = fold_all(events)
    closed = [(q.status, q.actor, q.reason, q.closed_seq) for q in state.questions.values()]
    assert closed == [
        ("answered", "me", None, 4),
        ("closed", None, "withdrawn", 6),
        ("open", None, None, None),
    ]
    assert [q.request_id for q in state.open_questions] == ["c"]


def test_the_audit_trail_names_who_and_why() -> None:
    """Every change of the run is listed with its time, actor and reason."""
    actor = {"kind": "key", "id": "k"}
    state = fold_all(log(("run.started", {}), ("log", {}), ("run.paused", {"actor": actor, "reason": "lunch"})))
    trail = [(change.type, change.at, change.actor, change.reason) for change in state.history]
    assert trail == [("run.started", at(1), None, None), ("run.paused", at(3), actor, "lunch")]


def test_a_restart_forgets_the_end() -> None:
    """A run that goes on has no output and no error yet."""
    events = log(
        ("run.completed", {"output": {"x": 1}}),
        ("run.restarted", {"attempt": 2}),
        ("run.failed", {"error": ERROR}),
    )
    state = Folded()
    seen = []
    for event in events:
        fold_all([event], state)
        seen.append((state.output, state.error))
    assert seen == [({"x": 1}, None), (None, None), (None, ERROR)]


LARGE = "x" * 20_000


def test_large_values_are_elided() -> None:
    """Each says how large it is and which event has it; the last checkpoint and a run's output stay whole."""
    done = {"output": [LARGE], "duration_ms": 5}
    events = log(
        ("step.started", {"step_id": "s", "name": "plan", "input": {"big": LARGE}}),
        ("step.completed", {"step_id": "s", **done}),
        ("step.failed", {"step_id": "t", "error": {**ERROR, "details": LARGE}}),
        ("tool.call", {"call_id": "c", "name": "n", "input": LARGE}),
        ("tool.progress", {"call_id": "c", "progress": LARGE}),
        ("tool.result", {"call_id": "c", "status": "ok", **done}),
        ("output.set", {"key": "k", "value": LARGE, "schema": {"const": LARGE}}),
        ("checkpoint.created", {"source": "loop", "state": LARGE}),
        ("checkpoint.created", {"source": "loop", "state": [LARGE]}),
        ("log", {"level": "info", "message": LARGE, "data": LARGE}),
        ("custom.x", {"any": LARGE}),
        ("run.waiting_for_input", {"request_id": "q", "prompt": LARGE, "default": LARGE}),
        ("run.input_received", {"request_id": "q", "content": LARGE, "actor": "me"}),
        ("run.cancelled", {"reason": LARGE}),
        ("run.restarted", {}),
        ("run.completed", {"output": LARGE}),
    )
    state = fold_all(events)
    (step, failed), (made,) = state.steps, state.tool_calls
    output, question = state.outputs["k"], state.questions["q"]
    shown: list[Any] = [step.input, step.output, failed.error, made.input, made.progress, made.output]
    shown += [output.value, output.schema, state.checkpoints[0].state, state.logs[0].message, state.logs[0].data]
    shown += [state.custom[0].data, question.prompt, question.default, question.content, state.history[2].reason]
    assert [value["seq"] for value in shown] == [1, 2, 3, 4, 5, 6, 7, 7, 8, 10, 10, 11, 12, 12, 13, 14]
    assert all(value["elided_bytes"] >= 20_000 for value in shown)
    assert (state.checkpoints[1].state, state.output) == ([LARGE], LARGE)
    assert store(state) == state


def test_the_beginning_of_a_long_text_is_kept() -> None:
    """The rest is counted, until the whole text comes."""
    piece = "é" * (MESSAGE_CHARS // 4)
    state = fold_all(log(*[delta(piece, message_id="m")] * 6, delta("x", message_id="m")))
    (message,) = state.messages
    assert (message.content, message.elided_bytes) == (piece * 4, 2 * 2 * len(piece) + 1)
    whole = ("message.completed", {"content": "all", "message_id": "m"})
    (message,) = fold_all(log(*[("log", {})] * 7, whole), state).messages
    assert (message.content, message.elided_bytes) == ("all", 0)


def test_a_fold_stays_within_its_bytes() -> None:
    """Of an endless log the newest entries are kept, and what of the older ones still goes on."""
    bounds = Bounds(fresh_bytes=200_000)
    checkpoint = ("checkpoint.created", {"source": "x", "state": 1})
    many = [event for n in range(5_000) for event in (begin(f"s{n}"), finish(f"s{n}"))]
    state = fold_all(log(begin("root"), checkpoint, *many), bounds=bounds)
    assert len(msgspec.json.encode(state)) < 3 * bounds.fresh_bytes
    assert (state.steps[0].step_id, state.steps[0].status) == ("root", "started")
    assert state.kept_from_seq > 5_000
    assert [step.seq for step in state.steps[1:]] == list(range(state.steps[1].seq, 10_002, 2))
    assert state.steps[1].seq - state.kept_from_seq in (0, 1)
    assert len(state.checkpoints) == 1


def test_results_outlast_the_rest() -> None:
    """The newest outputs and files stay when what surrounded them is dropped; large values say where they are."""
    bounds = Bounds(fresh_bytes=100_000, results=3)
    about = {"size_bytes": 1, "content_type": "text/plain"}
    made = [("file.created", {"file_id": f"f{n}", "name": f"n{n}", **about}) for n in range(5)]
    outputs = [("output.set", {"key": f"k{n}", "value": ["x" * 100 * n]}) for n in range(5)]
    many = [event for n in range(5_000) for event in (begin(f"s{n}"), finish(f"s{n}"))]
    state = fold_all(log(*made, *outputs, *many), bounds=bounds)
    assert state.kept_from_seq > 5_000
    assert [file.file_id for file in state.files] == ["f2", "f3", "f4"]
    assert [(o.key, o.value) for o in state.outputs.values()] == [
        ("k2", ["x" * 200]),
        ("k3", {"elided_bytes": 304, "seq": 9}),
        ("k4", {"elided_bytes": 404, "seq": 10}),
    ]
    assert store(state) == state


def test_lines_and_custom_events_are_bounded() -> None:
    """Only the last ones are kept, and how many there were."""
    lines = [("log", {"level": "info", "message": str(i)}) for i in range(LOG_LINES + 5)]
    customs: list[tuple[str, dict[str, Any]]] = [("custom.x", {"i": i}) for i in range(CUSTOM_ENTRIES + 5)]
    state = fold_all(log(*lines, *customs))
    assert (len(state.logs), state.logs[0].message, state.log_count) == (LOG_LINES, "5", LOG_LINES + 5)
    assert (len(state.custom), state.custom[0].data["i"]) == (CUSTOM_ENTRIES, 5)
    assert state.custom_count == CUSTOM_ENTRIES + 5


@pytest.mark.parametrize("name", [*CATALOGUE, "custom.x", "of.tomorrow"])
@pytest.mark.parametrize("data", [None, [], "x", {}, {"step_id": 1, "call_id": None}], ids=range(5))
def test_unfitting_data_is_passed_over(name: str, data: Any) -> None:
    """An event that cannot be understood moves the position and breaks nothing."""
    assert fold_all([Event(3, name, "run", at(3), 1, data)]).as_of_seq == 3


IDS = st.sampled_from("abc")
TEXT = st.text(max_size=3)
MAYBE_ID = st.fixed_dictionaries({}, optional={"message_id": IDS, "role": st.sampled_from(["user", "tool"])})
SEQS = st.integers(0, 40)
EVENTS = st.one_of(
    st.builds(begin, IDS),
    st.builds(finish, IDS),
    st.builds(lambda i: ("step.failed", {"step_id": i, "error": ERROR}), IDS),
    st.builds(call, IDS),
    st.builds(result, IDS, st.sampled_from(["ok", "running"])),
    st.builds(lambda i: ("tool.progress", {"call_id": i, "progress": i}), IDS),
    st.builds(lambda text, ids: delta(text, **ids), TEXT, MAYBE_ID),
    st.builds(lambda text, ids: ("message.completed", {"content": text, **ids}), TEXT, MAYBE_ID),
    st.builds(attempt, st.integers(1, 3), SEQS, SEQS),
    st.builds(lambda i: ("run.waiting_for_input", {"request_id": i, "prompt": i}), IDS),
    st.builds(lambda i: ("run.input_received", {"request_id": i, "content": i, "actor": i}), IDS),
    st.builds(lambda i: ("run.input_closed", {"request_id": i, "reason": i}), IDS),
    st.builds(lambda i: ("output.set", {"key": i, "value": i}), IDS),
    st.sampled_from([("run.completed", {"output": 1}), ("run.failed", {"error": ERROR}), ("run.restarted", {})]),
    st.sampled_from([("checkpoint.created", {"source": "x", "state": 1}), ("log", {"level": "i", "message": "x"})]),
    st.sampled_from([("custom.x", {"any": 1}), ("tool.result", {}), ("usage.recorded", {"model": 1})]),
)
LOGS = st.builds(
    lambda events, steps: [
        msgspec.structs.replace(event, step_id=step) for event, step in zip(log(*events), steps, strict=False)
    ],
    st.lists(EVENTS, max_size=40),
    st.lists(st.none() | IDS, min_size=40, max_size=40),
)


TIGHT = Bounds(value_bytes=12, fresh_bytes=700, running=2, messages=1, results=2, result_bytes=6)
ALL_BOUNDS = st.sampled_from([BOUNDS, TIGHT])


@given(LOGS, st.integers(0, 40), ALL_BOUNDS)
def test_a_stored_fold_goes_on_where_it_was(events: list[Event], cut: int, bounds: Bounds) -> None:
    """Folding a part, writing it down, reading it back and folding the rest equals folding all."""
    parted = fold_all(events[cut:], store(fold_all(events[:cut], bounds=bounds)), bounds)
    assert parted == fold_all(events, bounds=bounds)


@given(LOGS, ALL_BOUNDS)
def test_what_is_looked_up_is_what_is_shown(events: list[Event], bounds: Bounds) -> None:
    """After any log, the entries found by id are those that a reader of the lists would find."""
    state = fold_all(events, bounds=bounds)
    assert state.places == Places.of(state)
    assert all(entry.ended_at is None for entry in state.places.running.values())


@given(LOGS)
def test_what_is_dropped_is_older_than_what_is_told(events: list[Event]) -> None:
    """Under tight bounds every entry since `kept_from_seq` is there, and of older ones those that have not ended."""
    state, whole = fold_all(events, bounds=TIGHT), fold_all(events)
    for name in ("steps", "tool_calls", "messages", "usage", "checkpoints", "files", "history"):
        seqs = [entry.seq for entry in getattr(state, name)]
        assert seqs == sorted(seqs)
        assert set(seqs) >= {entry.seq for entry in getattr(whole, name) if entry.seq >= state.kept_from_seq}
    assert [q.request_id for q in state.open_questions] == [q.request_id for q in whole.open_questions]
    assert [c.seq for c in state.checkpoints[-1:]] == [c.seq for c in whole.checkpoints[-1:]]
    assert (state.totals, state.output, state.error) == (whole.totals, whole.output, whole.error)


@given(LOGS, st.lists(st.integers(0, 39), max_size=10))
def test_an_event_folds_once(events: list[Event], repeats: list[int]) -> None:
    """Events that come again change nothing."""
    again = [events[i] for i in repeats if i < len(events)]
    assert fold_all(again, fold_all(events)) == fold_all(events)


@given(LOGS, st.randoms(use_true_random=False))
def test_no_order_breaks_the_fold(events: list[Event], random: Any) -> None:
    """Events in any order fold to something that can be written."""
    shuffled = random.sample(events, len(events))
    renumbered = [msgspec.structs.replace(event, seq=seq) for seq, event in enumerate(shuffled, 1)]
    state = fold_all(renumbered)
    assert store(state) == state
