"""What each action means: the events it makes, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.domain import appends, decisions, questions
from gateway.domain.draft import Draft
from gateway.domain.due import fall_due, next_look_ms
from gateway.domain.events import NewEvent
from gateway.domain.lifecycle import Action, Status
from gateway.domain.run import Run
from gateway.domain.times import format_time, parse_time
from gateway.errors import (
    AlreadyAnswered,
    AmbiguousQuestion,
    IllegalTransition,
    InputRequired,
    InvalidBody,
    NoSuchQuestion,
    QuestionClosed,
    TooLarge,
)
from tests.support.histories import ACTOR, BEGIN_MS, GRACE_MS, RETENTION, STEPS, append, ask, begin, commit, make_spec

LATER_MS = BEGIN_MS + 1_000


def run_after(*steps: Any, at_ms: int = BEGIN_MS, **about: Any) -> Run:
    """Return a run to which these steps were done."""
    run, _ = begin(make_spec(**about))
    for step in steps:
        draft = Draft.of(run, at_ms)
        step = STEPS[step] if isinstance(step, str) else step
        step(run, draft)
        run = commit(run, draft, by_holder=hasattr(step, "by_holder"))
    return run


def done(run: Run, step: Any, at_ms: int = LATER_MS) -> list[tuple[str, dict[str, Any]]]:
    """Return the events that a step makes."""
    draft = Draft.of(run, at_ms)
    (STEPS[step] if isinstance(step, str) else step)(run, draft)
    return [(event.type, event.data) for event in draft.events]


def types(run: Run, step: Any, at_ms: int = LATER_MS) -> list[str]:
    """Return the types of the events that a step makes."""
    return [kind for kind, _ in done(run, step, at_ms)]


def test_a_new_run_waits_for_its_start() -> None:
    """It says what it was created with, but not what access rules hold of it, and until when it waits."""
    _, log = begin(make_spec(input={"a": 1}, tags={"t": "v"}, start_timeout_ms=5_000))
    (created, _), (queued, _) = log
    assert created.data["agent_id"] == "a"
    assert (created.data["input"], created.data["tags"]) == ({"a": 1}, {"t": "v"})
    assert not created.data.keys() & {"id", "tenant", "created_us"}
    assert queued.data == {"expires_at": format_time(BEGIN_MS + 5_000)}


def test_a_delayed_run_is_only_created() -> None:
    """Nothing else happens before its time; then it is queued."""
    run, log = begin(make_spec(scheduled_ms=LATER_MS))
    assert [event.type for event, _ in log] == ["run.created"]
    assert next_look_ms(run, **RETENTION) == LATER_MS
    assert types(run, "time", LATER_MS - 1) == []
    assert types(run, "time") == ["run.queued"]


def test_the_first_append_starts_the_run() -> None:
    """With `run.started` before it; the caller's own events begin after that."""
    run = run_after()
    draft = Draft.of(run, LATER_MS)
    own = appends.append(run, draft, [NewEvent("log", {})], ACTOR, ["q"])
    assert ([event.type for event in draft.events], own) == (["run.started", "log"], 1)
    assert types(run_after("log"), "log") == ["log"]


def test_no_append_starts_what_may_not_be_started() -> None:
    """Delayed, paused before its start, ended: refused with the statuses that would do."""
    for steps, about in (((), {"scheduled_ms": LATER_MS}), (("pause",), {}), (("force",), {})):
        run = run_after(*steps, **about)
        with pytest.raises(IllegalTransition) as refused:
            done(run, "log")
        permitted = refused.value.facts["permitted"]
        assert {"queued", "running"} <= set(permitted)
        assert run.status not in permitted


def test_a_new_attempt_says_what_it_supersedes() -> None:
    """Everything since the last attempt began, up to the restart."""
    run = run_after("log", "log", "restart")
    assert run.state.attempt == 2
    assert done(run, "log")[0] == ("run.attempt_started", {"attempt": 2, "supersedes": [1, 5]})


def test_an_end_closes_what_is_open() -> None:
    """Each question gets its own event, before the end."""
    run = run_after("ask twice")
    for end in ("complete", "fail", "confirm", "force"):
        kinds = types(run, end)
        assert [kind for kind in kinds if kind != "log"][:2] == ["run.input_closed"] * 2
        assert len([kind for kind in kinds if kind != "log"]) == 3


def test_a_holder_is_given_time_to_cancel() -> None:
    """Whoever is not held needs none; a second request gives no second grace."""
    held = run_after("log")
    (kind, data), *_ = done(held, "cancel")
    assert (kind, data["deadline_at"]) == ("run.cancel_requested", format_time(LATER_MS + GRACE_MS))
    assert types(run_after("log", "cancel"), "cancel") == []
    for free in (run_after(), run_after("pause"), run_after("log", "restart")):
        assert types(free, "cancel") == ["run.cancelled"]


