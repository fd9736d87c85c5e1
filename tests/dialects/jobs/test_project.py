"""The projection of runs: pure, total, and true to what the record says."""

from __future__ import annotations

import re
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.dialects.jobs import project, refusals, wire
from gateway.dialects.jobs.finding import position_of
from gateway.domain.due import Verdict
from gateway.domain.fold_state import Change
from gateway.domain.lifecycle import ALL, PERMITTED, Action, Status, illegal
from gateway.domain.retry import Policy
from gateway.domain.run import Dependency, Question, Run, RunState
from gateway.domain.times import format_time_us
from gateway.service.bulk import BulkResult
from gateway.service.runs import NeedStatus
from gateway.store.indexes import Position
from tests.dialects.jobs import seed
from tests.support.histories import BEGIN_MS, make_spec

STEERS = {
    Action.CANCEL,
    Action.PAUSE,
    Action.RESUME,
    Action.REPLAY,
    Action.DLQ_REPLAY,
    Action.RESTART,
    Action.RESCHEDULE,
}
AT = "2027-01-15T08:00:00.000Z"


def make_run(state: dict[str, Any] | None = None, beat_ms: int = 0, **spec: Any) -> Run:
    """Return a run as the store would hold it."""
    return Run(
        spec=make_spec(**spec),
        state=RunState(**{"status": Status.QUEUED, **(state or {})}),
        rev=1,
        head_seq=1,
        head_tag=1,
        first_seq=1,
        updated_ms=BEGIN_MS,
        beat_ms=beat_ms,
    )


def test_every_field_shows_what_the_record_says() -> None:
    """A run with everything that a run can have."""
    run = make_run(
        {
            "status": Status.FAILED,
            "attempt": 2,
            "queued_ms": BEGIN_MS,
            "claimed_ms": BEGIN_MS + 1_000,
            "claim_took_ms": 3,
            "started_ms": BEGIN_MS + 1_200,
            "attempt_started_ms": BEGIN_MS + 1_200,
            "ended_ms": BEGIN_MS + 5_000,
            "expires_ms": BEGIN_MS + 9_000,
            "debug_mode": True,
            "error": {"code": "broken", "message": "It broke."},
        },
        beat_ms=BEGIN_MS + 4_000,
        created_us=BEGIN_MS * 1000 + 7,
        input={"a": 1},
        tags={"t": "v"},
        metadata={"s": "text", "n": 1.5, "l": [1], "gone": None},
        trigger="retry",
        parent_run_id="P",
        retry_of="R",
        lineage_depth=3,
        batch_id="B",
        agent_version=4,
        priority=5,
        concurrency_key="K",
        policy=Policy(max_attempts=3, backoff="linear", initial_delay_ms=1_500, max_delay_ms=60_000),
        overrides={"max_attempts": 3, "timeout_ms": 2_001},
        idempotency_key="I",
        extensions={"jobs": {"workflow_step_run_id": "W"}},
    )
    shown = msgspec.to_builtins(project.run(run))
    assert shown == {
        "id": run.id,
        "job_id": "a",
        "project_id": "t",
        "status": "failed",
        "attempt": 2,
        "payload": {"a": 1},
        "result": None,
        "metadata": {"s": "text", "n": "1.5", "l": "[1]"},
        "error": "It broke.",
        "triggered_by": "retry",
        "scheduled_at": None,
        "started_at": "2027-01-15T08:00:01.200Z",
        "finished_at": "2027-01-15T08:00:05.000Z",
        "heartbeat_at": "2027-01-15T08:00:04.000Z",
        "next_retry_at": None,
        "expires_at": "2027-01-15T08:00:09.000Z",
        "parent_run_id": "P",
        "priority": 5,
        "idempotency_key": "I",
        "job_version": 4,
        "workflow_step_run_id": "W",
        "max_attempts_override": 3,
        "timeout_secs_override": 3,
        "retry_backoff": "linear",
        "retry_initial_delay_secs": 2,
        "retry_max_delay_secs": 60,
        "execution_trace": {
            "queue_wait_ms": 1_000,
            "dequeue_ms": 3,
            "connect_ms": 200,
            "ttfb_ms": None,
            "transfer_ms": 3_800,
            "total_ms": 5_000,
            "dispatch_ms": 1_000,
        },
        "debug_mode": True,
        "continuation_of": "R",
        "lineage_depth": 3,
        "tags": {"t": "v"},
        "job_version_id": "a@4",
        "created_by": "tester",
        "batch_id": "B",
        "concurrency_key": "K",
        "created_at": "2027-01-15T08:00:00.000007Z",
    }
    seed.check_like(shown, seed.RUN)


