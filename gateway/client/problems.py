"""Reading the gateway's refusals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import msgspec

from gateway.client import errors

_BY_CODE: Mapping[str, type[errors.ApiError]] = {
    "invalid_state": errors.InvalidState,
    "fenced": errors.Fenced,
    "already_answered": errors.AlreadyAnswered,
    "contended": errors.Unavailable,
}
_BY_STATUS: Mapping[int, type[errors.ApiError]] = {
    400: errors.BadRequest,
    401: errors.Unauthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    410: errors.LogExpired,
    413: errors.TooLarge,
    422: errors.InvalidBody,
    429: errors.Unavailable,
    502: errors.Unavailable,
    503: errors.Unavailable,
    504: errors.Unavailable,
}
_ENVELOPE = frozenset({"type", "title", "status", "detail", "code", "request_id"})


def read_refusal(response: httpx.Response) -> errors.ApiError:
    """Return the error that a response with a status of 400 or more stands for.

    The body must have been read. One that is no problem document (a proxy's page) still gives an
    error of its status, with the status phrase as its detail.
    """
    problem = {
        "detail": response.reason_phrase,
        "request_id": response.headers.get("x-request-id"),
        **_problem(response),
        "status": response.status_code,
    }
    return read_problem(problem, retry_after_s=_retry_after_s(response))


def read_problem(problem: Mapping[str, Any], *, retry_after_s: float | None = None) -> errors.ApiError:
    """Return the error that a problem document tells of."""
    code, status = str(problem.get("code", "error")), int(problem["status"])
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status, errors.ApiError)
    return kind(
        str(problem.get("detail") or problem.get("title") or "refused"),
        status=status,
        code=code,
        facts={name: value for name, value in problem.items() if name not in _ENVELOPE},
        request_id=problem.get("request_id"),
        retry_after_s=retry_after_s,
    )


def _problem(response: httpx.Response) -> dict[str, Any]:
    try:
        return msgspec.json.decode(response.content, type=dict[str, Any])
    except msgspec.MsgspecError:
        return {}


def _retry_after_s(response: httpx.Response) -> float | None:
    try:
        return max(0.0, float(response.headers["retry-after"]))
    except (KeyError, ValueError):
        return None