def test_a_resume_goes_back_to_where_the_pause_came_from() -> None:
    """To a question if one is open, to work if somebody holds it, else to the queue with a new deadline."""
    assert commit_status(run_after("log", "pause"), "resume") is Status.RUNNING
    assert commit_status(run_after("ask", "pause"), "resume") is Status.WAITING
    assert commit_status(run_after("pause"), "resume") is Status.QUEUED
    assert "expires_at" in done(run_after("pause"), "resume")[0][1]
    assert "expires_at" not in done(run_after("log", "pause"), "resume")[0][1]
    with pytest.raises(InputRequired):
        done(run_after("ask"), "resume")


def commit_status(run: Run, step: str) -> Status:
    """Return the status after a step."""
    draft = Draft.of(run, LATER_MS)
    STEPS[step](run, draft)
    return draft.status


def test_copies_are_of_ended_runs() -> None:
    """A completed one is replayed, not retried."""
    decisions.copy(run_after("log", "fail"), Action.RETRY)
    decisions.copy(run_after("log", "complete"), Action.REPLAY)
    for run, action in ((run_after("log", "complete"), Action.RETRY), (run_after("log"), Action.REPLAY)):
        with pytest.raises(IllegalTransition):
            decisions.copy(run, action)


@pytest.mark.parametrize(
    ("steps", "about", "due_ms", "kinds"),
    [
        (["log"], {"timeout_ms": 50_000}, 50_000, ["run.timed_out"]),
        (["log"], {"heartbeat_ms": 30_000}, 30_000, ["run.crashed"]),
        (["ask"], {"heartbeat_ms": 30_000}, 30_000, ["run.input_closed", "run.crashed"]),
        (["log", "cancel"], {"timeout_ms": 5_000}, GRACE_MS, ["run.cancelled"]),
        (["ask, fail", "cancel"], {}, GRACE_MS, ["run.input_closed", "run.cancelled"]),
        (["log", "cancel"], {"heartbeat_ms": 5_000}, 5_000, ["run.cancelled"]),
        ([], {"start_timeout_ms": 7_000}, 7_000, ["run.expired"]),
        (["pause", "resume"], {"start_timeout_ms": 7_000}, 7_000, ["run.expired"]),
        (["ask, fail"], {}, 5_000, ["run.input_closed", "run.failed"]),
        (["ask, cancel"], {}, 5_000, ["run.input_closed", "run.cancelled"]),
        (["ask, default"], {}, 5_000, ["run.input_received"]),
        (["ask, default", "pause"], {}, 5_000, ["run.input_received"]),
        (["ask, default", "ask, default"], {}, 5_000, ["run.input_received"] * 2),
        (["ask, fail", "ask"], {}, 5_000, ["run.input_closed", "run.input_closed", "run.failed"]),
        (["reschedule"], {}, 60_000, ["run.queued"]),
    ],
    ids=str,
)
def test_time_asks_for_one_thing_at_its_time(
    steps: list[str], about: dict[str, Any], due_ms: int, kinds: list[str]
) -> None:
    """The timer is set to when it is due; a moment earlier nothing happens."""
    run = run_after(*steps, **about)
    assert next_look_ms(run, **RETENTION) == BEGIN_MS + due_ms
    assert types(run, "time", BEGIN_MS + due_ms - 1) == []
    assert types(run, "time", BEGIN_MS + due_ms) == kinds


@pytest.mark.parametrize(
    ("steps", "about"),
    [
        (["log"], {}),
        (["ask"], {}),
        (["ask, keep"], {}),
        (["pause"], {}),
        (["log", "pause"], {"timeout_ms": 1_000, "heartbeat_ms": 1_000}),
    ],
    ids=str,
)
def test_time_asks_nothing_of_who_has_no_deadline(steps: list[str], about: dict[str, Any]) -> None:
    """However late it is; a pause stops the clocks."""
    run = run_after(*steps, **about)
    assert next_look_ms(run, **RETENTION) is None
    assert types(run, "time", BEGIN_MS + 10**10) == []


def test_nobody_is_silent_while_nobody_listens() -> None:
    """A gateway that was away gives a holder the whole heartbeat again."""
    run = run_after("log", heartbeat_ms=30_000)
    draft = Draft.of(run, BEGIN_MS + 10**6)
    fall_due(run, draft, listening_since_ms=BEGIN_MS + 10**6 - 29_999)
    assert draft.events == []
    assert next_look_ms(run, **RETENTION, listening_since_ms=BEGIN_MS + 10**6) == BEGIN_MS + 10**6 + 30_000
    assert next_look_ms(run, **RETENTION, listening_since_ms=BEGIN_MS - 10**6) == BEGIN_MS + 30_000
    fall_due(run, draft, listening_since_ms=BEGIN_MS + 10**6 - 30_000)
    assert [event.type for event in draft.events] == ["run.crashed"]


