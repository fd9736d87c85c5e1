"""The run in the native API's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.domain.access import KeyRecord
from gateway.domain.agents import Agent
from gateway.domain.due import judge_all
from gateway.domain.files import FileRecord
from gateway.domain.lifecycle import Status
from gateway.domain.retry import Policy
from gateway.domain.run import Question, Run
from gateway.domain.trace import trace
from gateway.domain.traces import traceparent
from gateway.entry.requests import at as at
from gateway.hub.standing import Standing
from gateway.service.listing import OpenQuestion
from gateway.service.runs import NeedStatus
from gateway.service.work import Claimed, lease_ends_ms
from gateway.service.writing import Written
from gateway.store.queue import QueueDepth


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
    return {**_about(run), **_times(run), **_log(run), **_origin(run), **_work(run)}


def _about(run: Run) -> dict[str, Any]:
    """Return what a run is, was given, and has come to."""
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
    }


def _times(run: Run) -> dict[str, Any]:
    """Return when what happened to a run, and what it may take."""
    spec, state = run.spec, run.state
    return {
        "created_at": at(spec.created_us // 1000),
        "scheduled_at": at(state.scheduled_ms),
        "expires_at": at(state.expires_ms),
        "started_at": at(state.started_ms),
        "ended_at": at(state.ended_ms),
        "updated_at": at(run.updated_ms),
        "cancel_deadline_at": at(state.cancel_deadline_ms),
        "timeout_s": seconds(spec.timeout_ms),
        "heartbeat_s": seconds(spec.heartbeat_ms),
    }


def _log(run: Run) -> dict[str, Any]:
    """Return where a run's log stands, and what it adds up to."""
    return {
        "first_seq": run.first_seq,
        "head_seq": run.head_seq,
        "log_expired": run.log_expired,
        "open_requests": [question_body(q) for q in run.state.open],
        "usage": run.totals,
        "model": run.model,
    }


def _origin(run: Run) -> dict[str, Any]:
    """Return where a run comes from, and what its creator attached."""
    spec = run.spec
    return {
        "parent_run_id": spec.parent_run_id,
        "root_run_id": spec.root_run_id,
        "retry_of": spec.retry_of,
        "replay_of": spec.replay_of,
        "lineage_depth": spec.lineage_depth,
        "batch_id": spec.batch_id,
        "schedule_id": spec.schedule_id,
        "tick_at": at(spec.tick_ms),
        "file_ids": spec.file_ids,
        "extensions": spec.extensions,
    }


def _work(run: Run) -> dict[str, Any]:
    """Return how workers get a run, who has it, and how its attempts went."""
    spec, state = run.spec, run.state
    return {
        "agent_version": spec.agent_version,
        "queue": spec.queue,
        "priority": spec.priority,
        "concurrency_key": spec.concurrency_key,
        "retry": retry_body(spec.policy),
        "dead_letter": spec.policy.dead_letter,
        "failed_attempts": state.failures,
        "next_retry_at": at(state.next_retry_ms),
        "queue_expiry_s": seconds(spec.start_timeout_ms),
        "lease_s": seconds(spec.lease_ms),
        "lease": lease_body(run),
        "heartbeat_at": at(run.beat_ms or None),
        "checkpoint_seq": run.checkpoint_seq,
        "depends_on": spec.depends_on,
        "preset": state.preset,
        "trace_id": spec.trace_id,
        "idempotency_key": None if state.key_reset else spec.idempotency_key,
        "debug_mode": state.debug_mode,
        "execution_trace": trace(run),
    }


def retry_body(policy: Policy) -> dict[str, Any]:
    """Return a retry policy."""
    return {
        "max_attempts": policy.max_attempts,
        "backoff": policy.backoff,
        "initial_delay_s": seconds(policy.initial_delay_ms),
        "max_delay_s": seconds(policy.max_delay_ms),
    }


