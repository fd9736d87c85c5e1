"""One claimed run in this worker's hands: what it may write, what is asked of it, whether it is to stop."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Coroutine
from contextlib import aclosing, suppress
from datetime import datetime
from enum import IntEnum
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

from gateway.client.client import Client
from gateway.client.errors import (
    ClientError,
    Conflict,
    ConnectionLost,
    EventTooLarge,
    Fenced,
    InvalidState,
    Unavailable,
)
from gateway.client.files import Files, Source
from gateway.client.models import Answer, Appended, Claim, Event, File, Pending
from gateway.client.worker.gate import Gate
from gateway.client.worker.memory import Memory
from gateway.client.writer import Writer

logger = logging.getLogger(__name__)

T = TypeVar("T")

GRACE_S = 8.0
"""What clean-up may take where nobody says; less than the gateway's own grace of a cancel."""
CONFIRM_S = 0.5
"""Kept of a cancel's grace for telling the gateway."""
AGAIN_S = 0.1
SLACK_S = 1.0
"""How late the gateway may look at a lease that has ended."""
FOLLOW_AFTER_S = 0.1
"""A run that ends sooner, and asks nothing, is not worth a stream: its appends name what is pending."""

ENDS = frozenset(
    {
        "run.completed",
        "run.failed",
        "run.cancelled",
        "run.timed_out",
        "run.crashed",
        "run.system_failed",
        "run.dead_lettered",
        "run.expired",
        "run.attempt_failed",
        "run.restarted",
        "run.released",
    }
)
"""Events after which a run is its worker's no more."""


class Place(NamedTuple):
    """Where an event stands: in which step, and in which step that one is."""

    step_id: str | None = None
    parent_id: str | None = None


class Stop(IntEnum):
    """Why a handler has to stop; a later one overrules those before it."""

    CANCELLED = 1
    LET_GO = 2
    SUSPENDED = 3
    REFUSED = 4
    LOST = 5


