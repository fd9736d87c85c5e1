"""Telling receivers of events: each webhook of a run in the order of its log, again until it is taken or given up."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

import httpx
import msgspec
from standardwebhooks import Webhook

from gateway import telemetry, tracing
from gateway.domain.events import decode, peek_type
from gateway.domain.hooks import (
    ACTIVE,
    DISABLED,
    FixedHook,
    filter_of,
    message_body,
    next_try_ms,
    read_retry_after,
)
from gateway.domain.run import Run
from gateway.domain.times import parse_time
from gateway.domain.traces import run_span_id, traceparent
from gateway.errors import NotFound
from gateway.service.outbound import Outbound, Posted
from gateway.store.clock import StoreClock
from gateway.store.hooks import Begun, HookStore, Noted, Progress, Try, read_run_hooks
from gateway.store.keys import digest
from gateway.store.log import Entry, LogHead, LogName, LogReader
from gateway.store.runs import RunStore

webhooks_log = logging.getLogger("gateway.webhooks")

KIND = "hook"
"""The kind of timer that this looks after; its name is the run's id."""

PAGE_ENTRIES = 256
PAGE_BYTES = 512 * 1024
TOLD_AT_ONCE = 64
"""Events that one look tells a receiver of before others have their turn."""

PUT_OFF_MS = 1_000
HOLD_SLACK_MS = 5_000
AGENT = "run-gateway-webhooks/1"
GONE = 410


class DeliveryRules(msgspec.Struct, frozen=True):
    """How deliveries are tried again, and how many are made at once by this process.

    `delays_ms` are the rests between two tries of an event; after the last one it is given up.
    """

    delays_ms: tuple[int, ...]
    timeout_ms: int
    at_once: int
    at_once_a_host: int


class Deliveries:
    """Looks after the webhooks of runs."""

    def __init__(
        self,
        hooks: HookStore,
        runs: RunStore,
        logs: LogReader,
        outbound: Outbound,
        clock: StoreClock,
        rules: DeliveryRules,
    ) -> None:
        self._hooks = hooks
        self._runs = runs
        self._logs = logs
        self._outbound = outbound
        self._clock = clock
        self._rules = rules
        self._hold_ms = rules.timeout_ms + HOLD_SLACK_MS
        self._busy: Counter[str] = Counter()

    async def look(self, name: str) -> int | None:
        """Tell the receivers of run `name` of what they have not been told."""
        if self._busy.total() >= self._rules.at_once:
            return self._put_off_ms()
        run = await self._runs.load_any(name)
        if run is None:
            return None
        telemetry.name_run(run.id, run.spec.trace_id)
        hooks = await self._hooks.of_run(name)
        times = await asyncio.gather(*(self._serve(run, hook) for hook in hooks))
        return min((ms for ms in times if ms is not None), default=None)

    async def next_look_ms(self, name: str) -> int | None:
        """Return when the next try of an event is due that was not taken."""
        pairs = await read_run_hooks(self._hooks, name)
        due = [state.due_ms for _hook, state in pairs if state.due_ms and state.state == ACTIVE]
        return min(due, default=None)

    async def _serve(self, run: Run, hook: FixedHook) -> int | None:
        """Tell one receiver; returns when to look again."""
        host = httpx.URL(hook.url).host
        if self._busy.total() >= self._rules.at_once or self._busy[host] >= self._rules.at_once_a_host:
            return self._put_off_ms()
        self._busy[host] += 1
        try:
            token = secrets.token_hex(8)
            begun = await self._hooks.begin(run.id, hook.id, token, self._hold_ms)
            if begun.cursor is None:
                return begun.again_ms
            return await _Delivery(self, run, hook, token, begun).go_on()
        finally:
            self._busy[host] -= 1
            self._busy += Counter()

    def _put_off_ms(self) -> int:
        return self._clock.now_ms() + PUT_OFF_MS + random.randrange(PUT_OFF_MS)

    async def note(self, run_id: str, hook_id: str, token: str, progress: Progress, made: Try | None = None) -> Noted:
        """Note how far a delivery has come."""
        return await self._hooks.note(run_id, hook_id, token, progress, self._hold_ms, made)

    async def read(self, run_id: str, after_seq: int) -> tuple[LogHead, Sequence[Entry]] | None:
        """Return the log's head and a page of it after a seq; None when the run is gone."""
        try:
            return await self._logs.read(
                LogName.of_run(run_id), after_seq + 1, entries=PAGE_ENTRIES, payload_bytes=PAGE_BYTES
            )
        except NotFound:
            return None

    async def post(self, run: Run, status: str, hook: FixedHook, entry: Entry, tries: int) -> tuple[Try, int]:
        """Tell a receiver of one event; returns what came of it, and how long to rest before the next try in ms.

        Args:
            status: Of the run as the event was read.
        """
        event = decode(entry.line)
        message_id = "msg_" + digest(run.id, hook.id, str(entry.seq), str(entry.tag))
        body = message_body(run, status, event, entry.line)
        now_ms = self._clock.now_ms()
        posted = await self._outbound.post(hook.url, _headers(hook.secret, message_id, now_ms, body, run), body)
        outcome, rest_ms = self._judge(posted, tries + 1)
        _record(run, posted, outcome, entry.seq)
        telemetry.WEBHOOK_DELIVERIES.labels(outcome).inc()
        if outcome == "delivered":
            late_ms = self._clock.now_ms() - parse_time(event.created_at)
            telemetry.WEBHOOK_LAG_SECONDS.observe(max(0, late_ms) / 1000)
        made = Try(
            hook_id=hook.id,
            seq=entry.seq,
            type=event.type,
            message_id=message_id,
            attempt=tries + 1,
            outcome=outcome,
            duration_ms=posted.duration_ms,
            status=posted.status,
            error=posted.error,
        )
        _tell(run, made, rest_ms)
        return made, rest_ms

    def _judge(self, posted: Posted, attempt: int) -> tuple[str, int]:
        if posted.status is not None and 200 <= posted.status < 300:
            return "delivered", 0
        if posted.status == GONE:
            return "disabled", 0
        retry_after_ms = read_retry_after(posted.retry_after, self._clock.now_ms())
        rest_ms = next_try_ms(self._rules.delays_ms, attempt, random.random(), retry_after_ms)
        return ("failed", 0) if rest_ms is None else ("retrying", max(rest_ms, 1))


