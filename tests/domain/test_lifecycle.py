"""The status table, compared with the one in the documents, written out a second time."""

from __future__ import annotations

import pytest

from gateway.domain.lifecycle import ALL, ENDINGS, HELD, LIVE, PERMITTED, TERMINAL, Action, Status, illegal, require
from gateway.errors import IllegalTransition

ENDED = "completed failed cancelled timed_out crashed system_failed expired dead_letter"
GOING = "delayed queued dequeued running waiting_for_input paused cancelling"
BY_HOLDER = "running waiting_for_input paused cancelling"

TABLE = {
    "due": "delayed",
    "claim": "queued",
    "start": "queued dequeued",
    "append": BY_HOLDER,
    "ask": "running waiting_for_input",
    "answer": "waiting_for_input",
    "pause": "running waiting_for_input queued dequeued",
    "resume": "paused",
    "cancel": GOING,
    "finish": BY_HOLDER,
    "confirm_cancel": BY_HOLDER,
    "fail_attempt": "dequeued running waiting_for_input",
    "lose_lease": f"dequeued {BY_HOLDER}",
    "release": f"dequeued {BY_HOLDER}",
    "crash": "running waiting_for_input",
    "time_out": "running waiting_for_input",
    "expire": "delayed queued",
    "retry": "failed cancelled timed_out crashed system_failed expired dead_letter",
    "replay": ENDED,
    "dlq_replay": "dead_letter",
    "restart": f"running paused {ENDED}",
    "reschedule": "delayed queued",
    "purge": ENDED,
}


def test_the_table_is_the_documented_one() -> None:
    """Every action, and every status that it may come from."""
    assert {str(action): set(map(str, PERMITTED[action])) for action in Action} == {
        action: set(statuses.split()) for action, statuses in TABLE.items()
    }


def test_statuses_are_terminal_or_live() -> None:
    """Each is one of the two; the words are those of the documents."""
    assert set(map(str, TERMINAL)) == set(ENDED.split())
    assert set(map(str, LIVE)) == set(GOING.split())
    assert set(map(str, HELD)) == set(BY_HOLDER.split())
    assert len(ALL) == len(Status) == 15


def test_every_terminal_status_has_its_event() -> None:
    """One each, so that the last event of a log tells how the run ended."""
    assert len(ENDINGS) == len(TERMINAL)
    assert set(ENDINGS.values()) == TERMINAL


@pytest.mark.parametrize("status", ALL)
@pytest.mark.parametrize("action", Action)
def test_require_passes_exactly_what_the_table_permits(action: Action, status: Status) -> None:
    """A refusal names the action, the present status and those that would do, in the table's order."""
    if status in PERMITTED[action]:
        require(action, status)
        return
    with pytest.raises(IllegalTransition) as refused:
        require(action, status)
    facts = refused.value.facts
    assert (facts["action"], facts["current_status"]) == (action, status)
    assert facts["permitted"] == [str(s) for s in ALL if s in PERMITTED[action]]
    assert str(status) in refused.value.detail


def test_a_dialect_may_narrow_but_not_widen() -> None:
    """What it permits counts only where the table permits it too."""
    require(Action.PAUSE, Status.RUNNING, narrowed=[Status.RUNNING])
    with pytest.raises(IllegalTransition) as refused:
        require(Action.PAUSE, Status.QUEUED, narrowed=[Status.RUNNING, Status.COMPLETED])
    assert refused.value.facts["permitted"] == ["running"]
    with pytest.raises(IllegalTransition):
        require(Action.PAUSE, Status.COMPLETED, narrowed=ALL)


def test_a_refusal_may_name_other_statuses() -> None:
    """Where more than the table decides, it is told what does."""
    assert illegal(Action.APPEND, "paused", [Status.RUNNING]).facts["permitted"] == ["running"]
