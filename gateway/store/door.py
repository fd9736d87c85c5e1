"""What all ways through the door have in common: what must hold, what it answers, and how it refuses."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from gateway.domain.lifecycle import TERMINAL, Status, illegal
from gateway.domain.lifecycle import Action as LifecycleAction
from gateway.errors import (
    Contended,
    Fenced,
    GatewayError,
    IdempotencyMismatch,
    LogFull,
    NotFound,
    SeqConflict,
    TooManyWriters,
    WriterGap,
    WriterStale,
)
from gateway.store.link import Argument
from gateway.store.scripts import Word


class Dedupe(msgspec.Struct, frozen=True):
    """How a write is recognised when it comes again.

    `writer` numbers its writes from 1; `idempotency` is the digest of an `Idempotency-Key`.
    """

    fingerprint: str = ""
    writer: str = ""
    first_number: int = 0
    last_number: int = 0
    idempotency: str = ""
    lifetime_ms: int = 0


class Guard(msgspec.Struct, frozen=True):
    """What must hold for a write; `statuses` None creates the record, which must be absent."""

    tenant: str
    statuses: frozenset[Status] | None = None
    held: bool = False
    rev: int | None = None
    expected_seq: int | None = None
    attempt: int | None = None
    lease: str = ""


class Appended(msgspec.Struct, frozen=True):
    """The answer of the door: seqs of the caller's events, and the record after (or, repeated, at) the write.

    `pending` names what the holder has not seen: seq of a cancel request, a pause, an answer; 0 for none.
    `hooked` are the patterns of events that the run's webhooks want, joined by commas.
    """

    first_seq: int
    last_seq: int
    status: Status
    rev: int
    attempt: int
    head_tag: int
    duplicate: bool
    cancel_seq: int
    pause_seq: int
    input_seq: int
    hooked: str = ""


class TooEarly(Exception):
    """The run has an event of a later time, by another process's clock: write again, not before `updated_ms`."""

    def __init__(self, updated_ms: int) -> None:
        super().__init__(f"the last event is of {updated_ms}")
        self.updated_ms = updated_ms


class Limits(msgspec.Struct, frozen=True):
    """Bounds that the door enforces."""

    log_events: int = 1_000_000
    writers: int = 64
    notice_bytes: int = 64 * 1024


def refusal(word: Word, reply: list[Any], run_id: str) -> GatewayError:
    """Return what a refusing word, and what came with it, mean."""
    match word:
        case Word.MISSING:
            return NotFound(f"There is no run {run_id}.", run_id=run_id)
        case Word.STATUS:
            return illegal(LifecycleAction.APPEND, reply[0].decode())
        case Word.SEQ:
            return SeqConflict(f"The log's head is {reply[0]}.", head_seq=reply[0])
        case Word.FENCED:
            if reply[1].decode() in TERMINAL:
                return illegal(LifecycleAction.APPEND, reply[1].decode())
            return Fenced(
                f"This lease or attempt is over, or none was named; the run is at attempt {reply[0]}.", attempt=reply[0]
            )
        case Word.GAP:
            return WriterGap(f"A number was skipped; the next one is {reply[0]}.", expected=reply[0])
        case Word.STALE:
            return WriterStale(
                f"That number is older than the last one; the next one is {reply[0]}.", expected=reply[0]
            )
        case Word.MISMATCH:
            return IdempotencyMismatch("This number or key was used before with another body.")
        case Word.WRITERS:
            return TooManyWriters("The run has as many writers as it may.")
        case Word.FULL:
            return LogFull(f"The log is full at event {reply[0]}.", head_seq=reply[0])
    return Contended(f"The store answered {word}.")


@cache
def join_statuses(statuses: frozenset[Status]) -> str:
    """Return statuses as the scripts take them."""
    return "," + ",".join(sorted(statuses)) + ","


def show(value: int | None) -> Argument:
    """Return a number that may be none as the scripts take it."""
    return "" if value is None else value