class _Delivery:
    """One webhook of a run, held by this process while it tells its receiver."""

    def __init__(self, deliveries: Deliveries, run: Run, hook: FixedHook, token: str, begun: Begun) -> None:
        self._deliveries = deliveries
        self._run = run
        self._hook = hook
        self._token = token
        self._cursor = begun.cursor or 0
        self._tries = begun.tries
        self._told = 0
        self._wanted = filter_of(",".join(hook.events))

    async def go_on(self) -> int | None:
        """Tell of everything up to the log's head; returns when to look again, None when there is nothing left."""
        while True:
            page = await self._deliveries.read(self._run.id, self._cursor)
            if page is None:
                return None
            head, entries = page
            for entry in entries:
                noted = await self._pass(entry, head.status)
                if noted is not None and not noted.held:
                    return noted.due_ms
            if not entries:
                # What was removed from the log cannot be told any more.
                self._cursor = max(self._cursor, head.seq)
            if self._told >= TOLD_AT_ONCE:
                return (await self._note(rest_ms=1)).due_ms
            noted = await self._note(holds_on=self._cursor < head.seq)
            if not noted.held:
                return None

    async def _pass(self, entry: Entry, status: str) -> Noted | None:
        """Tell of an event if it is wanted; None when it is not."""
        if not self._wanted.passes(peek_type(entry.line)):
            self._cursor = entry.seq
            return None
        self._told += 1
        made, rest_ms = await self._deliveries.post(self._run, status, self._hook, entry, self._tries)
        if made.outcome == "retrying":
            self._tries += 1
            return await self._note(made, rest_ms=rest_ms)
        self._tries = 0
        if made.outcome == "disabled":
            return await self._note(made, state=DISABLED)
        self._cursor = entry.seq
        return await self._note(made, holds_on=True)

    async def _note(
        self, made: Try | None = None, *, rest_ms: int = 0, holds_on: bool = False, state: str = ACTIVE
    ) -> Noted:
        progress = Progress(self._cursor, self._tries, rest_ms, state, holds_on)
        return await self._deliveries.note(self._run.id, self._hook.id, self._token, progress, made)


def _tell(run: Run, made: Try, rest_ms: int) -> None:
    """Log what became of a try: one that will come again quietly, one that will not aloud, the others if all are."""
    if made.outcome == "delivered" and not telemetry.tells_all():
        return
    facts = {
        "hook_id": made.hook_id,
        "message_id": made.message_id,
        "seq": made.seq,
        "attempt": made.attempt,
        "outcome": made.outcome,
        "status": made.status,
        "error": made.error,
        "duration_ms": made.duration_ms,
        "rest_ms": rest_ms or None,
        "tenant": run.spec.tenant,
    }
    level = logging.INFO if made.outcome in ("delivered", "retrying") else logging.WARNING
    webhooks_log.log(
        level, "a webhook was told" if made.outcome == "delivered" else "a webhook was not told", extra=facts
    )


def _record(run: Run, posted: Posted, outcome: str, seq: int) -> None:
    trace_id = run.spec.trace_id
    if trace_id is None or not tracing.keeps(trace_id):
        return
    now_ns = time.time_ns()
    facts = {"gateway.run_id": run.id, "gateway.seq": seq, "http.response.status_code": posted.status}
    failure = None if outcome == "delivered" else posted.error or outcome
    place = tracing.Place(trace_id, tracing.new_span_id())
    began_ns = now_ns - posted.duration_ms * 1_000_000
    tracing.record(tracing.Span("webhook", place, run_span_id(run.id), began_ns, now_ns, "client", facts, failure))


def _headers(secret: str, message_id: str, now_ms: int, body: bytes, run: Run) -> list[tuple[str, str]]:
    now = datetime.fromtimestamp(now_ms // 1000, UTC)
    trace = traceparent(run)
    return [
        *([] if trace is None else [("traceparent", trace)]),
        ("content-type", "application/json"),
        ("user-agent", AGENT),
        ("webhook-id", message_id),
        ("webhook-timestamp", str(now_ms // 1000)),
        ("webhook-signature", Webhook(secret).sign(message_id, now, body.decode())),
    ]