@pytest.mark.parametrize(("started", "left"), [(False, "run.attempt_failed"), (True, None)])
def test_a_claimed_run_that_is_only_kept_up_is_lost(started: bool, left: str | None) -> None:
    """Ten leases after its claim, without an attempt being counted; one that was begun is kept as long as it beats."""
    run = run_after("claim", *(["log"] if started else []), mode="queued", lease_ms=30_000)
    kept_ms = BEGIN_MS + 295_000
    run = msgspec.structs.replace(run, beat_ms=kept_ms)
    assert next_look_ms(run, **RETENTION) == (kept_ms + 30_000 if started else BEGIN_MS + 300_000)
    assert types(run, "time", BEGIN_MS + 299_999) == []
    events = done(run, "time", BEGIN_MS + 300_000)
    assert [kind for kind, _ in events] == ([left] if left else [])
    assert all(data["next_attempt"] == 1 for _, data in events)


def test_an_ended_run_is_looked_at_when_its_log_and_its_record_expire() -> None:
    """Counted from its end."""
    run = run_after("log", "complete")
    assert next_look_ms(run, log_retention_ms=10, record_retention_ms=20) == BEGIN_MS + 10
    expired = msgspec.structs.replace(run, log_expired=True)
    assert next_look_ms(expired, log_retention_ms=10, record_retention_ms=20) == BEGIN_MS + 20


def test_a_question_is_completed_by_the_gateway() -> None:
    """A missing id is filled in, seconds become a time."""
    (kind, data), *_ = done(run_after("log"), ask(timeout_s=1.5))
    assert kind == "run.waiting_for_input"
    assert data["request_id"]
    assert (parse_time(data["deadline_at"]), "timeout_s" in data) == (LATER_MS + 1_500, False)


@pytest.mark.parametrize("spent", ["open", "answered", "closed", "same batch"])
def test_an_id_is_asked_once(spent: str) -> None:
    """Whatever became of the question."""
    question = ("run.waiting_for_input", {"prompt": "?", "request_id": "q"})
    close = ("run.input_closed", {"request_id": "q"})
    steps: dict[str, list[Any]] = {
        "open": [append(question)],
        "answered": [append(question), "answer"],
        "closed": [append(question, close)],
    }
    again = append(question, close, question) if spent == "same batch" else append(question)
    with pytest.raises(InvalidBody) as refused:
        done(run_after(*steps.get(spent, [])), again)
    assert refused.value.facts["question_id"] == "q"


def test_open_questions_are_bounded() -> None:
    """One too many is refused with its place in the batch."""
    asked = [("run.waiting_for_input", {"prompt": "?", "request_id": f"q{n}"}) for n in range(33)]
    with pytest.raises(TooLarge) as refused:
        done(run_after(), append(*asked))
    assert (refused.value.facts["index"], refused.value.facts["limit"]) == (32, 32)


def answer(request_id: str | None, content: Any = "yes") -> Any:
    """Return the step of an answer."""
    return lambda run, draft: questions.answer(run, draft, request_id, content, ACTOR)


def test_an_answer_finds_its_question_or_says_why_not() -> None:
    """None, one of several, an unknown, an answered and a withdrawn one."""
    one, two = ask(request_id="one"), ask(request_id="two")
    assert types(run_after(one), answer(None)) == ["run.input_received"]
    cases: list[tuple[list[Any], str | None, type[Exception]]] = [
        ([one, two], None, AmbiguousQuestion),
        ([one], "other", NoSuchQuestion),
        ([one, "answer"], "one", AlreadyAnswered),
        ([one, two, answer("one")], "one", AlreadyAnswered),
        ([one, append(("run.input_closed", {"request_id": "one"}))], "one", QuestionClosed),
        ([one, "complete"], "one", QuestionClosed),
        (["log"], None, IllegalTransition),
        ([one, "pause"], "one", IllegalTransition),
        ([one, "cancel"], "one", IllegalTransition),
    ]
    for steps, request_id, error in cases:
        with pytest.raises(error):
            done(run_after(*steps), answer(request_id))


def test_a_run_waits_until_its_last_question_is_closed() -> None:
    """Then it goes on by itself."""
    run = run_after(ask(request_id="one"), ask(request_id="two"), answer("two"))
    assert run.status is Status.WAITING
    draft = Draft.of(run, LATER_MS)
    answer("one")(run, draft)
    assert draft.status is Status.RUNNING


def test_a_draft_of_a_new_run_has_no_state_yet() -> None:
    """Asking for it is a mistake of the gateway's own."""
    with pytest.raises(LookupError):
        _ = Draft(None, 0).state
