"""The run events: validated once, encoded to bytes once, and those bytes passed on by every reader.

A stored line is `{"seq":17,"attempt":1,` followed by `encode_rest`. It holds no raw line break (JSON escapes
them), so that it can be a frame of SSE or a line of ndjson as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Final

import msgspec

from gateway.domain.catalogue import (
    CATALOGUE,
    MAX_ID_CHARS,
    find_shape,
    read_data,
    refuse,
)
from gateway.domain.filters import TypeFilter as TypeFilter
from gateway.domain.times import format_time as format_time
from gateway.domain.times import parse_time as parse_time
from gateway.errors import InvalidBody

# Well under what the JSON codec and a reader's recursion limit can take.
MAX_DEPTH: Final = 100

STATE_TYPES: Final = frozenset(
    {"run.waiting_for_input", "run.input_closed", "run.completed", "run.failed", "run.cancelled"}
)
APPENDABLE: Final = frozenset(name for name in CATALOGUE if not name.startswith("run.")) | STATE_TYPES
RESERVED: Final = frozenset(CATALOGUE) - APPENDABLE


class NewEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event as its writer hands it in, before the log has given it a place."""

    type: str
    data: Any = msgspec.field(default_factory=dict)
    step_id: str | None = None
    parent_id: str | None = None


class CheckedEvent(NewEvent, frozen=True, omit_defaults=True):
    """An event fit for the log; `data_json` is what its data is written as, once for its size and its line."""

    data_json: bytes = b""


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event as the log holds it. `created_at` is RFC 3339 UTC with milliseconds."""

    seq: int
    type: str
    run_id: str
    created_at: str
    attempt: int
    data: Any
    step_id: str | None = None
    parent_id: str | None = None


_NESTING: Final = frozenset({dict, list})
_encoder = msgspec.json.Encoder()
_canonical_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(Event)


def check(event: NewEvent) -> CheckedEvent:
    """Return `event`, fit for the log: known type, well-shaped data, encodable.

    A step event may name its step in the envelope, in its data, or in both; it leaves with both.

    Raises:
        UnknownEventType: the type is in no catalogue; `facts["nearest"]` names the one it resembles most.
        InvalidBody: a value is not allowed; `facts["path"]` says where, such as `data.call_id`.
    """
    shape = find_shape(event.type)
    if event.step_id is not None:
        _check_id("step_id", event.step_id)
    if event.parent_id is not None:
        _check_id("parent_id", event.parent_id)
    if shape is not None:
        if event.type.startswith("step."):
            event = _name_step(event)
        read_data(event.data, shape)
    data_json = _encode_checked(event.data)
    return CheckedEvent(event.type, event.data, event.step_id, event.parent_id, data_json)


def check_appendable(event: NewEvent) -> None:
    """Refuse the events of a run's life that only the gateway may write.

    Raises:
        InvalidBody: `facts["reason"]` is `reserved_type`.
    """
    if event.type in RESERVED:
        raise InvalidBody(
            f"type: {event.type!r} is written by the gateway alone",
            path="type",
            reason="reserved_type",
        )


def encode_rest(event: NewEvent, run_id: str, created_ms: int) -> bytes:
    """Return what follows `{"seq":N,"attempt":A,` in the stored line, closing brace included.

    Args:
        event: one that `check` has returned, or the gateway's own.
        run_id: free of characters that JSON escapes.
        created_ms: Unix time of the append, in milliseconds.
    """
    return encode_rests([event], run_id, created_ms)[0]


def encode_rests(events: Sequence[NewEvent], run_id: str, created_ms: int) -> list[bytes]:
    """Return what `encode_rest` would for each event: what they have in common is written once."""
    common = f'","run_id":"{run_id}","created_at":"{format_time(created_ms)}",'
    heads: dict[str, bytes] = {}
    rests = []
    for event in events:
        if event.step_id is None and event.parent_id is None:
            head = heads.get(event.type) or heads.setdefault(event.type, _encode_head(event, common))
        else:
            head = _encode_head(event, common)
        data_json = event.data_json if isinstance(event, CheckedEvent) else _encoder.encode(event.data)
        rests.append(b"%b%b}" % (head, data_json))
    return rests


def _encode_head(event: NewEvent, common: str) -> bytes:
    ids = ""
    if event.step_id is not None:
        ids = f'"step_id":{_quote(event.step_id)},'
    if event.parent_id is not None:
        ids += f'"parent_id":{_quote(event.parent_id)},'
    return f'"type":"{event.type}{common}{ids}"data":'.encode()


def decode(line: bytes) -> Event:
    """Return the event that a stored line holds."""
    return _decoder.decode(line)


def peek_type(line: bytes) -> str:
    """Return the type of a stored line without decoding it: no type holds an escape."""
    start = line.index(b'"type":"') + 8
    return line[start : line.index(b'"', start)].decode("ascii")


def fingerprint(events: Sequence[NewEvent]) -> str:
    """Return 32 hex digits that are equal for equal events, whatever the order of their objects' keys."""
    parts = [(event.type, event.data, event.step_id, event.parent_id) for event in events]
    return blake2b(_canonical_encoder.encode(parts), digest_size=16).hexdigest()


def _quote(text: str) -> str:
    return _encoder.encode(text).decode()


def _check_id(path: str, value: str) -> None:
    if not 0 < len(value) <= MAX_ID_CHARS:
        raise refuse(path, f"expected 1 to {MAX_ID_CHARS} characters, got {len(value)}")
    _encode_checked(value, path)


def _name_step(event: NewEvent) -> NewEvent:
    """Write a step's id wherever it is missing: readers filter by the envelope, folds read the data."""
    if not isinstance(event.data, dict):
        return event
    named = event.data.get("step_id")
    if named is None and event.step_id is not None:
        return msgspec.structs.replace(event, data={**event.data, "step_id": event.step_id})
    if event.step_id is None and isinstance(named, str):
        return msgspec.structs.replace(event, step_id=named)
    if named != event.step_id:
        raise refuse("data.step_id", "differs from the event's step_id")
    return event


def _encode_checked(value: Any, path: str = "data") -> bytes:
    """Return `value` as JSON; refuse what cannot be: lone surrogates, integers of thousands of digits, deep nesting."""
    try:
        encoded = _encoder.encode(value)
    except (ValueError, TypeError, RecursionError) as error:
        raise refuse(path, f"cannot be written as JSON ({error})") from None
    # Each level opens a bracket and closes it, so that few brackets prove little depth; only others are walked.
    if (
        len(encoded) > 2 * MAX_DEPTH
        and encoded.count(b"{") + encoded.count(b"[") > MAX_DEPTH
        and _measure_depth(value) > MAX_DEPTH
    ):
        raise refuse(path, f"nested deeper than {MAX_DEPTH} levels")
    return encoded


def _measure_depth(value: Any) -> int:
    """Count the levels of `value`, at most one more than allowed."""
    depth, level = 0, [value] if type(value) in _NESTING else []
    while level and depth <= MAX_DEPTH:
        depth += 1
        level = [
            child
            for item in level
            for child in (item.values() if type(item) is dict else item)
            if type(child) in _NESTING
        ]
    return depth
