"""The door's short way: events that change no state, to a run that is held, under no idempotency key.

Up to eight appends of one turn of the event loop share a call, whichever runs they are for, where one server has all
runs: a call costs the gateway and its store as much as an append within it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from functools import cache
from typing import Any, Final

import msgspec
from redis.exceptions import ResponseError

from gateway.domain.lifecycle import Status
from gateway.store import keys
from gateway.store.door import Appended, Dedupe, Guard, Limits, TooEarly, join_statuses, refusal
from gateway.store.link import Argument, Link, not_connected
from gateway.store.log import new_tags
from gateway.store.refusals import translate
from gateway.store.scripts import APPEND_PLAIN, Word, is_unknown, word_of

GROUP_APPENDS: Final = 8
GROUP_BYTES: Final = 16 * 1024
"""A call that has these takes no more appends, and leaves: the store works while the rest of the turn is done."""

_NUMBERS: Final = frozenset({Word.SEQ, Word.FULL, Word.GAP, Word.STALE})
_encode: Final = msgspec.msgpack.Encoder().encode


class PlainDoor:
    """Appends to runs behind one link."""

    def __init__(self, link: Link, limits: Limits) -> None:
        self._link = link
        self.limits = (limits.log_events, limits.notice_bytes, limits.writers)
        self._group: _Group | None = None
        self._apart = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def append(
        self, run_id: str, guard: Guard, dedupe: Dedupe, events: Sequence[bytes], *, at_ms: int, is_output: bool
    ) -> Awaitable[Appended]:
        """Put events through the door.

        Args:
            guard: With its statuses; the run is to be held, whatever the guard says of it, and its revision does not
                count.
            dedupe: Nothing, or a writer's numbers.

        Raises:
            TooEarly: the run's last event is later than these; nothing was written.
            GatewayError: the refusal; nothing was written.
            StoreUnavailable: nothing, or it is unknown what, was written.
        """
        if self._loop is None:
            # Kept: who asks for the running loop asks the system for the process's id.
            self._loop = asyncio.get_running_loop()
        asked = _describe(run_id, guard, dedupe, events, at_ms=at_ms, is_output=is_output)
        append = _Append(run_id, dedupe.writer, _encode(asked), events, self._loop.create_future())
        group = self._group
        if group is not None and group.is_open:
            group.add(append)
        else:
            group = _Group(self, append)
            if not self.send(group):
                return self._call(group)
            self._group = group
        if group.is_full:
            self._link.flush()
        return append.answer

    def send(self, group: _Group) -> bool:
        """Have a group leave with what is sent in this turn; False where it has to be called."""
        group.is_open = group.is_open and not self._apart
        return self._link.send_late(group)

    def part(self, group: Sequence[_Append]) -> None:
        """Send appends one by one from now on: a server has refused to take keys of several runs in one call."""
        self._apart = True
        for append in group:
            alone = _Group(self, append)
            if not self.send(alone):
                alone.set_exception(not_connected())

    async def _call(self, group: _Group) -> Appended:
        """Make a call of a group that has to wait for a connection, or that goes to the node that has its run."""
        group.set_result(await APPEND_PLAIN.run(self._link, *group.describe()))
        return await group.appends[0].answer


class _Append:
    """One append as the script takes it, and the answer to whoever waits for it."""

    __slots__ = ("answer", "bytes", "events", "keys", "packed", "run_id")

    def __init__(
        self, run_id: str, writer: str, packed: bytes, events: Sequence[bytes], answer: asyncio.Future[Appended]
    ) -> None:
        self.run_id = run_id
        self.keys = [keys.record(run_id), keys.log(run_id)]
        if writer:
            self.keys.append(keys.writers(run_id))
        self.packed = packed
        self.events = events
        self.bytes = len(packed) + sum(map(len, events))
        self.answer = answer

    def tell(self, told: bytes | ResponseError) -> None:
        """Answer what the script said of this append."""
        if self.answer.done():
            return
        if isinstance(told, ResponseError):
            self.answer.set_exception(translate(told))
            return
        head, *rest = told.split(b" ")
        word = word_of(head)
        if word is Word.OK or word is Word.DUPLICATE:
            self.answer.set_result(_appended(rest, duplicate=word is Word.DUPLICATE))
        else:
            self.answer.set_exception(_refusal(word, rest, self.run_id))


class _Group:
    """Appends that leave in one call; a link's `Late`."""

    def __init__(self, door: PlainDoor, first: _Append) -> None:
        self._door = door
        self._whole_script = False
        self._bytes = first.bytes
        self.appends = [first]
        self.is_open = not self.is_full

    @property
    def is_full(self) -> bool:
        """Whether it has enough for a call."""
        return self._bytes >= GROUP_BYTES or len(self.appends) >= GROUP_APPENDS

    def add(self, append: _Append) -> None:
        """Take one more."""
        self.appends.append(append)
        self._bytes += append.bytes
        self.is_open = not self.is_full

    def describe(self) -> tuple[list[str], list[Argument]]:
        """Return the keys and arguments of the call; it takes no more appends."""
        self.is_open = False
        names = [name for append in self.appends for name in append.keys]
        packed = [msgspec.Raw(append.packed) for append in self.appends]
        events = [event for append in self.appends for event in append.events]
        return names, [_encode((*self._door.limits, packed)), *events]

    def seal(self) -> tuple[Argument, ...]:
        """Return the command."""
        return APPEND_PLAIN.command(*self.describe(), whole=self._whole_script)

    def done(self) -> bool:
        """Whether nobody waits any more."""
        return False

    def set_result(self, answers: Sequence[bytes | ResponseError]) -> None:
        """Tell each append its answer."""
        for append, told in zip(self.appends, answers, strict=True):
            append.tell(told)

    def set_exception(self, error: Exception) -> None:
        """Tell all appends that their call failed, unless it can be made in another way."""
        self.is_open = False
        if is_unknown(error) and not self._whole_script:
            self._whole_script = True
            if self._door.send(self):
                return
            error = not_connected()
        if len(self.appends) > 1 and str(error).startswith("CROSSSLOT"):
            self._door.part(self.appends)
            return
        for append in self.appends:
            if not append.answer.done():
                append.answer.set_exception(error)


