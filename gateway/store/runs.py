"""Run records and the one door through which they change."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

import msgspec

from gateway.domain.lifecycle import TERMINAL, Status
from gateway.domain.run import Run, RunSpec, RunState, Totals
from gateway.errors import NotFound
from gateway.store import keys
from gateway.store.door import Appended as Appended
from gateway.store.door import Dedupe as Dedupe
from gateway.store.door import Guard as Guard
from gateway.store.door import Limits as Limits
from gateway.store.door import TooEarly as TooEarly
from gateway.store.door import join_statuses, refusal, show
from gateway.store.link import Argument, Link
from gateway.store.log import new_tags
from gateway.store.plain import PlainDoor
from gateway.store.scripts import APPEND, REMOVE_RUN, TRIM_LOG, Word

_CHANGING_ROOM = 250
_ENDING_ROOM = 1_000
_ENDING = TERMINAL | {Status.CANCELLING}
_PARSED_AT_ONCE_BYTES = 256 * 1024
TOTALS = ("prompt_tokens", "completion_tokens", "cached_tokens", "cost_microusd", "credits_micro")


class Write(msgspec.Struct, frozen=True, kw_only=True):
    """One atomic change of a run: events, and what of the record changes with them.

    `changes` are of its state and count in its revision; `notes` are not.
    """

    guard: Guard
    events: Sequence[bytes]
    at_ms: int
    dedupe: Dedupe = Dedupe()
    changes: dict[str, Argument] = {}
    increments: dict[str, int] = {}
    marks: dict[str, int] = {}
    notes: dict[str, str] = {}
    by_holder: bool = False
    own_index: int = 0
    is_output: bool = False
    forget_writers: bool = False


class RevisionMoved(Exception):
    """The run changed between reading it and writing it; read it again."""


class RunExists(Exception):
    """The run that was to be created is there already."""


class RunStore:
    """Records of runs, written by appends only."""

    def __init__(self, reads: Link, writes: Link, limits: Limits) -> None:
        self._reads = reads
        self._writes = writes
        self._limits = limits
        self._plain = PlainDoor(writes, limits)

    async def load(self, run_id: str, tenant: str) -> Run:
        """Return the run.

        Raises:
            NotFound: no such run, or another tenant's.
        """
        (run,) = await self.load_many([run_id])
        if run is None or run.spec.tenant != tenant:
            raise NotFound(f"There is no run {run_id}.", run_id=run_id)
        return run

    async def load_any(self, run_id: str) -> Run | None:
        """Return the run of whatever tenant, for timers; None when there is none."""
        (run,) = await self.load_many([run_id])
        return run

    async def load_many(self, run_ids: Sequence[str]) -> list[Run | None]:
        """Return the runs in one round trip; None where there is none."""
        return [run for run, _ in await self.load_measured(run_ids)]

    async def load_measured(self, run_ids: Sequence[str]) -> list[tuple[Run | None, int]]:
        """Return the runs in one round trip, each with its record's bytes; None where there is none."""
        replies = await self._reads.call_many([("HGETALL", keys.record(run_id)) for run_id in run_ids])
        loaded: list[tuple[Run | None, int]] = []
        parsed_bytes = 0
        for reply in replies:
            record_bytes = sum(map(len, reply))
            loaded.append((_parse(reply) if reply else None, record_bytes))
            parsed_bytes += record_bytes
            if parsed_bytes > _PARSED_AT_ONCE_BYTES:
                # Large records take milliseconds each: others have their turn between them.
                await asyncio.sleep(0)
                parsed_bytes = 0
        return loaded

    async def write(self, run_id: str, write: Write) -> Appended:
        """Put one change through the door.

        Raises:
            RevisionMoved: `guard.rev` is no longer the run's.
            TooEarly: the run's last event is later than these; nothing was written.
            GatewayError: the refusal; nothing was written.
            StoreUnavailable: nothing, or it is unknown what, was written.
        """
        idempotency = keys.run_idempotency(run_id, write.dedupe.idempotency or "-")
        word, reply = await APPEND.call(
            self._writes,
            [keys.record(run_id), keys.log(run_id), keys.writers(run_id), idempotency],
            self._arguments(run_id, write),
        )
        if word in (Word.OK, Word.DUPLICATE):
            return _appended(reply, duplicate=word is Word.DUPLICATE)
        if word is Word.REVISION:
            raise RevisionMoved
        if word is Word.EXISTS:
            raise RunExists
        if word is Word.EARLY:
            raise TooEarly(reply[0])
        raise refusal(word, reply, run_id)

    def append_plain(
        self, run_id: str, guard: Guard, dedupe: Dedupe, events: Sequence[bytes], *, at_ms: int, is_output: bool
    ) -> Awaitable[Appended]:
        """Put events that change nothing else of the run through the door; see `PlainDoor.append`."""
        return self._plain.append(run_id, guard, dedupe, events, at_ms=at_ms, is_output=is_output)

    def _arguments(self, run_id: str, write: Write) -> list[Argument]:
        guard, dedupe, limits = write.guard, write.dedupe, self._limits
        args: list[Argument] = [
            keys.events_channel(run_id),
            guard.tenant,
            "absent" if guard.statuses is None else join_statuses(guard.statuses),
            "1" if guard.held else "",
            show(guard.rev),
            show(guard.expected_seq),
            show(guard.attempt),
            guard.lease,
            dedupe.writer,
            dedupe.first_number,
            dedupe.last_number,
            dedupe.fingerprint,
            show(dedupe.lifetime_ms if dedupe.idempotency else None),
            "1" if write.by_holder else "",
            limits.log_events + _room_beyond(write),
            limits.writers,
            limits.notice_bytes,
            write.own_index,
            write.at_ms,
            "1" if write.is_output else "",
            "1" if write.forget_writers else "",
        ]
        for pairs in (write.changes, write.increments, write.marks, write.notes):
            args.append(len(pairs))
            for field, value in pairs.items():
                args += (field, value)
        for tag, rest in zip(new_tags(len(write.events)), write.events, strict=True):
            args += (tag, rest)
        return args

    async def lease(self, run_id: str) -> str:
        """Return the token of the run's present lease, empty when there is none."""
        token = await self._reads.call("HGET", keys.record(run_id), "lease")
        return "" if token is None else str(token.decode())

    async def writer_position(self, run_id: str, writer: str) -> tuple[int, int]:
        """Return the attempt and the number of the writer's last append, zeros when it made none."""
        position = await self._reads.call("HGET", keys.writers(run_id), writer)
        if position is None:
            return 0, 0
        attempt, number, _ = position.split(b" ", 2)
        return int(attempt), int(number)

    async def trim(self, run: Run, through_seq: int | None) -> None:
        """Remove events up to `through_seq` of an ended run, all of them when None (the log has then expired)."""
        await self._after_end(TRIM_LOG, run, ["all" if through_seq is None else through_seq])

    async def remove(self, run: Run) -> None:
        """Remove an ended run, record and log."""
        await self._after_end(REMOVE_RUN, run, [], keys.hook_states(run.id), keys.deliveries(run.id))

    async def _after_end(self, script: Any, run: Run, more: list[Argument], *others: str) -> None:
        names = [keys.record(run.id), keys.log(run.id), keys.writers(run.id), *others]
        word, reply = await script.call(self._writes, names, [run.spec.tenant, join_statuses(TERMINAL), run.rev, *more])
        if word is Word.REVISION:
            raise RevisionMoved
        if word not in (Word.OK, Word.MISSING):
            raise refusal(word, reply, run.id)


