"""Refusals, as errors that a caller can act on."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from gateway.client import errors
from gateway.client.backoff import Backoff
from gateway.client.environment import find_key, find_url
from gateway.client.problems import read_refusal


def test_a_problem_document_becomes_its_error() -> None:
    """Code, facts, request id and the time to come back are fields of the error."""
    problem = {
        "type": "about:blank",
        "title": "Conflict",
        "status": 409,
        "detail": "It is over.",
        "code": "invalid_state",
        "request_id": "r1",
        "permitted": ["running"],
    }
    error = read_refusal(httpx.Response(409, json=problem, headers={"Retry-After": "2"}))
    assert isinstance(error, errors.InvalidState)
    assert (error.detail, error.code, error.facts, error.request_id, error.retry_after_s) == (
        "It is over.",
        "invalid_state",
        {"permitted": ["running"]},
        "r1",
        2.0,
    )


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.BadRequest),
        (401, errors.Unauthenticated),
        (403, errors.Forbidden),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (410, errors.LogExpired),
        (413, errors.TooLarge),
        (422, errors.InvalidBody),
        (418, errors.ApiError),
        (503, errors.Unavailable),
    ],
)
def test_a_page_of_a_proxy_still_is_the_error_of_its_status(status: int, kind: type[Exception]) -> None:
    """A body that is no problem document, or no JSON at all, hides no status."""
    for body in (b"<html>", b"", b"[1]"):
        assert type(read_refusal(httpx.Response(status, content=body))) is kind


def test_a_contended_run_may_be_asked_again() -> None:
    """What the gateway calls safe to repeat is repeated."""
    assert isinstance(read_refusal(httpx.Response(409, json={"code": "contended"})), errors.Unavailable)


def test_waits_grow_and_stay_under_their_ceiling() -> None:
    """A delay is anywhere under a ceiling that doubles, up to the caller's bound."""
    backoff = Backoff(initial_s=1.0, max_s=6.0)
    for failures, ceiling_s in ((0, 1.0), (1, 2.0), (2, 4.0), (3, 6.0), (99, 6.0)):
        assert all(0 <= backoff.delay_s(failures) <= ceiling_s for _ in range(50))
    assert all(backoff.delay_s(0, initial_s=60) <= 6.0 for _ in range(50))


def test_the_key_comes_from_the_environment_else_from_the_development_key(tmp_path: Path) -> None:
    """GATEWAY_KEY wins over the file that `gateway serve` leaves; neither is no key."""
    directory = tmp_path
    assert find_key({}, directory) is None
    (directory / ".gateway").mkdir()
    (directory / ".gateway" / "dev.key").write_text("gwk_dev\n")
    assert find_key({}, directory) == "gwk_dev"
    assert find_key({"GATEWAY_KEY": "gwk_mine"}, directory) == "gwk_mine"
    assert find_url({}) == "http://127.0.0.1:8000"
    assert find_url({"GATEWAY_URL": "http://g:1"}) == "http://g:1"
