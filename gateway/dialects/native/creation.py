"""From what a caller sends to the run that it asks for."""

from __future__ import annotations

from gateway.dialects.native.context import duration_ms, to_ms
from gateway.dialects.native.webhooks import hook_orders
from gateway.dialects.native.wire import CreateRun
from gateway.domain.agents import Overrides
from gateway.service.actors import parse_run_id
from gateway.service.runs import Need, NewRun


def new_run(body: CreateRun, thread_id: str | None) -> NewRun:
    """Return the run that a body asks for.

    Raises:
        NotFound: it names a run by what is no run's id.
    """
    return NewRun(
        agent_id=body.agent_id,
        mode=body.mode,
        thread_id=thread_id,
        input=body.input,
        title=body.title,
        tags=body.tags,
        metadata=body.metadata,
        trigger=body.trigger,
        parent_run_id=None if body.parent_run_id is None else parse_run_id(body.parent_run_id),
        batch_id=body.batch_id,
        scheduled_ms=to_ms(body.scheduled_at),
        delay_ms=duration_ms(body.delay_s),
        heartbeat_ms=duration_ms(body.heartbeat_s),
        file_ids=tuple(file_id.upper() for file_id in body.file_ids),
        extensions=body.extensions,
        priority=body.priority,
        concurrency_key=body.concurrency_key,
        overrides=_overrides(body),
        depends_on=tuple(Need(parse_run_id(need.run_id), need.condition) for need in body.depends_on),
        preset=body.preset,
        webhooks=tuple(hook_orders(body.webhooks)),
    )


def _overrides(body: CreateRun) -> Overrides:
    retry = body.retry
    return Overrides(
        queue=body.queue,
        max_attempts=retry.max_attempts,
        backoff=retry.backoff,
        initial_delay_ms=duration_ms(retry.initial_delay_s),
        max_delay_ms=duration_ms(retry.max_delay_s),
        dead_letter=body.dead_letter,
        timeout_ms=duration_ms(body.timeout_s),
        queue_expiry_ms=duration_ms(body.queue_expiry_s),
        lease_ms=duration_ms(body.lease_s),
    )