def test_a_field_is_null_where_nobody_said_anything() -> None:
    """An override that was not made is none; a policy that is the default is shown."""
    shown = project.run(make_run())
    assert (shown.max_attempts_override, shown.timeout_secs_override) == (None, None)
    assert (shown.retry_backoff, shown.retry_initial_delay_secs, shown.retry_max_delay_secs) == ("exponential", 1, 300)
    assert (shown.payload, shown.result, shown.error, shown.job_version_id) == (None, None, None, None)
    assert (shown.job_version, shown.metadata, shown.tags) == (0, {}, {})


def test_a_rest_between_two_attempts_is_no_schedule() -> None:
    """A delayed run says either when it was scheduled for, or when it is tried again."""
    scheduled = project.run(make_run({"status": Status.DELAYED, "scheduled_ms": BEGIN_MS}))
    assert (scheduled.scheduled_at, scheduled.next_retry_at) == (AT, None)
    state = {"status": Status.DELAYED, "scheduled_ms": BEGIN_MS, "next_retry_ms": BEGIN_MS}
    resting = project.run(make_run(state))
    assert (resting.scheduled_at, resting.next_retry_at) == (None, AT)


def test_a_key_that_was_reset_is_shown_no_more() -> None:
    """It stands for the run no longer."""
    assert project.run(make_run({"key_reset": True}, idempotency_key="I")).idempotency_key is None


@pytest.mark.parametrize("value", ["text", 1, [1, 2], True, 0, ""])
def test_what_is_no_object_is_wrapped_where_the_system_has_objects(value: Any) -> None:
    """In payload and result; null stays null and an object stays as it is."""
    shown = project.run(make_run({"status": Status.COMPLETED, "output": value}, input=value))
    assert shown.payload == shown.result == {"value": value}
    assert project.wrap(None) is None
    assert project.wrap({"value": 1}) == {"value": 1}


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (None, None),
        ({"code": "c", "message": "m", "details": 1}, "m"),
        ("plain", "plain"),
        ({"code": "c"}, '{"code":"c"}'),
        (["odd"], '["odd"]'),
    ],
)
def test_an_error_is_a_sentence(error: Any, told: str | None) -> None:
    """Its message, or its JSON where it has none."""
    assert project.run(make_run({"status": Status.FAILED, "error": error})).error == told


@pytest.mark.parametrize("extensions", [{}, {"jobs": None}, {"jobs": {"workflow_step_run_id": 1}}, {"jobs": [1]}])
def test_extensions_of_any_shape_are_survived(extensions: dict[str, Any]) -> None:
    """Whoever created the run wrote them."""
    assert project.run(make_run(extensions=extensions)).workflow_step_run_id is None


def test_status_words_are_the_pages_and_total_both_ways() -> None:
    """Every status has one of the page's words, and every word selects what shows as it, all of it together."""
    assert set(project.WORDS.known) == set(get_args(wire.StatusWord))
    assert {project.run(make_run({"status": status})).status for status in ALL} == set(project.WORDS.known)
    for word in project.WORDS.known:
        assert {project.WORDS.of(status) for status in project.WORDS.select(word)} == {word}
    assert project.WORDS.select(*project.WORDS.known) == set(ALL)
    told = {status: project.WORDS.of(status) for status in ALL if project.WORDS.of(status) != status}
    assert told == {
        Status.RUNNING: "executing",
        Status.WAITING: "waiting",
        Status.CANCELLING: "canceled",
        Status.CANCELLED: "canceled",
    }


@given(st.integers(0, 10**16))
def test_a_time_of_creation_can_be_read_back_to_the_microsecond(created_us: int) -> None:
    """So that it is a cursor."""
    text = f'"{format_time_us(created_us)}"'
    assert position_of(msgspec.json.decode(text, type=wire.Moment)) == Position(created_us, "")


@given(st.dictionaries(st.sampled_from("abcdefg"), st.none() | st.sampled_from("abcdefgxyz"), max_size=7))
def test_a_chain_is_the_same_from_each_of_its_runs(links: dict[str, str | None]) -> None:
    """Whoever is in it finds all of it, and nobody else does."""
    for one in links:
        chain = project.chain(links, one)
        assert one in chain
        assert all(project.chain(links, other) == chain for other in chain)
        continued = links[one]
        assert continued not in links or continued in chain


def test_a_chain_leaves_out_what_was_spawned() -> None:
    """Children of the same family continue nobody."""
    links = {"root": None, "retry": "root", "again": "retry", "child": None, "child2": "child"}
    assert project.chain(links, "again") == {"root", "retry", "again"}
    assert project.chain(links, "child2") == {"child", "child2"}


