"""The one door: dedupe, guard, seq, store and record in one step, or nothing at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ulid import ULID

from gateway.domain.lifecycle import LIVE, Status
from gateway.domain.run import RunState
from gateway.errors import (
    Fenced,
    GatewayError,
    IdempotencyMismatch,
    IllegalTransition,
    LogFull,
    NotFound,
    SeqConflict,
    TooManyWriters,
    WriterGap,
    WriterStale,
)
from gateway.store import keys
from gateway.store.link import Link
from gateway.store.log import LogName, LogReader
from gateway.store.runs import Dedupe, Guard, Limits, RevisionMoved, RunExists, TooEarly, record_changes
from tests.support.links import BEGIN_MS, Door, connect, line, make_spec
from tests.support.running import RunningStore

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def link(store: RunningStore, anyio_backend: object) -> AsyncIterator[Link]:
    """A connection for all tests of the module."""
    async with connect(store.url) as link:
        yield link


def new_door(link: Link, limits: Limits | None = None) -> Door:
    """Return the door of a run that is still to be created."""
    return Door(link, make_spec(f"t{ULID()}"), limits)


async def read(link: Link, door: Door) -> list[dict[str, object]]:
    """Return the run's events as they are stored."""
    _, entries = await LogReader(link).read(LogName.of_run(door.spec.id), 0, entries=10_000, payload_bytes=2**24)
    assert [entry.seq for entry in entries] == [json.loads(entry.line)["seq"] for entry in entries]
    return [json.loads(entry.line) for entry in entries]


async def test_a_run_is_created_once(link: Link) -> None:
    """The second to try is told; the record is the first one's."""
    door = new_door(link)
    created = await door.create()
    assert (created.first_seq, created.last_seq, created.rev, created.attempt) == (1, 1, 1, 1)
    with pytest.raises(RunExists):
        await door.create(Status.QUEUED)
    run = await door.runs.load(door.spec.id, door.spec.tenant)
    assert (run.spec, run.status, run.rev, run.head_seq, run.first_seq) == (door.spec, Status.RUNNING, 1, 1, 1)


async def test_events_get_dense_seqs_and_tags_of_their_own(link: Link) -> None:
    """The stored line begins with seq and attempt; the head is the last entry."""
    door = new_door(link)
    await door.create()
    appended = await door.append(line(data='{"a":1}'), line(data='{"a":2}'))
    assert (appended.first_seq, appended.last_seq) == (2, 3)
    head, entries = await LogReader(link).read(LogName.of_run(door.spec.id), 0, entries=10, payload_bytes=10**6)
    assert [entry.seq for entry in entries] == [1, 2, 3]
    assert len({entry.tag for entry in entries}) == 3
    assert (head.seq, head.tag) == (3, entries[-1].tag) == (3, appended.head_tag)
    assert entries[1].line.startswith(b'{"seq":2,"attempt":1,"type":"log"')


async def test_many_appends_at_once_leave_no_hole(link: Link) -> None:
    """Every acknowledged seq is there, and nothing else."""
    door = new_door(link)
    await door.create()
    answers = await asyncio.gather(*(door.append(*[line()] * (1 + n % 3)) for n in range(100)))
    claimed = sorted(seq for a in answers for seq in range(a.first_seq, a.last_seq + 1))
    assert claimed == list(range(2, 2 + len(claimed)))
    assert [event["seq"] for event in await read(link, door)] == [1, *claimed]


async def test_another_tenants_run_is_not_there(link: Link) -> None:
    """The door says nothing of it, and nothing is written."""
    door = new_door(link)
    await door.create()
    with pytest.raises(NotFound):
        await door.append(guard=Guard(tenant="other", statuses=LIVE))
    with pytest.raises(NotFound):
        await door.runs.load(door.spec.id, "other")
    with pytest.raises(NotFound):
        await new_door(link).append()


async def test_each_guard_refuses_what_it_is_for(link: Link) -> None:
    """With what the caller needs to go on; the log stays as it was."""
    door = new_door(link)
    await door.create()
    with pytest.raises(IllegalTransition) as status:
        await door.append(guard=door.guard(statuses=frozenset({Status.QUEUED})))
    assert status.value.facts["current_status"] == "running"
    with pytest.raises(SeqConflict) as seq:
        await door.append(guard=door.guard(expected_seq=5))
    assert seq.value.facts["head_seq"] == 1
    with pytest.raises(Fenced) as fenced:
        await door.append(guard=door.guard(attempt=2))
    assert fenced.value.facts["attempt"] == 1
    with pytest.raises(RevisionMoved):
        await door.append(guard=door.guard(rev=7))
    # Whoever decided on an older record has to decide anew, whatever the status is by now.
    with pytest.raises(RevisionMoved):
        await door.append(guard=door.guard(rev=7, statuses=frozenset()))
    assert len(await read(link, door)) == 1