def record_changes(
    spec: RunSpec, state: RunState, *, new: bool = False, lease: str | None = None
) -> dict[str, Argument]:
    """Return the record's fields for a new state, and for the spec when the run is new.

    Args:
        lease: The token of a lease that the change gives.
    """
    changes: dict[str, Argument] = {
        "state": msgspec.json.encode(state),
        "status": str(state.status),
        "attempt": state.attempt,
        "held": "1" if state.held else "",
    }
    if not state.terminal:
        # A log that goes on is kept.
        changes["log_expired"] = ""
    if new:
        changes |= {"spec": msgspec.json.encode(spec), "tenant": spec.tenant}
    if lease is not None:
        changes |= {"lease": lease, "output_ms": 0}
    elif spec.is_queued and not state.leased:
        changes["lease"] = ""
    return changes


def _parse(reply: list[bytes]) -> Run:
    fields = dict(zip(reply[::2], reply[1::2], strict=True))
    return Run(
        spec=msgspec.json.decode(fields[b"spec"], type=RunSpec),
        state=msgspec.json.decode(fields[b"state"], type=RunState),
        rev=int(fields[b"rev"]),
        head_seq=int(fields[b"head_seq"]),
        head_tag=int(fields[b"head_tag"]),
        first_seq=int(fields[b"first_seq"]),
        updated_ms=int(fields[b"updated_ms"]),
        beat_ms=int(fields.get(b"beat_ms", 0)),
        holder_seq=int(fields.get(b"holder_seq", 0)),
        output_ms=int(fields.get(b"output_ms", 0)),
        log_expired=fields.get(b"log_expired") == b"1",
        marks={k[2:].decode(): int(v) for k, v in fields.items() if k.startswith(b"m:")},
        hooked=fields.get(b"hooked", b"").decode(),
        model=fields[b"model"].decode() if b"model" in fields else None,
        totals=Totals(*(int(fields.get(b"u:" + name.encode(), 0)) for name in TOTALS)),
    )


def _appended(reply: list[Any], *, duplicate: bool) -> Appended:
    first, last, status, rev, attempt, head_tag, holder_seq, cancel, pause, answer, hooked = reply
    state = Status(status.decode())
    return Appended(
        first_seq=first,
        last_seq=last,
        status=state,
        rev=rev,
        attempt=attempt,
        head_tag=int(head_tag),
        duplicate=duplicate,
        cancel_seq=cancel if state is Status.CANCELLING else 0,
        pause_seq=pause if state is Status.PAUSED else 0,
        input_seq=answer if answer > holder_seq else 0,
        hooked=hooked.decode(),
    )


def _room_beyond(write: Write) -> int:
    """Return by how many events a full log may still grow: for what moves the run on, and further for its end."""
    if not write.changes:
        return 0
    return _CHANGING_ROOM + (_ENDING_ROOM if write.changes.get("status") in _ENDING else 0)
