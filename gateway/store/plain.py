"""The door's short way: events that change no state, of a writer that numbers nothing, to a run that is held."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from gateway.domain.lifecycle import Status
from gateway.store import keys
from gateway.store.door import Appended, Guard, Limits, TooEarly, join_statuses, refusal, show
from gateway.store.link import Argument, Link
from gateway.store.log import new_tags
from gateway.store.scripts import APPEND_PLAIN, Word

_NUMBERS = frozenset({Word.SEQ, Word.FULL, Word.EARLY})


async def append_plain(
    link: Link,
    limits: Limits,
    run_id: str,
    guard: Guard,
    events: Sequence[bytes],
    *,
    at_ms: int,
    is_output: bool,
) -> Appended:
    """Put events through the door.

    Args:
        guard: With its statuses; the run is to be held, whatever the guard says of it, and its revision does not count.

    Raises:
        TooEarly: the run's last event is later than these; nothing was written.
        GatewayError: the refusal; nothing was written.
        StoreUnavailable: nothing, or it is unknown what, was written.
    """
    assert guard.statuses is not None, "a run that is held is there"
    args: list[Argument] = [
        keys.events_channel(run_id),
        guard.tenant,
        join_statuses(guard.statuses),
        show(guard.expected_seq),
        show(guard.attempt),
        guard.lease,
        limits.log_events,
        limits.notice_bytes,
        at_ms,
        "1" if is_output else "",
    ]
    for tag, rest in zip(new_tags(len(events)), events, strict=True):
        args += (tag, rest)
    word, told = await APPEND_PLAIN.ask(link, [keys.record(run_id), keys.log(run_id)], args)
    if word is Word.OK:
        return _appended(told)
    if word is Word.EARLY:
        raise TooEarly(int(told[0]))
    if word in _NUMBERS:
        raise refusal(word, [int(told[0])], run_id)
    raise refusal(word, [int(told[0]), told[1]] if word is Word.FENCED else list(told), run_id)


@cache
def _status(text: bytes) -> Status:
    return Status(text.decode())


def _appended(told: Sequence[bytes]) -> Appended:
    first, last, status, rev, attempt, head_tag, holder_seq, cancel, pause, answer, hooked = told
    state = _status(status)
    return Appended(
        first_seq=int(first),
        last_seq=int(last),
        status=state,
        rev=int(rev),
        attempt=int(attempt),
        head_tag=int(head_tag),
        duplicate=False,
        cancel_seq=int(cancel) if state is Status.CANCELLING else 0,
        pause_seq=int(pause) if state is Status.PAUSED else 0,
        input_seq=seq if (seq := int(answer)) > int(holder_seq) else 0,
        hooked=hooked.decode(),
    )
