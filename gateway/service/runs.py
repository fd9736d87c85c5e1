"""Creating, finding, copying and removing runs."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from hashlib import blake2b

import msgspec
from ulid import ULID

from gateway import telemetry, tracing
from gateway.domain import access, decisions
from gateway.domain.access import Grant
from gateway.domain.agents import Agent, Overrides, apply_policy, check_preset
from gateway.domain.due import Verdict, judge_need
from gateway.domain.hooks import FixedHook
from gateway.domain.lifecycle import MODES, Action, Status, require
from gateway.domain.run import Dependency, Run, RunSpec
from gateway.errors import LogExpired, NotFound, UnsupportedMode
from gateway.hub.hub import Hub
from gateway.service.actors import Caller, require_run
from gateway.service.agents import Agents
from gateway.service.audit import audited, audits
from gateway.service.dependents import tell_dependents
from gateway.service.hooks import Hooks, make_own
from gateway.service.journal import Journal
from gateway.service.narrowing import Permitted, narrow
from gateway.service.new_runs import Need as Need
from gateway.service.new_runs import NewRun as NewRun
from gateway.service.new_runs import RunLimits as RunLimits
from gateway.service.new_runs import check_schedule as check_schedule
from gateway.service.new_runs import check_sizes
from gateway.service.shelf import Shelf
from gateway.store.indexes import IndexStore
from gateway.store.keys import digest
from gateway.store.log import LogName
from gateway.store.runs import Dedupe, RevisionMoved, RunStore

NOBODY = "-"


def own_thread(run_id: str) -> str:
    """Return the thread of a run that was given none: whoever knows the run's id knows it."""
    made = ULID.from_str(run_id).bytes
    return str(ULID.from_bytes(made[:6] + blake2b(made, digest_size=10).digest()))


def _trace_of(caller: Caller) -> tuple[str, str | None]:
    """Return the trace that a run made now belongs to, and the span that makes it, where there is one."""
    asked = tracing.current.get()
    trace_id = caller.trace_id or (secrets.token_hex(16) if asked is None else asked.trace_id)
    return trace_id, None if asked is None or asked.trace_id != trace_id else asked.span_id


class NeedStatus(msgspec.Struct, frozen=True):
    """A run that another depends on, how it stands (None when it is gone), and what that says of the other."""

    dependency: Dependency
    status: Status | None
    verdict: Verdict


class Planned(msgspec.Struct, frozen=True):
    """A run that may be created, and how a repeat of its creation is recognised."""

    spec: RunSpec
    hooks: Sequence[FixedHook]
    dedupe: Dedupe


