"""What the native routes have in common, beyond what all dialects share."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from gateway.dialects.native.project import run_body
from gateway.domain import access
from gateway.domain.run import Run
from gateway.entry.requests import acting as acting
from gateway.entry.requests import answer as answer
from gateway.entry.requests import duration_ms as duration_ms
from gateway.entry.requests import run_id_of as run_id_of
from gateway.entry.requests import to_ms as to_ms
from gateway.entry.services import Services

Native = Services
"""The services behind the native routes are those of every dialect."""


def writing_scope(lease: str | None) -> str:
    """Return the scope that it takes to write to a run: whoever may claim runs may write what it has claimed."""
    return access.RUNS_WRITE if lease is None else access.WORK


def answer_run(run: Run, status: int = 200, **more: Any) -> Response:
    """Return a run as a response."""
    return answer({**run_body(run), **more}, status)