@pytest.mark.parametrize(
    ("verdicts", "told_before", "satisfied"),
    [
        ([], False, True),
        ([Verdict.MET, Verdict.MET], False, True),
        ([Verdict.MET, Verdict.WAITING], False, False),
        ([Verdict.UNSATISFIABLE], False, False),
        ([Verdict.UNSATISFIABLE], True, True),
    ],
)
def test_dependencies_are_satisfied_once_and_for_all(
    verdicts: list[Verdict], told_before: bool, satisfied: bool
) -> None:
    """All of them have to be; what was satisfied stays so when such a run is restarted or gone."""
    run = make_run({"dependencies_met": told_before})
    needs = [NeedStatus(Dependency(f"N{i}", "other", "failed"), None, verdict) for i, verdict in enumerate(verdicts)]
    shown = project.dependency_status(run, needs)
    assert shown.dependencies_satisfied is satisfied
    assert [(d.id, d.job_id, d.depends_on_job_id, d.condition) for d in shown.dependencies] == [
        (f"N{i}", "a", "other", "failed") for i in range(len(verdicts))
    ]


HISTORY = [(1, "run.cancel_requested"), (2, "run.restarted"), (3, "run.cancel_requested"), (4, "run.debug_mode_set")]


def test_pending_is_what_somebody_still_has_to_do() -> None:
    """Every open question, and a pause or cancellation that the holder was asked for."""
    question = Question("q1", "Go on?", BEGIN_MS)
    asked = project.pending(make_run({"status": Status.WAITING, "open": (question,)}), [])
    assert [(p.type, p.request_id, p.prompt, p.created_at) for p in asked] == [("input", "q1", "Go on?", AT)]
    paused = project.pending(make_run({"status": Status.PAUSED, "held": True, "paused_ms": BEGIN_MS}), [])
    assert [(p.type, p.created_at) for p in paused] == [("pause", AT)]
    history = [Change(seq=n, attempt=1, type=kind, at=f"at {n}", actor=None, reason=None) for n, kind in HISTORY]
    ending = project.pending(make_run({"status": Status.CANCELLING, "held": True}), history)
    assert [(p.type, p.created_at) for p in ending] == [("cancel", "at 3")]
    assert project.pending(make_run({"status": Status.PAUSED}), []) == []


@pytest.mark.parametrize(
    ("code", "status", "told"),
    [
        ("invalid_body", 422, 400),
        ("idempotency_mismatch", 422, 422),
        ("not_found", 404, 404),
        ("log_full", 409, 409),
        ("internal", 500, 500),
    ],
)
def test_a_refusal_is_a_sentence_and_a_request_id(code: str, status: int, told: int) -> None:
    """A value that is not allowed is a bad request like any other."""
    problem = {"code": code, "status": status, "detail": "No.", "request_id": "r1", "title": "x", "fact": 1}
    assert refusals.tell(problem) == (told, wire.Refusal(error="No.", request_id="r1"))


NATIVE_ONLY = re.compile(r"running|waiting_for_input|cancell|dlq")


@given(st.sampled_from(sorted(STEERS)), st.sampled_from(ALL))
def test_a_wrong_status_is_told_in_the_systems_words(action: Action, status: Status) -> None:
    """Where the run stands and where it would have to stand, in words that a list of runs takes."""
    assume(status not in PERMITTED[action])
    error = illegal(action, status)
    code, told = refusals.tell({"code": error.code, "status": 409, "detail": "x", "request_id": "r", **error.facts})
    assert code == 409
    assert not NATIVE_ONLY.search(told.error)
    assert project.WORDS.of(status) in told.error
    # A bulk action says of one run what an action on it alone says.
    assert refusals.cancel_result(BulkResult("r1", error=error)).error == told.error


def test_what_is_being_canceled_is_not_told_that_it_is_canceled_already() -> None:
    """It shows as canceled while its holder lets go: a replay has to wait, a cancel has nothing to wait for."""
    replay = illegal(Action.REPLAY, Status.CANCELLING)
    assert refusals.cancel_result(BulkResult("r", error=replay)).error == (
        "The run is only about to be canceled; try again in a moment."
    )
    cancel = illegal(Action.CANCEL, Status.CANCELLED)
    assert refusals.cancel_result(BulkResult("r", error=cancel)) == wire.CancelResult(
        id="r",
        status="canceled",
        error="A run that is canceled cannot be canceled; it must be one of: "
        "delayed, queued, dequeued, executing, waiting, paused.",
    )
