"""Work for workers: claim what is next, keep it up, give it back."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from gateway.domain import access, attempts, questions
from gateway.domain.access import Grant
from gateway.domain.draft import Draft
from gateway.domain.due import silent_ms, start_by_ms
from gateway.domain.events import Event, decode, peek_type
from gateway.domain.lifecycle import Status
from gateway.domain.placement import Standing, standing
from gateway.domain.run import Run
from gateway.errors import Fenced, GatewayError, IllegalTransition, NotFound, StoreUnavailable
from gateway.service.actors import Caller, require_run
from gateway.service.agents import Agents
from gateway.service.bells import Bells
from gateway.service.journal import Journal
from gateway.service.once import Once
from gateway.service.tally import count_claim
from gateway.service.writing import Pending, pending_of
from gateway.store.log import LogName, LogReader
from gateway.store.queue import QueueDepth, QueueStore
from gateway.store.runs import Dedupe, Guard, RunStore

logger = logging.getLogger(__name__)

TOKEN_BYTES = 24
CLAIM_BYTES = 16 * 1024 * 1024
"""An answer that has so much takes no further run; those stay in their queue."""
RUN_BYTES = 1536 * 1024
"""What a run may take of that: an input, metadata, a checkpoint and some answers."""
CLAIM, NO_RUNS = "claim", "[]"
CLAIM_MS = 10_000
"""A claim that has waited its time is answered within so long, or its process is dead."""
OTHER_S = 2.0
"""How long a claim that finds nothing hears of an earlier one under its key, and at what pause."""
OTHER_LOOK_S = 0.02
SEARCH_ENTRIES = 1_000
SEARCH_BYTES = 1024 * 1024


class Claimed(msgspec.Struct, frozen=True):
    """A run that a worker holds from now on, and what it goes on from.

    `answers` are events of answers that the present attempt was given before it was handed over.
    `preset` is the configuration of that name, of the agent's version that the run recorded.
    """

    run: Run
    token: str
    checkpoint: Event | None = None
    answers: Sequence[Event] = ()
    preset: Any = None


class Beat(msgspec.Struct, frozen=True):
    """The answer to a heartbeat; `expires_ms` is when the lease ends without another, in Unix ms."""

    status: str
    attempt: int
    expires_ms: int
    pending: list[Pending]


class Work:
    """What workers ask for."""

    def __init__(
        self,
        journal: Journal,
        runs: RunStore,
        logs: LogReader,
        queues: QueueStore,
        bells: Bells,
        agents: Agents,
        once: Once,
        *,
        idempotency_ms: int,
    ) -> None:
        self._journal = journal
        self._runs = runs
        self._logs = logs
        self._queues = queues
        self._bells = bells
        self._agents = agents
        self._once = once
        self._idempotency_ms = idempotency_ms

    async def claim(
        self,
        caller: Caller,
        queues: Sequence[str],
        *,
        most: int,
        wait_s: float,
        worker: str | None,
        gone: asyncio.Event,
    ) -> list[Claimed]:
        """Claim up to `most` runs, the first queue's before the second's; waits for the first one up to `wait_s`.

        Args:
            gone: Set when nobody waits for the answer any more.

        Raises:
            Forbidden: the credential is bound to certain runs.
            StoreUnavailable: what was claimed meanwhile comes free when its lease ends.
        """
        access.require_tenant_wide(caller.grant)
        asked = {"queues": list(queues), "most": most, "worker": worker}
        known = await self._once.begin(caller, CLAIM, asked, within_ms=round(wait_s * 1000) + CLAIM_MS)
        if known:
            return await self._claimed_before(caller.grant, known)
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + wait_s
        async with self._bells.listen(caller.tenant, queues) as bell:
            while True:
                claimed, is_full = await self._claim_now(caller.grant, queues, most, worker)
                if is_full:
                    # There may be more for whoever waits beside this one.
                    bell.pass_on()
                elif caller.grant.agents is not None:
                    bell.pass_by()
                if claimed or self._bells.closed or gone.is_set() or loop.time() >= deadline_s:
                    break
                await bell.wait(deadline_s - loop.time(), gone)
        if not claimed and known is not None:
            # The same claim came twice at once, and the other may have what there was.
            return await self._claimed_before(caller.grant, await self._hear_of_other(caller, asked))
        told = msgspec.json.encode([[c.run.id, c.token] for c in claimed]).decode() if claimed else ""
        first = await self._once.conclude(caller, CLAIM, asked, told)
        if first == told:
            return claimed
        # The other was first: both are answered with its runs.
        await self._release_all(caller, claimed, "it was claimed twice under one key")
        return await self._claimed_before(caller.grant, first)

    async def _hear_of_other(self, caller: Caller, asked: object) -> str:
        """Return what another claim under the same key comes to; what it comes to later, it gives back."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + OTHER_S
        while loop.time() < deadline_s:
            known = await self._once.settled(caller, CLAIM, asked)
            if known != "":
                return known or NO_RUNS
            await asyncio.sleep(OTHER_LOOK_S)
        return await self._once.conclude(caller, CLAIM, asked, NO_RUNS, lifetime_ms=CLAIM_MS)

    async def give_back(self, caller: Caller, claimed: Sequence[Claimed], reason: str) -> None:
        """Undo a claim of whose answer nobody will hear: its runs keep their places, and its key can claim anew."""
        await self._once.forget(caller, CLAIM)
        await self._release_all(caller, claimed, reason)

    async def _release_all(self, caller: Caller, claimed: Sequence[Claimed], reason: str) -> None:
        async def release(taken: Claimed) -> None:
            # Whoever cancelled or purged it meanwhile has taken it back already.
            with suppress(Fenced, IllegalTransition, NotFound):
                await self.release(
                    msgspec.structs.replace(caller, idempotency_key=None),
                    taken.run.id,
                    lease=taken.token,
                    attempt=None,
                    reason=reason,
                    keeps_place=True,
                )

        await asyncio.gather(*map(release, claimed))

    async def _claim_now(
        self, grant: Grant, queues: Sequence[str], most: int, worker: str | None
    ) -> tuple[list[Claimed], bool]:
        """Claim what is there; returns it and whether that is all that one answer may hold.

        Raises:
            StoreUnavailable: it was away for some of it, and there was nothing else.
        """
        claimed: list[Claimed] = []
        left_bytes, failure = CLAIM_BYTES, None
        for name in dict.fromkeys(queues):
            while len(claimed) < most and left_bytes > 0:
                # No more at once than there is room for, if all of them are as large as they may be.
                count = min(most - len(claimed), max(1, left_bytes // RUN_BYTES))
                try:
                    taken, failure = await self._claim_some(grant, name, count, worker)
                except StoreUnavailable as error:
                    taken, failure = None, error
                claimed += taken or ()
                left_bytes -= sum(map(_told_bytes, taken or ()))
                if taken is None or failure is not None:
                    break
        if failure is not None and not claimed:
            raise failure
        return claimed, len(claimed) == most or left_bytes <= 0

    async def _claim_some(
        self, grant: Grant, name: str, count: int, worker: str | None
    ) -> tuple[list[Claimed] | None, StoreUnavailable | None]:
        """Claim runs of one queue; returns None where it has no more, and why some are not to be had for now.

        In a cluster a run may be away while its queue and others are not: those must not be claimed for nobody.
        """
        began_s = time.monotonic()
        reserved = await self._queues.reserve(grant.tenant, name, count, grant.agents)
        await self._ask_after(grant.tenant, name, reserved.suspects)
        if not reserved.run_ids and not reserved.unfinished:
            return None, None
        tries = [self._try_claim(grant, name, run_id, worker, began_s) for run_id in reserved.run_ids]
        done = await asyncio.gather(*tries, return_exceptions=True)
        failure = None
        for each in done:
            if isinstance(each, StoreUnavailable):
                failure = each
            elif isinstance(each, BaseException):
                raise each
        return [each for each in done if isinstance(each, Claimed)], failure

    async def _try_claim(
        self, grant: Grant, queue: str, run_id: str, worker: str | None, began_s: float
    ) -> Claimed | None:
        """Claim a reserved run; None when its record says that it is not to be had, and its queue then knows."""
        token = secrets.token_urlsafe(TOKEN_BYTES)

        def decide(run: Run, draft: Draft) -> None:
            took_ms = round((time.monotonic() - began_s) * 1000)
            attempts.claim(run, draft, token=token, worker=worker, took_ms=took_ms)

        try:
            run = (await self._journal.change(run_id, grant.tenant, decide)).run
        except StoreUnavailable:
            raise
        except GatewayError:
            await self._ask_after(grant.tenant, queue, [run_id])
            return None
        count_claim(run, worker, took_s=time.monotonic() - began_s)
        return await self._equip(run, token)

    async def _ask_after(self, tenant: str, queue: str, run_ids: Sequence[str]) -> None:
        """Bring a queue to what the records of these runs say."""
        for run_id, run in zip(run_ids, await self._runs.load_many(run_ids), strict=True):
            if run is not None:
                await self._queues.sync(run)
            else:
                await self._queues.drop(tenant, queue, run_id)

    async def _claimed_before(self, grant: Grant, known: str) -> list[Claimed]:
        """Return what a claim under the same key was given, as far as it is still held."""
        pairs = msgspec.json.decode(known, type=list[tuple[str, str]])
        found = []
        for run_id, token in pairs:
            run = await self._runs.load_any(run_id)
            if run is not None and await self._runs.lease(run_id) == token:
                found.append(await self._equip(run, token))
        return found

    async def _equip(self, run: Run, token: str) -> Claimed:
        recent = questions.find_answers(run) if run.state.continues else []
        if recent is None:
            recent = await self._search_answers(run)
        checkpoint_seq = run.checkpoint_seq
        preset, checkpoint, *answers = await asyncio.gather(
            self._agents.preset(run),
            self._event(run.id, checkpoint_seq or 0, "checkpoint.created"),
            *(self._event(run.id, seq, "run.input_received") for seq in recent),
        )
        return Claimed(run, token, checkpoint, [answer for answer in answers if answer is not None], preset)

    async def _search_answers(self, run: Run) -> list[int]:
        """Return the seqs of the answers that the present attempt was given, from the log."""
        name, seq, found = LogName.of_run(run.id), run.marks.get("attempt", 1), list[int]()
        while True:
            head, entries = await self._logs.read(name, seq, entries=SEARCH_ENTRIES, payload_bytes=SEARCH_BYTES)
            found += [entry.seq for entry in entries if peek_type(entry.line) == "run.input_received"]
            if not entries or entries[-1].seq >= head.seq:
                return found
            seq = entries[-1].seq + 1

    async def _event(self, run_id: str, seq: int, kind: str) -> Event | None:
        """Return an event of the run's log; None when the log has been trimmed beyond it, or seq is 0."""
        if not seq:
            return None
        line = await self._logs.read_event(LogName.of_run(run_id), seq)
        event = None if line is None else decode(line)
        return event if event is not None and event.type == kind else None

    async def heartbeat(
        self, caller: Caller, run_id: str, *, lease: str, attempt: int | None, start: bool = False
    ) -> Beat:
        """Keep a lease up, and learn what its holder has not seen.

        Args:
            start: Start the attempt, unless an append has.

        Raises:
            Fenced: the lease is over.
            IllegalTransition: the run has ended.
        """
        run = require_run(caller.grant, await self._runs.load(run_id, caller.tenant))
        guard = Guard(tenant=caller.tenant, attempt=attempt, lease=lease)
        if start and run.state.status is Status.DEQUEUED:
            await self._journal.change(run_id, caller.tenant, _start, guard=guard, by_holder=True)
        appended = await self._journal.beat(run_id, guard, Dedupe())
        expires_ms = self._journal.clock.now_ms() + run.spec.lease_ms
        if appended.status is Status.DEQUEUED:
            # It can be kept up so long, and no longer, without being begun.
            expires_ms = min(expires_ms, start_by_ms(run))
        return Beat(str(appended.status), appended.attempt, expires_ms, pending_of(appended))

    async def release(
        self,
        caller: Caller,
        run_id: str,
        *,
        lease: str,
        attempt: int | None,
        reason: str | None,
        expected_seq: int | None = None,
        keeps_place: bool = False,
    ) -> Run:
        """Give a run back; whoever claims it next goes on at its question, or does the attempt again.

        Args:
            expected_seq: Where the log's head must still be: an answer that came meanwhile is then not given away.
            keeps_place: Whoever claimed it never came to know: it stands in its queue as before.

        Raises:
            Fenced: the lease is over.
            IllegalTransition: the run has ended.
            SeqConflict: the log has gone on.
        """
        body = {"lease": lease, "reason": reason, "expected_seq": expected_seq}
        dedupe = caller.dedupe("release", body, self._idempotency_ms)
        guard = Guard(tenant=caller.tenant, attempt=attempt, lease=lease, expected_seq=expected_seq)

        def decide(run: Run, draft: Draft) -> None:
            attempts.release(run, draft, caller.actor, reason, keeps_place=keeps_place)

        def admit(run: Run) -> None:
            require_run(caller.grant, run)

        outcome = await self._journal.change(
            run_id, caller.tenant, decide, admit=admit, dedupe=dedupe, guard=guard, by_holder=True
        )
        return outcome.run

    async def queues(self, grant: Grant, after: str | None, limit: int) -> tuple[list[QueueDepth], str | None]:
        """Return the depths of queues, by name, and after which name the next page begins, None at the end."""
        access.require_tenant_wide(grant)
        return await self._queues.page(grant.tenant, after, limit)


def _told_bytes(claimed: Claimed) -> int:
    """Return about how much an answer says of a claimed run."""
    parts = (claimed.run.spec.input, claimed.run.spec.metadata, claimed.checkpoint, claimed.answers, claimed.preset)
    return sum(len(msgspec.json.encode(part)) for part in parts)


def _start(run: Run, draft: Draft) -> None:
    if draft.status is Status.DEQUEUED:
        attempts.start(run, draft)


def lease_ends_ms(run: Run) -> int | None:
    """Return when the run's lease ends unless its holder is heard, in Unix ms; None when nobody holds one."""
    return silent_ms(run) if standing(run) is Standing.HOLD else None
