"""Where a run stands in its trace: every process can tell, and nothing has to be kept for it."""

from __future__ import annotations

import hashlib

from gateway.domain.run import Run


def run_span_id(run_id: str) -> str:
    """Return the id of the span that is the run's life: the same from whichever process asks."""
    return hashlib.sha256(f"run {run_id}".encode()).hexdigest()[:16]


def traceparent(run: Run) -> str | None:
    """Return the W3C `traceparent` under which whoever works on the run, or is told of it, joins its trace."""
    trace_id = run.spec.trace_id
    return None if trace_id is None else f"00-{trace_id}-{run_span_id(run.id)}-01"