class Session:
    """A run while this worker holds it. `handler` is the task that executes it."""

    def __init__(self, client: Client, claim: Claim, writer: Writer) -> None:
        self.claim = claim
        self.memory = Memory(claim)
        self.gate = Gate()
        self.handler: asyncio.Task[Any] | None = None
        self.stopped: Stop | None = None
        self.why: str | None = None
        self.deadline_s: float | None = None
        self.is_over = False
        self.is_ending = False
        self.unbegun: Counter[str] = Counter()
        """Calls that were made and have not begun, by name: they were not awaited."""
        self.turned = asyncio.Event()
        self._client = client
        self._writer = writer
        self._answers: dict[str, Answer] = {}
        self._answered = asyncio.Condition()
        self._asked = asyncio.Event()
        self._calls: set[asyncio.Task[Any]] = set()
        self._interrupted = False
        self._cancel_seq: int | None = None

    def stop(self, reason: Stop, *, why: str | None = None, grace_s: float = GRACE_S) -> None:
        """Have the handler stop: it is cancelled, and has `grace_s` seconds to clean up."""
        if self.is_over or (self.stopped is not None and reason < self.stopped):
            return
        if reason is self.stopped:
            # Told again by another way, perhaps by one that says more.
            self.why = self.why or why
            return
        self.stopped, self.why = reason, why
        self.deadline_s = asyncio.get_running_loop().time() + grace_s
        self.gate.open_for_good()
        self.turned.set()
        if self.handler is not None:
            self.handler.cancel()
        for call in self._calls:
            self._interrupted = True
            call.cancel()

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work` for a thread, which learns here, once, that it has to stop."""
        if self.is_over or (self.stopped is not None and not self._interrupted):
            self._interrupted = True
            work.close()
            self._require_run()
            raise asyncio.CancelledError
        task = asyncio.current_task()
        assert task is not None, "it is called in a task of its own"
        self._calls.add(task)
        try:
            return await work
        finally:
            self._calls.discard(task)

    async def write(
        self,
        type: str,
        data: Any,
        place: Place,
        *,
        again: bool = False,
    ) -> None:
        """Record an event, once the run is not paused; nothing where the run is not to be written any more.

        Args:
            again: also while the handler only comes back to where it was let go.
        """
        await self.gate.wait()
        self._require_run()
        if self._is_mute or (self.memory.is_replaying and not again):
            return
        try:
            await self._writer.append(type, data, step_id=place.step_id, parent_id=place.parent_id)
        except EventTooLarge:
            raise
        except ClientError:
            await self._wait_muted()

    def _require_run(self) -> None:
        """Refuse what a task says that has outlived its handler: the run's last word has been said."""
        if not (self.is_ending or self.is_over):
            return
        if self.stopped is None:
            raise RuntimeError(f"The run {self.claim.run.id} has ended with its handler: nothing is recorded any more.")
        raise asyncio.CancelledError("the run is in other hands")

    async def flush(self) -> None:
        """Wait until the gateway has stored everything so far."""
        if self._is_mute:
            return
        try:
            await self._writer.flush()
        except ClientError:
            await self._wait_muted()

    @property
    def _is_mute(self) -> bool:
        return self.stopped is not None and self.stopped is not Stop.CANCELLED

    async def _wait_muted(self) -> None:
        # Whoever watches the writer says why in a moment, and cancels the handler in here.
        while not self._is_mute:
            await self.turned.wait()
            await asyncio.sleep(0)

    async def ask(self, question: dict[str, Any], place: Place) -> int:
        """Open a question and return its seq.

        Not by way of the writer: a run that was paused meanwhile refuses it, and that is no end.

        Raises:
            InvalidBody, TooLarge: the question is none, in the gateway's words.
        """
        event = {"type": "run.waiting_for_input", "data": question}
        event |= {name: value for name, value in place._asdict().items() if value is not None}
        key = uuid4().hex
        self._asked.set()
        while True:
            await self.gate.wait()
            self._require_run()
            await self.flush()
            if self.stopped is not None:
                raise asyncio.CancelledError
            try:
                return (await self._append(event, key)).last_seq or 0
            except (Fenced, InvalidState) as refusal:
                if refusal.facts.get("current_status") not in ("paused", "cancelling"):
                    self.stop(Stop.LOST, why=refusal.detail)
                await asyncio.sleep(AGAIN_S)
            except (ConnectionLost, Unavailable):
                logger.warning("run %s: the gateway is away; asking goes on", self.claim.run.id)

    async def _append(self, event: dict[str, Any], key: str | None = None) -> Appended:
        lease = self.claim.lease
        return await self._client.runs.append(
            self.claim.run.id, [event], lease=lease.token, attempt=lease.attempt, idempotency_key=key
        )

    async def upload(self, source: Source, place: Place, *, name: str | None, content_type: str | None) -> File:
        """Send a file and announce it after what was said before; the same one where the handler comes again.

        Raises:
            ApiError: the gateway refuses it.
            ConnectionLost: it is away, and the source cannot be read twice.
        """
        lease = self.claim.lease
        key = f"attempt {lease.attempt} file {self.memory.name('file')}"
        while True:
            await self.gate.wait()
            self._require_run()
            await self.flush()
            if self._is_mute:
                raise asyncio.CancelledError
            try:
                return await self._client.runs.upload(
                    self.claim.run.id,
                    source,
                    name=name,
                    content_type=content_type,
                    lease=lease.token,
                    attempt=lease.attempt,
                    step_id=place.step_id,
                    idempotency_key=key,
                )
            except (Fenced, InvalidState) as refusal:
                self.stop(Stop.LOST, why=refusal.detail)
                raise asyncio.CancelledError from None
            except (ConnectionLost, Unavailable):
                if not isinstance(source, bytes | str | os.PathLike):
                    raise
                logger.warning("run %s: the gateway is away; sending a file goes on", self.claim.run.id)

    @property
    def files(self) -> Files:
        """The files of the run's tenant."""
        return self._client.files

    async def answer(self, request_id: str) -> Answer:
        """Return the answer to a question once it is there; a question that is not waited for is withdrawn."""
        try:
            async with self._answered:
                await self._answered.wait_for(lambda: request_id in self._answers)
                return self._answers[request_id]
        except asyncio.CancelledError:
            if self.stopped is None:
                with suppress(ClientError):
                    await self._append({"type": "run.input_closed", "data": {"request_id": request_id}})
            raise

    async def suspend(self, request_id: str, asked_seq: int) -> None:
        """Give the run back until the question is answered; returns only if it has been answered meanwhile."""
        run_id, lease = self.claim.run.id, self.claim.lease
        head_seq = asked_seq
        while request_id not in self._answers:
            try:
                await self._client.work.release(
                    run_id, lease.token, attempt=lease.attempt, reason="it waits for an answer", expected_seq=head_seq
                )
            except (Fenced, InvalidState) as refusal:
                self.stop(Stop.LOST, why=refusal.detail)
            except Conflict:
                run = await self._client.runs.get(run_id)
                if request_id not in {question.request_id for question in run.open_requests}:
                    return
                head_seq = run.head_seq
                continue
            except (ConnectionLost, Unavailable):
                continue
            else:
                self.stop(Stop.SUSPENDED)
            # Until the cancellation arrives, also where this is a task that the handler started.
            await asyncio.Event().wait()

    def hear(self, pending: Pending) -> None:
        """Take note of what an append's or a heartbeat's reply names, perhaps before the log tells it in full."""
        if pending.type == "cancel":
            self._cancel_seq = pending.seq
            self.stop(Stop.CANCELLED)
        elif pending.type == "pause" and self._writer.last is not None and self._writer.last.status == "paused":
            self.gate.close(pending.seq)

    async def explain_cancel(self) -> str | None:
        """Return why the run is cancelled, in the words of who asked for it; None where they gave none."""
        if self.why is None and self._cancel_seq is not None:
            # Its reply was here before the log's event: that has the words.
            items = self._client.runs.log(self.claim.run.id, after=self._cancel_seq - 1, types=["run.cancel_requested"])
            with suppress(ClientError, TimeoutError):
                async with asyncio.timeout(CONFIRM_S), aclosing(items):
                    async for item in items:
                        if isinstance(item, Event) and item.seq == self._cancel_seq:
                            self.why = item.data.get("reason")
        return self.why

    async def follow(self) -> None:
        """Take orders from the run's own log for as long as it goes on."""
        run_id = self.claim.run.id
        with suppress(TimeoutError):
            async with asyncio.timeout(FOLLOW_AFTER_S):
                await self._asked.wait()
        items = self._client.runs.events(run_id, after=self.claim.run.head_seq, types=["run.*"], patience_s=None)
        try:
            async with aclosing(items):
                async for item in items:
                    if isinstance(item, Event):
                        await self._take(item)
        except ClientError as error:
            logger.warning("run %s cannot be followed; it is steered by heartbeats alone: %s", run_id, error)

    async def _take(self, event: Event) -> None:
        if event.type in ENDS or event.attempt != self.claim.lease.attempt:
            # What this worker itself said comes back, too.
            if not self.is_ending and self.stopped is not Stop.SUSPENDED:
                self.stop(Stop.LOST, why=event.type)
            return
        match event.type:
            case "run.cancel_requested":
                self.stop(Stop.CANCELLED, why=event.data.get("reason"), grace_s=_grace_s(event))
            case "run.paused":
                self.gate.close(event.seq)
            case "run.resumed":
                self.gate.open(event.seq)
            case "run.input_received":
                async with self._answered:
                    answer = event.data
                    self._answers[answer["request_id"]] = Answer(
                        request_id=answer["request_id"],
                        content=answer.get("content"),
                        seq=event.seq,
                        actor=answer.get("actor"),
                        reason=answer.get("reason"),
                    )
                    self._answered.notify_all()

    async def expire(self) -> None:
        """Stop the handler once its lease must have ended, by this worker's own clock.

        Where the gateway cannot be reached nobody says so, and another worker may have the run.
        """
        lease_s, loop = self.claim.lease.lease_s, asyncio.get_running_loop()
        allowed_s = lease_s + min(SLACK_S, lease_s / 3)
        while True:
            left_s = self._writer.heard_s + allowed_s - loop.time()
            if left_s <= 0:
                break
            await asyncio.sleep(left_s)
        self.stop(Stop.LOST, why=f"the gateway was not heard for the {lease_s:g} s of its lease")

    async def watch(self) -> None:
        """Stop the handler once an append has been refused for good."""
        error = await self._writer.failed()
        if self.stopped is Stop.SUSPENDED:
            return
        lost = isinstance(error, Fenced | InvalidState)
        self.stop(Stop.LOST if lost else Stop.REFUSED, why=str(error))


def _grace_s(event: Event) -> float:
    try:
        left = datetime.fromisoformat(event.data["deadline_at"]) - datetime.fromisoformat(event.created_at)
    except (KeyError, TypeError, ValueError):
        return GRACE_S
    return max(CONFIRM_S, left.total_seconds() - CONFIRM_S)
