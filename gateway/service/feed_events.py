"""What a tenant's feed says of a run: its status, and the one before, which only the index knows."""

from __future__ import annotations

import msgspec

from gateway.domain.events import format_time
from gateway.domain.run import Run


def feed_event(run: Run, *, gone: bool) -> tuple[bytes, bytes]:
    """Return the feed's event of a run, before and after the value of `previous`."""
    spec = run.spec
    about = {"agent_id": spec.agent_id, "thread_id": spec.thread_id, "title": spec.title}
    return _line(run.id, run.updated_ms, "purged" if gone else str(run.status), run.head_seq, about)


def forgotten_event(run_id: str, at_ms: int) -> tuple[bytes, bytes]:
    """Return the feed's event of a run of which nothing is left but its id."""
    return _line(run_id, at_ms, "purged", None, dict.fromkeys(("agent_id", "thread_id", "title")))


def _line(
    run_id: str, at_ms: int, status: str, run_seq: int | None, about: dict[str, str | None]
) -> tuple[bytes, bytes]:
    data = msgspec.json.encode({"status": status, "run_seq": run_seq, **about})
    head = f'"type":"run.status","run_id":"{run_id}","created_at":"{format_time(at_ms)}","data":'
    return head.encode() + data[:-1] + b',"previous":', b"}}"
