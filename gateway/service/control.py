"""Steering a run: cancel, pause, resume, restart, reschedule, and answering its questions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from gateway.domain import decisions, questions
from gateway.domain.agents import check_preset
from gateway.domain.draft import Draft
from gateway.domain.events import decode, peek_type
from gateway.domain.lifecycle import Action
from gateway.domain.run import Run
from gateway.errors import InvalidBody, LogExpired, NotFound, TooLarge
from gateway.service.actors import Caller, require_run
from gateway.service.agents import Agents
from gateway.service.audit import audited
from gateway.service.journal import Journal, Outcome
from gateway.service.narrowing import Permitted, narrow
from gateway.service.runs import check_schedule
from gateway.store.indexes import IndexStore
from gateway.store.keys import digest
from gateway.store.log import LogName, LogReader
from gateway.store.runs import RunStore


class Answered(msgspec.Struct, frozen=True):
    """A question's answer as the log has it."""

    request_id: str
    seq: int


class Control:
    """Actions on a run; each answers with the run after it, and a repeat as the first time.

    `permitted` narrows the statuses that an action may come from, as of the very change that it makes.
    """

    def __init__(
        self,
        journal: Journal,
        runs: RunStore,
        logs: LogReader,
        indexes: IndexStore,
        agents: Agents,
        *,
        cancel_grace_ms: int,
        idempotency_ms: int,
        input_bytes: int,
    ) -> None:
        self._journal = journal
        self._runs = runs
        self._logs = logs
        self._indexes = indexes
        self._agents = agents
        self._cancel_grace_ms = cancel_grace_ms
        self._idempotency_ms = idempotency_ms
        self._input_bytes = input_bytes

    async def cancel(
        self, caller: Caller, run_id: str, *, reason: str | None, force: bool, permitted: Permitted = None
    ) -> Run:
        """Cancel a run; one that is held becomes `cancelling` until its holder confirms or the grace ends."""

        def decide(run: Run, draft: Draft) -> None:
            narrow(run, Action.CANCEL, permitted)
            decisions.cancel(draft, caller.actor, reason, grace_ms=self._cancel_grace_ms, force=force)

        return await self._act(caller, run_id, "cancel", {"reason": reason, "force": force}, decide)

    async def pause(self, caller: Caller, run_id: str, *, reason: str | None, permitted: Permitted = None) -> Run:
        """Pause a run that is queued, running or waiting for input."""

        def decide(run: Run, draft: Draft) -> None:
            narrow(run, Action.PAUSE, permitted)
            decisions.pause(draft, caller.actor, reason)

        return await self._act(caller, run_id, "pause", {"reason": reason}, decide)

    async def resume(self, caller: Caller, run_id: str, *, reason: str | None, permitted: Permitted = None) -> Run:
        """Resume a paused run.

        Raises:
            InputRequired: it is not paused, it waits for an answer.
        """

        def decide(run: Run, draft: Draft) -> None:
            narrow(run, Action.RESUME, permitted)
            decisions.resume(run, draft, caller.actor, reason)

        return await self._act(caller, run_id, "resume", {"reason": reason}, decide)

    async def restart(
        self,
        caller: Caller,
        run_id: str,
        *,
        reason: str | None,
        action: Action = Action.RESTART,
        preset: str | None = None,
        from_checkpoint: bool | int = False,
        permitted: Permitted = None,
    ) -> Run:
        """Queue the same run again as its next attempt, or from the dead letters as its first.

        Args:
            from_checkpoint: True for the last one, or the seq of one; False to begin at the beginning.

        Raises:
            InvalidBody: there is no such checkpoint, or the agent has no such preset.
        """
        run = require_run(caller.grant, await self._runs.load(run_id, caller.tenant))
        check_preset(await self._agents.find(caller.tenant, run.spec.agent_id), preset)
        wanted = run.checkpoint_seq if from_checkpoint is True else from_checkpoint or None
        if wanted is not None:
            await self._require_checkpoint(run_id, wanted)

        def decide(run: Run, draft: Draft) -> None:
            narrow(run, action, permitted)
            if from_checkpoint is True:
                checkpoint_seq = run.checkpoint_seq
                if checkpoint_seq is None:
                    raise InvalidBody("from_checkpoint: the run has no checkpoint.", path="$.from_checkpoint")
            else:
                checkpoint_seq = from_checkpoint or None
            decisions.restart(
                run, draft, caller.actor, reason, action=action, checkpoint_seq=checkpoint_seq, preset=preset
            )

        body = {"reason": reason, "preset": preset, "from_checkpoint": from_checkpoint}
        return await self._act(caller, run_id, str(action), body, decide)

    async def _require_checkpoint(self, run_id: str, seq: int) -> None:
        line = await self._logs.read_event(LogName.of_run(run_id), seq)
        if line is None or peek_type(line) != "checkpoint.created":
            raise InvalidBody(f"from_checkpoint: event {seq} is no checkpoint of this run.", path="$.from_checkpoint")

    async def set_debug_mode(self, caller: Caller, run_id: str, enabled: bool) -> Run:
        """Note whether the run is looked at closely; its worker learns of it with its next claim."""

        def decide(_run: Run, draft: Draft) -> None:
            decisions.set_debug_mode(draft, caller.actor, enabled)

        return await self._act(caller, run_id, "debug", {"enabled": enabled}, decide)

    async def reset_idempotency_key(self, caller: Caller, run_id: str) -> Run:
        """Free the key under which the run was created: used again, it makes another run.

        Raises:
            NotFound: the run was created without one.
        """

        def decide(run: Run, draft: Draft) -> None:
            if run.spec.idempotency_key is None:
                raise NotFound("The run was created without an idempotency key.", run_id=run_id)
            decisions.reset_idempotency_key(draft, caller.actor)

        run = await self._act(caller, run_id, "reset-key", {}, decide)
        # After the note of it, so that a repeat finishes what a crash left.
        for action in ("create", "batch-run", "trigger", "retry", "replay"):
            digest_ = digest(action, run.spec.idempotency_key or "")
            await self._indexes.forget_key(caller.tenant, digest_, run_id)
        return run

    async def reschedule(
        self,
        caller: Caller,
        run_id: str,
        *,
        scheduled_ms: int,
        past_is_now: bool = False,
        permitted: Permitted = None,
    ) -> Run:
        """Move the start of a run that has not started.

        Args:
            past_is_now: Start it at once where the time has passed, instead of refusing it.
        """

        def decide(run: Run, draft: Draft) -> None:
            narrow(run, Action.RESCHEDULE, permitted)
            if scheduled_ms <= draft.at_ms and not past_is_now:
                raise InvalidBody("scheduled_at lies in the past.", path="$.scheduled_at")
            check_schedule(scheduled_ms, draft.at_ms)
            decisions.reschedule(draft, caller.actor, max(scheduled_ms, draft.at_ms + 1))

        return await self._act(caller, run_id, "reschedule", {"scheduled_ms": scheduled_ms}, decide)

    async def answer(
        self, caller: Caller, run_id: str, *, request_id: str | None, content: Any, as_text: bool = False
    ) -> Answered:
        """Answer an open question; the first valid answer wins.

        Args:
            as_text: The caller can send text only: where the question's schema takes none, it is read as JSON.

        Raises:
            AlreadyAnswered: somebody was first; with the winner's seq.
            AmbiguousQuestion: several questions are open and none is named.
            IllegalTransition: the run does not wait for input.
            InvalidBody: the content does not fit the question's schema.
            TooLarge: the content is over its bound.
        """
        size = len(msgspec.json.encode(content))
        if isinstance(content, str):
            size = len(content.encode())
        if size > self._input_bytes:
            raise TooLarge(
                f"content has {size} bytes; at most {self._input_bytes} are allowed.", limit_bytes=self._input_bytes
            )

        def decide(run: Run, draft: Draft) -> str:
            return questions.answer(run, draft, request_id, content, caller.actor, as_text=as_text)

        body = {"request_id": request_id, "content": content}
        outcome = await self._change(caller, run_id, "input", body, decide)
        assert outcome.appended is not None, "an answer is an event, or a repeat of one"
        seq = outcome.appended.first_seq
        if isinstance(outcome.result, str) and not outcome.appended.duplicate:
            return Answered(outcome.result, seq)
        return Answered(request_id or await self._answered_id(run_id, seq), seq)

    async def _answered_id(self, run_id: str, seq: int) -> str:
        """Return the id of the question that event `seq` answered: a repeat does not decide it anew."""
        event = await self._logs.read_event(LogName.of_run(run_id), seq)
        if event is None:
            raise LogExpired("The run's log has been removed.", run_id=run_id)
        request_id: str = decode(event).data["request_id"]
        return request_id

    async def _act(
        self, caller: Caller, run_id: str, action: str, body: object, decide: Callable[[Run, Draft], None]
    ) -> Run:
        return (await self._change(caller, run_id, action, body, decide)).run

    async def _change(
        self, caller: Caller, run_id: str, action: str, body: object, decide: Callable[[Run, Draft], Any]
    ) -> Outcome[Any]:
        dedupe = caller.dedupe(action, body, self._idempotency_ms)

        def admit(run: Run) -> None:
            require_run(caller.grant, run)

        with audited(caller, action, run_id):
            return await self._journal.change(run_id, caller.tenant, decide, admit=admit, dedupe=dedupe)