class Runs:
    """Runs of all tenants, as callers may see them."""

    def __init__(
        self,
        journal: Journal,
        runs: RunStore,
        indexes: IndexStore,
        agents: Agents,
        hooks: Hooks,
        hub: Hub,
        shelf: Shelf,
        limits: RunLimits,
    ) -> None:
        self._journal = journal
        self._agents = agents
        self._hooks = hooks
        self._runs = runs
        self._indexes = indexes
        self._hub = hub
        self._shelf = shelf
        self._limits = limits

    async def create(self, caller: Caller, new: NewRun, *, action: str = "create", asked: object = None) -> Run:
        """Create a run, or return the one that the caller's idempotency key made before.

        Args:
            action: What the key is remembered for.
            asked: What its repeat is recognised by; the new run itself where nothing is given.

        Raises:
            UnsupportedMode: there is no such mode.
            InvalidBody: what is asked for contradicts itself, or names a preset that the agent does not have, or a
                file that the caller does not, or a webhook cannot be.
            TooLarge: input or metadata are over their bounds.
            NotFound: the parent, or a run that this one depends on, is no run of this caller.
        """
        planned = await self.plan(caller, new, action=action, asked=asked)
        run = planned if isinstance(planned, Run) else await self.carry_out(planned)
        telemetry.name_run(run.id, run.spec.trace_id)
        return run

    async def plan(self, caller: Caller, new: NewRun, *, action: str, asked: object = None) -> Run | Planned:
        """Return how a run is to be created, or the one that the caller's idempotency key made before.

        Raises: as `create`.
        """
        asked = msgspec.to_builtins(new) if asked is None else asked
        self._check(caller, new)
        made = await self._made_before(caller, action, asked)
        if made is not None:
            return made
        spec, hooks = await self._prepare(caller, new)
        return Planned(spec, hooks, caller.dedupe(action, asked, self._limits.idempotency_ms))

    async def carry_out(self, planned: Planned) -> Run:
        """Create a planned run; those that are begun in one turn of the loop get their times in that order.

        Raises:
            IdempotencyMismatch: its key was used meanwhile with another body.
        """
        return await self._create(planned.spec, planned.hooks, planned.dedupe)

    async def create_for_tick(self, caller: Caller, new: NewRun, *, run_id: str) -> Run:
        """Create the run of a schedule's tick under an id that was chosen for it; one, however often it is asked for.

        Raises: as `create`.
        """
        self._check(caller, new)
        spec, hooks = await self._prepare(caller, new)
        spec = msgspec.structs.replace(spec, id=run_id, thread_id=own_thread(run_id))
        # Whatever has become of the schedule since: the tick is what its run is recognised by.
        tick = digest("tick", new.schedule_id or "", str(new.tick_ms))
        return await self._create(spec, hooks, Dedupe(tick, idempotency=tick, lifetime_ms=self._limits.idempotency_ms))

    def _check(self, caller: Caller, new: NewRun) -> None:
        access.require_creation(caller.grant, new.agent_id, new.thread_id)
        if new.mode not in MODES:
            raise UnsupportedMode(f"mode: expected direct or queued, got {new.mode[:64]!r}.", allowed=list(MODES))
        check_sizes(new, self._limits, self._journal.clock.now_ms())
        self._hooks.check(new.webhooks)

    async def _prepare(self, caller: Caller, new: NewRun) -> tuple[RunSpec, Sequence[FixedHook]]:
        await self._shelf.require(caller.grant, new.file_ids)
        agent = await self._agents.find(caller.tenant, new.agent_id)
        check_preset(agent, new.preset)
        parent = None
        if new.parent_run_id is not None:
            parent = await self.get(caller.grant, new.parent_run_id)
        needs = await self._needs(caller.grant, new.depends_on)
        spec = self._spec(caller, new, parent, needs)
        hooks = await self._hooks.fix(caller.tenant, agent, make_own(self._hooks.check(new.webhooks)))
        return self._under_policy(spec, agent, new.overrides), hooks

    async def _needs(self, grant: Grant, needs: Sequence[Need]) -> tuple[Dependency, ...]:
        found = []
        for index, need in enumerate(needs):
            try:
                run = await self.get(grant, need.run_id)
            except NotFound as error:
                error.facts["path"] = f"$.depends_on[{index}].run_id"
                raise
            found.append(Dependency(run.id, run.spec.agent_id, need.condition))
        return tuple(found)

    def _under_policy(self, spec: RunSpec, agent: Agent, overrides: Overrides) -> RunSpec:
        limits = self._limits
        return apply_policy(spec, agent, overrides, start_timeout_ms=limits.start_timeout_ms, lease_ms=limits.lease_ms)

    def _spec(self, caller: Caller, new: NewRun, parent: Run | None, needs: tuple[Dependency, ...]) -> RunSpec:
        now_ms = self._journal.clock.now_ms()
        run_id = str(ULID.from_timestamp(now_ms / 1000))
        scheduled_ms = new.scheduled_ms if new.delay_ms is None else now_ms + new.delay_ms
        trace_id, parent_span_id = _trace_of(caller)
        return RunSpec(
            id=run_id,
            tenant=caller.tenant,
            agent_id=new.agent_id,
            mode=new.mode,
            thread_id=new.thread_id or own_thread(run_id),
            created_us=0,
            actor=caller.actor,
            input=new.input,
            title=new.title,
            tags=new.tags,
            metadata=new.metadata,
            trigger=new.trigger,
            triggered_by=caller.triggered_by,
            parent_run_id=new.parent_run_id,
            root_run_id=None if parent is None else parent.spec.root_run_id or parent.id,
            lineage_depth=0 if parent is None else parent.spec.lineage_depth + 1,
            batch_id=new.batch_id,
            schedule_id=new.schedule_id,
            tick_ms=new.tick_ms,
            scheduled_ms=scheduled_ms if scheduled_ms is not None and scheduled_ms > now_ms else None,
            heartbeat_ms=new.heartbeat_ms,
            file_ids=new.file_ids,
            extensions=new.extensions,
            priority=new.priority,
            concurrency_key=new.concurrency_key,
            depends_on=needs,
            preset=new.preset,
            trace_id=trace_id,
            parent_span_id=parent_span_id,
            idempotency_key=caller.idempotency_key,
        )

    async def copy(self, caller: Caller, source_id: str, action: Action, *, permitted: Permitted = None) -> Run:
        """Make a new run of an ended one: `retry` or `replay`, with its input and its lineage.

        Args:
            permitted: What a dialect lets pass, where that is less.

        Raises:
            IllegalTransition: the source's status does not permit it.
        """
        with audited(caller, str(action), source_id):
            return await self._copy(caller, source_id, action, permitted)

    async def _copy(self, caller: Caller, source_id: str, action: Action, permitted: Permitted) -> Run:
        made = await self._made_before(caller, str(action), {"source": source_id})
        if made is not None:
            return made
        source = await self.get(caller.grant, source_id)
        access.require_creation(caller.grant, source.spec.agent_id, source.spec.thread_id)
        narrow(source, action, permitted)
        decisions.copy(source, action)
        now_ms = self._journal.clock.now_ms()
        trace_id, parent_span_id = _trace_of(caller)
        spec = msgspec.structs.replace(
            source.spec,
            id=str(ULID.from_timestamp(now_ms / 1000)),
            actor=caller.actor,
            trigger="retry" if action is Action.RETRY else source.spec.trigger,
            triggered_by=caller.triggered_by,
            retry_of=source.id if action is Action.RETRY else None,
            replay_of=source.id if action is Action.REPLAY else None,
            root_run_id=source.spec.root_run_id or source.id,
            lineage_depth=source.spec.lineage_depth + 1,
            scheduled_ms=None,
            depends_on=(),
            preset=source.state.preset,
            trace_id=trace_id,
            parent_span_id=parent_span_id,
            idempotency_key=caller.idempotency_key,
        )
        agent = await self._agents.find(caller.tenant, spec.agent_id)
        overrides = msgspec.convert(spec.overrides, Overrides)
        spec = self._under_policy(spec, agent, overrides)
        own = await self._hooks.own_of(source.id) if source.hooked else []
        hooks = await self._hooks.fix(caller.tenant, agent, own)
        dedupe = caller.dedupe(str(action), {"source": source.id}, self._limits.idempotency_ms)
        return await self._create(spec, hooks, dedupe)

    async def _made_before(self, caller: Caller, action: str, body: object) -> Run | None:
        """Return the run that the caller's idempotency key has made; None where there is none yet.

        Raises:
            IdempotencyMismatch: the key was used with another body.
        """
        dedupe = caller.dedupe(action, body, self._limits.idempotency_ms)
        if not dedupe.idempotency:
            return None
        run_id = await self._indexes.find_reserved(caller.tenant, dedupe.idempotency, dedupe.fingerprint)
        if run_id is None:
            return None
        (run,) = await self._runs.load_many([run_id])
        if run is None and await self._indexes.find_grave(caller.tenant, run_id) is not None:
            raise NotFound(f"The run {run_id} that this key made has been purged.", run_id=run_id)
        return None if run is None else require_run(caller.grant, run)

    async def _create(self, spec: RunSpec, hooks: Sequence[FixedHook], dedupe: Dedupe) -> Run:
        reserved = await self._indexes.reserve(spec, dedupe)
        if reserved.run_id != spec.id:
            # Another request under this key was first; its run may still have to be created.
            thread_id = own_thread(reserved.run_id) if spec.thread_id == own_thread(spec.id) else spec.thread_id
            spec = msgspec.structs.replace(spec, id=reserved.run_id, thread_id=thread_id)
            reserved = await self._indexes.reserve(spec, dedupe)
        spec = msgspec.structs.replace(spec, created_us=reserved.created_us)
        return await self._journal.create(spec, decisions.create(spec), reserved.change_id, hooks)

    async def own_hooks(self, run: Run) -> list[FixedHook]:
        """Return the webhooks that a run was created with, beside those of its agent; whoever created it may see
        the secrets that were made up for them."""
        return await self._hooks.own_of(run.id) if run.hooked else []

    async def get(self, grant: Grant, run_id: str) -> Run:
        """Return a run.

        Raises:
            NotFound: there is none, or none for this caller.
        """
        return require_run(grant, await self._runs.load(run_id, grant.tenant))

    async def dependencies(self, run: Run) -> list[NeedStatus]:
        """Return how far the runs are that this one was created to wait for."""
        needed = await self.needed(run)
        needs = run.spec.depends_on
        return [NeedStatus(need, needed[need.run_id], judge_need(run, need, needed)) for need in needs]

    async def needed(self, run: Run) -> dict[str, Status | None]:
        """Return where the runs stand that this one depends on; None for those that are gone."""
        run_ids = list(dict.fromkeys(need.run_id for need in run.spec.depends_on))
        found = await self._runs.load_many(run_ids)
        return {run_id: None if run is None else run.status for run_id, run in zip(run_ids, found, strict=True)}

    async def wait(self, grant: Grant, run_id: str, *, timeout_s: float, waiting_counts: bool) -> Run:
        """Return the run once it has ended (or waits for input, where that counts), or when the time is up or the
        process is about to stop."""
        run = await self.get(grant, run_id)
        if run.state.terminal or timeout_s <= 0:
            return run
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        async with self._hub.follow(LogName.of_run(run_id)) as channel:
            while True:
                enough = (
                    channel.ended
                    or channel.gone
                    or self._hub.stopping
                    or (waiting_counts and channel.status == "waiting_for_input")
                )
                left_s = deadline_s - loop.time()
                if enough or left_s <= 0:
                    return await self.get(grant, run_id)
                await channel.changed(left_s)

    @audits("purge")
    async def purge(self, caller: Caller, run_id: str, *, through_seq: int | None, keep_record: bool) -> Run | None:
        """Remove an ended run: all of it, its log only, or its log up to `through_seq`.

        Returns:
            The run as it is now, None when it is gone.

        Raises:
            IllegalTransition: the run has not ended; an active log is never trimmed.
        """
        asked = {"run_id": run_id, "through_seq": through_seq, "keep_record": keep_record}
        dedupe = caller.dedupe("purge", asked, self._limits.idempotency_ms)
        mark = digest(dedupe.idempotency, dedupe.fingerprint) if dedupe.idempotency else NOBODY
        while True:
            try:
                run = await self.get(caller.grant, run_id)
            except NotFound:
                # Its answer may have been lost together with the note of it.
                if mark == NOBODY or await self._indexes.find_grave(caller.tenant, run_id) != mark:
                    raise
                return None
            require(Action.PURGE, run.status)
            try:
                if through_seq is not None or keep_record:
                    if run.log_expired and through_seq is not None:
                        raise LogExpired("The run's log has been removed.", run_id=run_id)
                    await self._runs.trim(run, through_seq)
                    return await self.get(caller.grant, run_id)
                await self.remove(run, mark=mark)
            except RevisionMoved:
                continue
            return None

    async def remove(self, run: Run, *, mark: str = NOBODY) -> None:
        """Remove an ended run, its files and index entries; the note of it lets the reconciler finish after a crash.

        Args:
            mark: Of the request that asked for it.
        """
        now_ms = self._journal.clock.now_ms()
        tenant = run.spec.tenant
        await tell_dependents(run, self._journal, self._runs, self._indexes)
        change_id = await self._indexes.begin_change(tenant, run.id, now_ms)
        await self._indexes.bury(tenant, run.id, mark, self._limits.idempotency_ms)
        await self._runs.remove(run)
        await self._shelf.remove_of_run(tenant, run.id)
        await self._journal.aftermath.finish_removal(run, change_id)

    async def forget(self, tenant: str, run_id: str, change_id: str) -> None:
        """Finish what whoever removed the run, or never came to create it, left of it."""
        await self._shelf.remove_of_run(tenant, run_id)
        await self._journal.aftermath.forget(tenant, run_id, change_id)