async def test_a_run_that_nobody_holds_takes_no_plain_append(link: Link) -> None:
    """Paused before it began is not paused while it worked."""
    door = new_door(link)
    await door.create(Status.PAUSED, held=False)
    with pytest.raises(IllegalTransition):
        await door.append(guard=door.guard(held=True))


async def test_a_lease_keeps_others_from_appending_as_the_holder(link: Link) -> None:
    """Control still passes."""
    door = new_door(link)
    await door.create()
    await door.append(changes={"lease": "token"})
    with pytest.raises(Fenced):
        await door.append(by_holder=True)
    await door.append(by_holder=True, guard=door.guard(lease="token"))
    await door.append()


async def test_a_change_counts_a_revision_and_events_do_not(link: Link) -> None:
    """Lists are ordered by it: what only says something does not move a run."""
    door = new_door(link)
    await door.create()
    assert (await door.append()).rev == 1
    state = RunState(status=Status.COMPLETED, ended_ms=5)
    ended = await door.append(changes=record_changes(door.spec, state))
    assert (ended.rev, ended.status) == (2, Status.COMPLETED)
    run = await door.runs.load(door.spec.id, door.spec.tenant)
    assert (run.state, run.rev, run.head_seq) == (state, 2, 3)


async def test_marks_and_totals_are_kept_with_the_event(link: Link) -> None:
    """A mark takes the seq of its event; totals add up."""
    door = new_door(link)
    await door.create()
    await door.append(line(), line(), marks={"input": 1, "answered:q": 0}, increments={"u:prompt_tokens": 5})
    await door.append(line(), marks={"input": 0}, increments={"u:prompt_tokens": 2, "u:cost_microusd": 10**12})
    run = await door.runs.load(door.spec.id, door.spec.tenant)
    assert run.marks == {"input": 4, "answered:q": 2}
    assert (run.totals.prompt_tokens, run.totals.cost_microusd) == (7, 10**12)


async def test_the_record_is_as_new_as_its_last_event(link: Link) -> None:
    """And never goes back, though a process's clock may: an event of an earlier time is not taken."""
    door = new_door(link)
    await door.create()
    await door.append(at_ms=BEGIN_MS + 500)
    with pytest.raises(TooEarly) as refusal:
        await door.append(at_ms=BEGIN_MS + 300, by_holder=True)
    assert refusal.value.updated_ms == BEGIN_MS + 500
    await door.append(at_ms=refusal.value.updated_ms, by_holder=True)
    run = await door.runs.load(door.spec.id, door.spec.tenant)
    assert (run.updated_ms, run.beat_ms) == (BEGIN_MS + 500, BEGIN_MS + 500)


def by_writer(number: int, body: str = "a", writer: str = "w") -> Dedupe:
    """Return how a writer's numbered append is recognised."""
    return Dedupe(fingerprint=body, writer=writer, first_number=number, last_number=number)


async def test_a_writers_numbers(link: Link) -> None:
    """The next is stored, the last again is answered again, all else is refused for what it is."""
    door = new_door(link)
    await door.create()
    first = await door.append(dedupe=by_writer(1))
    again = await door.append(dedupe=by_writer(1))
    assert (again.first_seq, again.last_seq, again.duplicate) == (first.first_seq, first.last_seq, True)
    with pytest.raises(IdempotencyMismatch):
        await door.append(dedupe=by_writer(1, "b"))
    with pytest.raises(WriterGap) as gap:
        await door.append(dedupe=by_writer(3))
    assert gap.value.facts["expected"] == 2
    await door.append(dedupe=by_writer(2))
    with pytest.raises(WriterStale) as stale:
        await door.append(dedupe=by_writer(1))
    assert stale.value.facts["expected"] == 3
    with pytest.raises(WriterGap):
        await door.append(dedupe=by_writer(2, writer="new"))
    assert len(await read(link, door)) == 3
    assert await door.runs.writer_position(door.spec.id, "w") == (1, 2)
    assert await door.runs.writer_position(door.spec.id, "nobody") == (0, 0)


