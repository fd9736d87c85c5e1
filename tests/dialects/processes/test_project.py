"""The words of processes, total both ways; names, stages, outputs, tokens and refusals as the page has them."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from msgspec.structs import replace

from gateway.dialects.processes.project import (
    PROCESS_TAG,
    WORDS,
    belongs,
    process_of,
    read_token,
    show,
    stage_of,
    tell,
    write_token,
)
from gateway.dialects.processes.wire import ListQuery, Output, Word
from gateway.domain.lifecycle import ALL, Status
from gateway.domain.run import SYSTEM, Run, RunSpec, RunState
from gateway.errors import BadRequest
from gateway.store.indexes import Position

QUERY = ListQuery(process_id="p1", agent_id="a1")
PLACE = Position(1_700_000_000_123_456, "01J00000000000000000000000")


def run_of(output: Any = None, **about: Any) -> Run:
    """Return a run as the store would hold it."""
    spec = RunSpec(
        id="01J00000000000000000000000",
        tenant="t",
        agent_id="a1",
        mode="queued",
        thread_id="th",
        created_us=1_609_502_400_999_999,
        actor=SYSTEM,
    )
    state = RunState(status=Status.COMPLETED, output=output)
    now_ms = spec.created_us // 1000
    spec = replace(spec, **about)
    return Run(spec=spec, state=state, rev=1, head_seq=1, head_tag=1, first_seq=1, updated_ms=now_ms)


def test_every_status_has_a_word_and_every_word_its_statuses() -> None:
    """None is without the other."""
    assert {WORDS.of(status) for status in ALL} == set(get_args(Word))
    assert {status for word in get_args(Word) for status in WORDS.select(word)} == set(ALL)


def test_a_run_of_another_api_has_its_agent_as_process_and_is_published() -> None:
    """Its name is its title, as much of it as a name may have, else its id; times are as the page prints them."""
    shown = show(run_of(), {})
    assert (shown.process_id, shown.stage, shown.name) == ("a1", "Published", shown.id)
    assert (shown.created_at, shown.file_ids) == ("2021-01-01T12:00:00", None)
    assert show(run_of(title="x" * 300), {}).name == "x" * 100
    assert process_of(run_of(tags={PROCESS_TAG: "p9"}).spec) == "p9"


@pytest.mark.parametrize("written", [7, None, "Draft", {"stage": 1}, {"stage": "draft"}, {}])
def test_whatever_stands_in_the_extension_does_no_harm(written: Any) -> None:
    """Other APIs let anything be written there."""
    assert stage_of(run_of(extensions={"processes": written}).spec) == "Published"
    assert stage_of(run_of(extensions={"processes": {"stage": "Draft"}}).spec) == "Draft"


@pytest.mark.parametrize(
    ("output", "named", "shown"),
    [
        (None, {}, None),
        ({}, {}, []),
        ({"a": 1, "b": None}, {}, [Output("a", 1), Output("b", None)]),
        ("done", {}, [Output("output", "done")]),
        ([1], {}, [Output("output", [1])]),
        ({"a": 1}, {"c": [2]}, [Output("c", [2])]),
        (None, {"c": None}, [Output("c", None)]),
    ],
)
def test_outputs_are_the_named_ones_else_what_the_run_completed_with(
    output: Any, named: dict[str, Any], shown: list[Output] | None
) -> None:
    """Null while there is neither."""
    assert show(run_of(output), named).outputs == shown


def test_a_run_belongs_to_its_process_and_stage() -> None:
    """Whichever way it was given them."""
    given = run_of(tags={PROCESS_TAG: "p1"}, extensions={"processes": {"stage": "Draft"}})
    assert belongs(QUERY, given)
    assert belongs(replace(QUERY, stage="Draft"), given)
    assert not belongs(replace(QUERY, stage="Published"), given)
    assert not belongs(replace(QUERY, process_id="a1"), given)
    assert belongs(replace(QUERY, process_id="a1", stage="Published"), run_of())


def test_a_token_leads_back_to_its_place() -> None:
    """None at the end; limits may differ between pages."""
    token = write_token(QUERY, PLACE)
    assert token is not None
    assert read_token(replace(QUERY, continuation_token=token, limit=3)) == PLACE
    assert (write_token(QUERY, None), read_token(QUERY)) == (None, None)


@pytest.mark.parametrize("token", ["", "x", "é", "====", "a" * 10_000, "MS0yLTM"])
def test_a_token_that_nobody_gave_is_refused(token: str) -> None:
    """And one of another query."""
    with pytest.raises(BadRequest):
        read_token(replace(QUERY, continuation_token=token))
    for other in ({"process_id": "p2"}, {"agent_id": "a2"}, {"stage": "Draft"}):
        with pytest.raises(BadRequest):
            read_token(replace(QUERY, continuation_token=write_token(QUERY, PLACE), **other))


@pytest.mark.parametrize(
    ("problem", "status", "told"),
    [
        ({"code": "not_found", "status": 404, "detail": "None."}, 404, "None."),
        ({"code": "bad_request", "status": 400, "detail": "No JSON."}, 400, "No JSON."),
        ({"code": "too_large", "status": 413, "detail": "Much.", "path": "input"}, 413, "Much."),
        (
            {"code": "bad_request", "status": 400, "detail": "The parameter a is required.", "parameter": "a"},
            422,
            [("missing", ["query", "a"], "The parameter a is required.")],
        ),
        (
            {"code": "invalid_body", "status": 422, "detail": "Expected `str`, at $.a.b[2].c.", "path": "$.a.b[2].c"},
            422,
            [("value_error", ["body", "a", "b", 2, "c"], "Expected `str`")],
        ),
        (
            {
                "code": "invalid_body",
                "status": 422,
                "detail": "Object missing required field `name`, at $.",
                "path": "$",
            },
            422,
            [("missing", ["body", "name"], "Object missing required field `name`")],
        ),
    ],
)
def test_a_refusal_says_where(problem: dict[str, Any], status: int, told: Any) -> None:
    """A sentence, or what is wrong with each parameter or member."""
    http_status, refusal = tell(problem)
    assert http_status == status
    if isinstance(told, str):
        assert refusal.detail == told
    else:
        assert not isinstance(refusal.detail, str)
        assert [(fault.type, fault.loc, fault.msg) for fault in refusal.detail] == told