def lease_body(run: Run) -> dict[str, Any] | None:
    """Return who holds the run and until when, without the token; None when nobody does."""
    ends_ms = lease_ends_ms(run)
    if ends_ms is None:
        return None
    state = run.state
    return {"worker": state.worker, "claimed_at": at(state.claimed_ms), "expires_at": at(ends_ms)}


def claim_body(claimed: Claimed) -> dict[str, Any]:
    """Return a claimed run, its lease, and what its attempt goes on from."""
    run = claimed.run
    body: dict[str, Any] = {
        "run": run_body(run),
        "lease": {
            "token": claimed.token,
            "attempt": run.state.attempt,
            "expires_at": at(lease_ends_ms(run)),
            "lease_s": seconds(run.spec.lease_ms),
        },
        "traceparent": traceparent(run),
        "continues": run.state.continues,
        "answers": [{**event.data, "seq": event.seq} for event in claimed.answers],
    }
    if run.state.preset is not None:
        body["preset"] = {"name": run.state.preset, "config": claimed.preset}
    checkpoint = claimed.checkpoint
    if checkpoint is not None:
        body["checkpoint"] = {"seq": checkpoint.seq, "created_at": checkpoint.created_at, **checkpoint.data}
    return body


def dependencies_body(run: Run, needs: Sequence[NeedStatus]) -> dict[str, Any]:
    """Return what a run waits for; each verdict is `met`, `waiting` or `unsatisfiable`."""
    verdict = judge_all(need.verdict for need in needs)
    return {
        "run_id": run.id,
        "status": run.status,
        "dependencies": [
            {
                "run_id": need.dependency.run_id,
                "agent_id": need.dependency.agent_id,
                "condition": need.dependency.condition,
                "status": need.status,
                "verdict": need.verdict,
            }
            for need in needs
        ],
        "verdict": verdict,
        "dependencies_satisfied": verdict == "met",
    }


def agent_body(agent: Agent) -> dict[str, Any]:
    """Return a registered agent."""
    definition = agent.definition
    return {
        "id": agent.id,
        "version": agent.version,
        "runtime": definition.runtime,
        "queue": definition.queue,
        "retry": retry_body(definition.policy),
        "dead_letter": definition.policy.dead_letter,
        "run_timeout_s": seconds(definition.run_timeout_ms),
        "queue_expiry_s": seconds(definition.queue_expiry_ms),
        "lease_s": seconds(definition.lease_ms),
        "max_concurrent": definition.max_concurrent,
        "presets": definition.presets,
        "title": definition.title,
        "metadata": definition.metadata,
        "webhooks": definition.webhooks,
        "created_at": at(None if agent.created_us is None else agent.created_us // 1000),
        "updated_at": at(None if agent.updated_us is None else agent.updated_us // 1000),
    }


def queue_body(depth: QueueDepth) -> dict[str, Any]:
    """Return what a queue holds; `oldest_queued_at` is None when no run may be claimed now."""
    return {
        "name": depth.name,
        "waiting": depth.waiting,
        "held": depth.held,
        "oldest_queued_at": at(None if depth.oldest_us is None else depth.oldest_us // 1000),
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
        "expires_at": at(record.expires_at_ms),
        "revoked_at": at(record.revoked_at_ms),
        "rotated_to": record.rotated_to,
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


def reader_body(standing: Standing) -> dict[str, Any]:
    """Return where an open stream stands."""
    return {
        "id": standing.id,
        "tenant": standing.tenant,
        "key_id": standing.key_id,
        "principal": standing.principal,
        "transport": standing.transport,
        "address": standing.address,
        "request_id": standing.request_id,
        "trace_id": standing.trace_id,
        "opened_at": at(standing.opened_ms),
        "sent_at": at(standing.sent_ms),
        "events": standing.passed,
        "unsent_bytes": standing.unsent_bytes,
        "lag_events": standing.lag_events,
        "reason": standing.reason,
        "behind_since": at(standing.behind_since_ms),
        "log_count": standing.log_count,
        "logs": standing.logs,
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
