"""The words of run management: total in both directions, and the same for steps."""

from __future__ import annotations

from typing import get_args

import pytest

from gateway.dialects.agents.project import ALLOWED, STEP_WORDS, WORDS, second, statuses_of, step_result, tell
from gateway.dialects.agents.wire import StepWord, Word
from gateway.domain.fold_state import Step
from gateway.domain.lifecycle import ALL, LIVE, Action, Status, illegal


def test_every_status_has_a_word_and_every_word_its_statuses() -> None:
    """The words are the six of the page; none of them is without a status."""
    assert {WORDS.of(status) for status in ALL} == set(get_args(Word))
    assert {status for word in get_args(Word) for status in WORDS.select(word)} == set(ALL)
    for word in get_args(Word):
        assert WORDS.select(word) <= statuses_of(word)
    assert statuses_of(None) == frozenset()


def test_transitions_speak_of_known_words_only() -> None:
    """Each action that the page lists has its words, all of them known."""
    assert ALLOWED.keys() == {Action.PAUSE, Action.RESUME, Action.CANCEL, Action.RETRY}
    for words in ALLOWED.values():
        assert set(words) <= set(WORDS.known)


@pytest.mark.parametrize("status", ["started", "completed", "failed", "abandoned"])
def test_a_step_shows_in_the_words_of_runs(status: str) -> None:
    """Its result has every field, null where there is nothing; its name is its id where it was never named."""
    step = Step(seq=1, attempt=1, step_id="s1", status=status, started_at="2026-05-26T11:42:19.123Z")
    result = step_result(step)
    assert result.status in get_args(StepWord)
    assert result.status == STEP_WORDS[status]
    assert (result.name, result.started_at, result.completed_at) == ("s1", "2026-05-26T11:42:19Z", None)
    assert (result.output, result.error) == (None, None)


def test_times_are_utc_to_the_second() -> None:
    """As the page prints them."""
    assert second(1_779_795_739_999) == "2026-05-26T11:42:19Z"
    assert second(None) is None


@pytest.mark.parametrize("action", ALLOWED)
@pytest.mark.parametrize("status", ALL)
def test_a_wrong_state_is_told_in_the_words_of_the_page(action: Action, status: Status) -> None:
    """Whatever the core's refusal says, no status word of it gets through."""
    problem = illegal(action, status)
    facts = {"code": "invalid_state", "status": 409, "detail": problem.detail, "request_id": "r", **problem.facts}
    http_status, refusal = tell(facts)
    assert (http_status, refusal.error) == (409, "invalid_state")
    assert refusal.details["current_status"] == WORDS.of(status)
    assert refusal.details["permitted"] == list(ALLOWED[action])
    if status in LIVE and WORDS.of(status) != status.value:
        assert status.value not in refusal.message
