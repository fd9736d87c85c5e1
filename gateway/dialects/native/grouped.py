"""Appends that a WebSocket's client sent without waiting for answers: stored together, answered each for itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from gateway.dialects.native.context import Native
from gateway.dialects.native.project import written_body
from gateway.dialects.native.socket_commands import AppendCommand
from gateway.domain.events import STATE_TYPES
from gateway.edge.body import decode_json
from gateway.errors import GatewayError
from gateway.service.actors import Caller, parse_run_id
from gateway.service.writing import Batch, Written

_APPENDS: Final = (b'{"type":"append"', b'{"type": "append"')
_AFTER_FIRST: Final = frozenset({"cancel", "pause"})
"""What a run's holder is told with every append; an answer it is told of once."""


def read_group(frames: Sequence[bytes], *, most_events: int, most_bytes: int) -> list[AppendCommand]:
    """Return the commands that `frames` begin with and that may be stored together.

    That is appends of one run under one lease, whose repeats nobody could recognise and whose events change no state:
    stored together or one by one, they leave the same log.
    """
    group: list[AppendCommand] = []
    events = size_bytes = 0
    for raw in frames:
        command = _read(raw) if raw.startswith(_APPENDS) else None
        if command is None or (group and _place(command) != _place(group[0])):
            break
        events, size_bytes = events + len(command.events), size_bytes + len(raw)
        if events > most_events or size_bytes > most_bytes:
            break
        group.append(command)
    return group


def _read(raw: bytes) -> AppendCommand | None:
    try:
        command = decode_json(raw, AppendCommand)
    except GatewayError:
        # Whoever reads it alone tells what is wrong with it.
        return None
    alone = command.writer or command.writer_seq or command.idempotency_key or command.expected_seq is not None
    plain = command.events and STATE_TYPES.isdisjoint([event.type for event in command.events])
    return command if plain and not alone else None


def _place(command: AppendCommand) -> tuple[str, str | None, int | None]:
    return command.run_id, command.lease, command.attempt


async def append_group(native: Native, caller: Caller, group: Sequence[AppendCommand]) -> list[object]:
    """Store a group in one append, and return what each of its commands is answered.

    Raises:
        GatewayError: nothing of it was stored, or it is unknown whether: see `StoreUnavailable`.
    """
    first = group[0]
    batch = Batch(
        events=[event.new_event() for command in group for event in command.events],
        attempt=first.attempt,
        lease=first.lease,
    )
    written = await native.writing.append(caller, parse_run_id(first.run_id), batch)
    answers: list[object] = []
    # Only before its first event may the gateway write one of its own.
    seq = written.last_seq - len(batch.events)
    for command in group:
        answers.append(written_body(_part(written, seq + 1, seq + len(command.events), later=bool(answers))))
        seq += len(command.events)
    return answers


def _part(written: Written, first_seq: int, last_seq: int, *, later: bool) -> Written:
    pending = [each for each in written.pending if each.type in _AFTER_FIRST] if later else written.pending
    return msgspec.structs.replace(written, first_seq=first_seq, last_seq=last_seq, pending=pending)