async def test_a_repeat_is_answered_before_any_guard(link: Link) -> None:
    """The status, the head and the attempt have moved on since; the reply is the first one."""
    door = new_door(link)
    await door.create()
    first = await door.append(dedupe=by_writer(1), guard=door.guard(expected_seq=1))
    await door.append(changes=record_changes(door.spec, RunState(status=Status.COMPLETED, attempt=2)))
    again = await door.append(dedupe=by_writer(1), guard=door.guard(expected_seq=1, attempt=1))
    assert (again.first_seq, again.duplicate, again.status) == (first.first_seq, True, Status.COMPLETED)


async def test_writers_begin_anew_with_each_attempt(link: Link) -> None:
    """A number that goes on from the old attempt is fenced."""
    door = new_door(link)
    await door.create()
    await door.append(dedupe=by_writer(1))
    await door.append(changes=record_changes(door.spec, RunState(status=Status.RUNNING, held=True, attempt=2)))
    with pytest.raises(Fenced):
        await door.append(dedupe=by_writer(2))
    # The very first append again could be either attempt's: it has to say which.
    with pytest.raises(Fenced):
        await door.append(dedupe=by_writer(1))
    assert (await door.append(dedupe=by_writer(1), guard=door.guard(attempt=1))).duplicate is True
    fresh = await door.append(dedupe=by_writer(1), guard=door.guard(attempt=2))
    assert (fresh.duplicate, fresh.attempt) == (False, 2)
    assert await door.runs.writer_position(door.spec.id, "w") == (2, 1)


async def test_a_refused_append_does_not_spend_its_number(link: Link) -> None:
    """It can be put right and sent again."""
    door = new_door(link)
    await door.create()
    with pytest.raises(SeqConflict):
        await door.append(dedupe=by_writer(1), guard=door.guard(expected_seq=9))
    assert (await door.append(dedupe=by_writer(1, "b"))).duplicate is False


async def test_an_idempotency_key_is_kept_for_its_time(link: Link) -> None:
    """A repeat gets the first reply, another body a refusal; the entry has the lifetime it was given."""
    door = new_door(link)
    await door.create()
    dedupe = Dedupe(fingerprint="a", idempotency="key", lifetime_ms=60_000)
    first = await door.append(dedupe=dedupe)
    assert (await door.append(dedupe=dedupe)).first_seq == first.first_seq
    with pytest.raises(IdempotencyMismatch):
        await door.append(dedupe=Dedupe(fingerprint="b", idempotency="key", lifetime_ms=60_000))
    left_ms = await link.call("PTTL", keys.run_idempotency(door.spec.id, "key"))
    assert 50_000 < left_ms <= 60_000


async def test_bounds_of_writers_and_events(link: Link) -> None:
    """Known writers go on; a full log still takes what ends the run."""
    door = new_door(link, Limits(log_events=5, writers=2))
    await door.create()
    for writer in ("a", "b"):
        await door.append(dedupe=by_writer(1, writer=writer))
    with pytest.raises(TooManyWriters):
        await door.append(dedupe=by_writer(1, writer="c"))
    await door.append(dedupe=by_writer(2, writer="a"))
    with pytest.raises(LogFull):
        await door.append(line(), line())
    await door.append()
    with pytest.raises(LogFull):
        await door.append()
    ended = await door.append(line(), line(), changes=record_changes(door.spec, RunState(status=Status.COMPLETED)))
    assert ended.last_seq == 7


async def test_what_the_holder_has_not_seen_is_pending(link: Link) -> None:
    """A cancel and a pause for as long as they stand, an answer until the holder's next append."""
    door = new_door(link)
    await door.create()
    await door.append(line(), marks={"input": 0})
    assert (await door.append(by_holder=True)).input_seq == 2
    assert (await door.append(by_holder=True)).input_seq == 0
    paused = record_changes(door.spec, RunState(status=Status.PAUSED, held=True))
    await door.append(changes=paused, marks={"pause": 0})
    reply = await door.append(by_holder=True)
    assert (reply.pause_seq, reply.cancel_seq) == (5, 0)
    cancelling = record_changes(door.spec, RunState(status=Status.CANCELLING, held=True))
    await door.append(changes=cancelling, marks={"cancel": 0})
    reply = await door.append(by_holder=True)
    assert (reply.pause_seq, reply.cancel_seq) == (0, 7)