def _describe(
    run_id: str, guard: Guard, dedupe: Dedupe, events: Sequence[bytes], *, at_ms: int, is_output: bool
) -> list[Any]:
    """Return an append as `lua/append_plain.lua` reads it, but for its events' bytes."""
    assert guard.statuses is not None, "a run that is held is there"
    asked = [
        keys.events_channel(run_id),
        guard.tenant,
        join_statuses(guard.statuses),
        _show(guard.expected_seq),
        _show(guard.attempt),
        guard.lease,
        str(at_ms),
        is_output,
        [str(tag) for tag in new_tags(len(events))],
        dedupe.writer,
    ]
    return [*asked, dedupe.first_number, dedupe.last_number, dedupe.fingerprint] if dedupe.writer else asked


def _show(value: int | None) -> str:
    return "" if value is None else str(value)


@cache
def _status(text: bytes) -> Status:
    return Status(text.decode())


def _appended(told: Sequence[bytes], *, duplicate: bool) -> Appended:
    first, last, status, rev, attempt, head_tag, holder_seq, cancel, pause, answer, hooked = told
    state = _status(status)
    return Appended(
        first_seq=int(first),
        last_seq=int(last),
        status=state,
        rev=int(rev),
        attempt=int(attempt),
        head_tag=int(head_tag),
        duplicate=duplicate,
        cancel_seq=int(cancel) if state is Status.CANCELLING else 0,
        pause_seq=int(pause) if state is Status.PAUSED else 0,
        input_seq=seq if (seq := int(answer)) > int(holder_seq) else 0,
        hooked=hooked.decode(),
    )


def _refusal(word: Word, told: Sequence[bytes], run_id: str) -> Exception:
    if word is Word.EARLY:
        return TooEarly(int(told[0]))
    if word in _NUMBERS:
        return refusal(word, [int(told[0])], run_id)
    return refusal(word, [int(told[0]), told[1]] if word is Word.FENCED else list(told), run_id)
