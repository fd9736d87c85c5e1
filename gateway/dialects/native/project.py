"""The run in the native API's words."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.domain.access import KeyRecord
from gateway.domain.events import format_time
from gateway.domain.files import FileRecord
from gateway.domain.lifecycle import Status
from gateway.domain.run import Question, Run
from gateway.service.listing import OpenQuestion
from gateway.service.writing import Written


def at(ms: int | None) -> str | None:
    """Return a time as RFC 3339 UTC with milliseconds."""
    return None if ms is None else format_time(ms)


def seconds(ms: int | None) -> float | None:
    """Return a duration in seconds."""
    return None if ms is None else ms / 1000


def question_body(question: Question) -> dict[str, Any]:
    """Return an open question."""
    return {
        "request_id": question.request_id,
        "prompt": question.prompt,
        "schema": question.schema,
        "deadline_at": at(question.deadline_ms),
        "on_timeout": question.on_timeout,
        "default": question.default,
        "created_at": at(question.asked_ms),
    }


def run_body(run: Run) -> dict[str, Any]:
    """Return the run's representation."""
    spec, state = run.spec, run.state
    return {
        "id": spec.id,
        "agent_id": spec.agent_id,
        "thread_id": spec.thread_id,
        "status": state.status,
        "mode": spec.mode,
        "attempt": state.attempt,
        "input": spec.input,
        "output": state.output,
        "error": state.error,
        "title": spec.title,
        "tags": spec.tags,
        "metadata": spec.metadata,
        "trigger": spec.trigger,
        "triggered_by": spec.triggered_by,
        "created_by": spec.actor,
        "created_at": at(spec.created_us // 1000),
        "scheduled_at": at(state.scheduled_ms),
        "expires_at": at(state.expires_ms),
        "started_at": at(state.started_ms),
        "ended_at": at(state.ended_ms),
        "updated_at": at(run.updated_ms),
        "cancel_deadline_at": at(state.cancel_deadline_ms),
        "timeout_s": seconds(spec.timeout_ms),
        "heartbeat_s": seconds(spec.heartbeat_ms),
        "first_seq": run.first_seq,
        "head_seq": run.head_seq,
        "log_expired": run.log_expired,
        "open_requests": [question_body(q) for q in state.open],
        "usage": run.totals,
        "parent_run_id": spec.parent_run_id,
        "root_run_id": spec.root_run_id,
        "retry_of": spec.retry_of,
        "replay_of": spec.replay_of,
        "lineage_depth": spec.lineage_depth,
        "batch_id": spec.batch_id,
        "file_ids": spec.file_ids,
        "extensions": spec.extensions,
    }


def inbox_item(asked: OpenQuestion) -> dict[str, Any]:
    """Return an open question as the inbox shows it."""
    spec = asked.run.spec
    about = {"run_id": spec.id, "agent_id": spec.agent_id, "thread_id": spec.thread_id, "title": spec.title}
    return question_body(asked.question) | about


def written_body(written: Written) -> dict[str, Any]:
    """Return the answer to an append."""
    body: dict[str, Any] = {
        "first_seq": written.first_seq or None,
        "last_seq": written.last_seq,
        "status": written.status,
        "attempt": written.attempt,
        "pending": written.pending,
        "duplicate": written.duplicate,
    }
    return body | ({"request_ids": written.request_ids} if written.request_ids else {})


def key_body(record: KeyRecord) -> dict[str, Any]:
    """Return a key's record; the key itself is not in it."""
    return {
        "id": record.id,
        "tenant": record.tenant,
        "name": record.name,
        "principal": record.principal,
        "scopes": sorted(record.scopes),
        "agents": None if record.agents is None else sorted(record.agents),
        "created_at": at(record.created_at_ms),
        "revoked_at": at(record.revoked_at_ms),
    }


def file_body(record: FileRecord, expires_ms: int | None) -> dict[str, Any]:
    """Return a file's record; `expires_ms` is when it is removed for its age."""
    return {
        "file_id": record.file_id,
        "name": record.name,
        "size_bytes": record.size_bytes,
        "content_type": record.content_type,
        "sha256": record.sha256,
        "run_id": record.run_id,
        "created_at": at(record.created_ms),
        "created_by": record.created_by,
        "expires_at": at(expires_ms),
    }


def list_body(data: list[Any], next_cursor: str | None) -> dict[str, Any]:
    """Return a page of a list."""
    return {"data": data, "next_cursor": next_cursor, "has_more": next_cursor is not None}


ALIASES: dict[str, Status] = {
    "succeeded": Status.COMPLETED,
    "success": Status.COMPLETED,
    "canceled": Status.CANCELLED,
    "canceling": Status.CANCELLING,
    "executing": Status.RUNNING,
    "interrupted": Status.WAITING,
    "waiting": Status.WAITING,
    "error": Status.FAILED,
}
STATUS_WORDS = [*map(str, Status), *ALIASES]


def status_of(word: str) -> Status:
    """Return the status that a filter word names, other systems' words included."""
    return ALIASES.get(word) or Status(word)


def to_json(value: object) -> bytes:
    """Return a body's bytes."""
    return msgspec.json.encode(value)
