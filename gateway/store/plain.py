"""The door's short way: events that change no state, to a run that is held, under no idempotency key."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from gateway.domain.lifecycle import Status
from gateway.store import keys
from gateway.store.door import Appended, Dedupe, Guard, Limits, TooEarly, join_statuses, refusal, show
from gateway.store.link import Argument, Link
from gateway.store.log import new_tags
from gateway.store.scripts import APPEND_PLAIN, Word

_NUMBERS = frozenset({Word.SEQ, Word.FULL, Word.GAP, Word.STALE})


async def append_plain(
    link: Link,
    limits: Limits,
    run_id: str,
    guard: Guard,
    dedupe: Dedupe,
    events: Sequence[bytes],
    *,
    at_ms: int,
    is_output: bool,
) -> Appended:
    """Put events through the door.

    Args:
        dedupe: Nothing, or a writer's numbers.
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
        dedupe.writer,
    ]
    names = [keys.record(run_id), keys.log(run_id)]
    if dedupe.writer:
        names.append(keys.writers(run_id))
        args += (dedupe.first_number, dedupe.last_number, dedupe.fingerprint, limits.writers)
    for tag, rest in zip(new_tags(len(events)), events, strict=True):
        args += (tag, rest)
    word, told = await APPEND_PLAIN.ask(link, names, args)
    if word is Word.OK or word is Word.DUPLICATE:
        return _appended(told, duplicate=word is Word.DUPLICATE)
    if word is Word.EARLY:
        raise TooEarly(int(told[0]))
    if word in _NUMBERS:
        raise refusal(word, [int(told[0])], run_id)
    raise refusal(word, [int(told[0]), told[1]] if word is Word.FENCED else list(told), run_id)


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