async def test_only_an_ended_run_is_trimmed_or_removed(link: Link) -> None:
    """An active log is whole, whoever asks."""
    door = new_door(link)
    await door.create()
    await door.append(*[line()] * 9)
    run = await door.runs.load(door.spec.id, door.spec.tenant)
    for refused in (door.runs.trim(run, 3), door.runs.trim(run, None), door.runs.remove(run)):
        with pytest.raises(IllegalTransition):
            await refused
    await door.append(changes=record_changes(door.spec, RunState(status=Status.COMPLETED)))
    for moved in (door.runs.trim(run, 3), door.runs.remove(run)):
        with pytest.raises(RevisionMoved):
            await moved
    run = await door.runs.load(door.spec.id, door.spec.tenant)
    await door.runs.trim(run, 3)
    assert [event["seq"] for event in await read(link, door)] == list(range(4, 12))
    await door.runs.trim(run, None)
    expired = await door.runs.load(door.spec.id, door.spec.tenant)
    assert (expired.log_expired, expired.first_seq, expired.head_seq) == (True, 12, 11)
    await door.runs.remove(run)
    assert await door.runs.load_any(door.spec.id) is None
    assert await link.call("KEYS", f"gw:{{{door.spec.id}}}*") == []


class Position(NamedTuple):
    """A writer's last append: to which attempt, its number, its body."""

    attempt: int
    number: int
    body: str


WRITES = st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.sampled_from("xy"), st.sampled_from([None, 1, 2]))
ACTS = st.one_of(WRITES, WRITES, WRITES, st.integers(1, 3), st.just("restart"))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=st.lists(ACTS, max_size=25))
async def test_the_door_against_a_model(link: Link, acts: list[Any]) -> None:
    """Any order of numbered writes, repeats, skips and new attempts: what is stored is what a plain model says."""
    door = new_door(link)
    await door.create()
    attempt, head = 1, 1
    positions: dict[str, Position] = {}
    for act in acts:
        if act == "restart":
            attempt, head = attempt + 1, head + 1
            await door.append(
                changes=record_changes(door.spec, RunState(status=Status.RUNNING, held=True, attempt=attempt))
            )
        elif isinstance(act, int):
            await door.append(*[line()] * act)
            head += act
        else:
            writer, number, body, named = act
            expected = expect(positions.get(writer), attempt, Position(named or 0, number, body))
            assert await outcome(door, by_writer(number, body, writer), named) == expected
            if expected == "stored":
                positions[writer] = Position(attempt, number, body)
                head += 1
        run = await door.runs.load(door.spec.id, door.spec.tenant)
        assert (run.head_seq, run.state.attempt) == (head, attempt)
    assert [event["seq"] for event in await read(link, door)] == list(range(1, head + 1))


def expect(known: Position | None, attempt: int, new: Position) -> str:
    """Return what the rules say of a writer's append to a run in `attempt`; `new.attempt` is 0 where none is named."""
    if known is None:
        return "writer_gap" if new.number != 1 else named_or(new, attempt, "stored")
    same = (new.number, new.body) == (known.number, known.body)
    if known.attempt == (new.attempt or attempt):
        if new.number == known.number:
            return "repeated" if same else "idempotency_mismatch"
        if known.attempt != attempt:
            return "fenced"
        if new.number == known.number + 1:
            return "stored"
        return "writer_gap" if new.number > known.number else "writer_stale"
    if new.attempt:
        if new.attempt == attempt:
            return "stored" if new.number == 1 else "writer_gap"
        return known_elsewhere(known, attempt, new)
    # No attempt is named, and the writer wrote to an older one.
    if new.number == 1:
        return "fenced" if same else "stored"
    return "repeated" if same else "fenced"


def named_or(new: Position, attempt: int, otherwise: str) -> str:
    """Return `otherwise`, unless the append names an attempt that is not the present one."""
    return otherwise if new.attempt in (0, attempt) else "fenced"


def known_elsewhere(known: Position, attempt: int, new: Position) -> str:
    """Return what becomes of an append that names neither the present attempt nor the writer's last one."""
    if known.attempt != attempt or new.number == known.number + 1:
        return "fenced"
    return "writer_gap" if new.number > known.number else "writer_stale"


async def outcome(door: Door, dedupe: Dedupe, named: int | None) -> str:
    """Return what the door did with an append."""
    try:
        appended = await door.append(dedupe=dedupe, guard=door.guard(attempt=named))
    except GatewayError as error:
        return error.code
    return "repeated" if appended.duplicate else "stored"
