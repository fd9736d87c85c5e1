"""How much of a log its fold keeps: no large values, no more than so many bytes of the newest entries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import msgspec

from gateway.domain.events import Event
from gateway.domain.fold_state import (
    Change,
    Checkpoint,
    File,
    Folded,
    Message,
    Output,
    Question,
    Step,
    ToolCall,
    Usage,
)

Entry: TypeAlias = Step | ToolCall | Message | Usage | Output | Checkpoint | File | Question | Change


class Bounds(msgspec.Struct, frozen=True):
    """What a fold may keep.

    `value_bytes` bounds a value by its JSON. When `fresh_bytes` of log were folded, the oldest entries go until the
    rest is no more than that; of those that still run, or are being written, so many stay nevertheless. So do the
    newest `results` outputs and files: they are what a run is for. Values of such old outputs have `result_bytes`.
    """

    value_bytes: int = 16 * 1024
    fresh_bytes: int = 4 * 1024 * 1024
    running: int = 64
    messages: int = 8
    results: int = 1_000
    result_bytes: int = 256


BOUNDS: Final = Bounds()

# Shown whole: a message's text has its own bound, and of these others there is one each.
_WHOLE: Final = {
    "message.delta": {"content"},
    "message.completed": {"content"},
    "checkpoint.created": {"state"},
    "run.completed": {"output"},
    "run.failed": {"error"},
}
_encoder: Final = msgspec.json.Encoder()


def elide(value: Any, seq: int, most_bytes: int) -> Any:
    """Return `value`, or in place of a large one how large it is and which event has it."""
    if not isinstance(value, str | dict | list):
        return value
    size = len(_encoder.encode(value))
    return value if size <= most_bytes else {"elided_bytes": size, "seq": seq}


def elided_bytes(value: Any) -> int | None:
    """Return how large the value was that stands elided here, None where it is whole."""
    size = value["elided_bytes"] if _is_elided(value) else None
    return size if isinstance(size, int) else None


def elide_data(event: Event, most_bytes: int) -> Event:
    """Return the event with its large values elided."""
    if event.type.startswith("custom.") or not isinstance(event.data, dict):
        return msgspec.structs.replace(event, data=elide(event.data, event.seq, most_bytes))
    whole = _WHOLE.get(event.type, ())
    data = {k: v if k in whole else elide(v, event.seq, most_bytes) for k, v in event.data.items()}
    return msgspec.structs.replace(event, data=data)


def elide_fields(data: msgspec.Struct, event: Event) -> msgspec.Struct:
    """Return what was read of an event's data with those values elided that `event` has elided."""
    elided = {
        name: event.data[name] for name in data.__struct_fields__ if name in event.data and _is_elided(event.data[name])
    }
    return msgspec.structs.replace(data, **elided)


def shrink(state: Folded, bounds: Bounds) -> None:
    """Drop the oldest entries, so that the others take no more than `bounds.fresh_bytes`; `kept_from_seq` says which.

    The last checkpoint, open questions, results and some of what still runs or is being written stay.
    """
    pinned = {id(entry): entry for entry in _pin(state, bounds)}
    left = bounds.fresh_bytes - sum(_size(part) for part in (state.output, state.error, state.logs, state.custom))
    left -= sum(_size(entry) for entry in pinned.values())
    cut = state.as_of_seq + 1
    entries = [entry for entry in _entries(state) if id(entry) not in pinned]
    for entry in sorted(entries, key=lambda entry: entry.seq, reverse=True):
        size = _size(entry)
        if size > left:
            break
        left -= size
        cut = entry.seq
    else:
        cut = state.kept_from_seq
    state.settled_bytes, state.fresh_bytes = bounds.fresh_bytes - left, 0
    if cut > state.kept_from_seq:
        results = _keep_results(state, cut, bounds)
        state.settled_bytes += sum(map(_size, results))
        state.kept_from_seq = cut
        _drop(state, cut, pinned | {id(entry): entry for entry in results})


def _keep_results(state: Folded, cut: int, bounds: Bounds) -> list[Output | File]:
    """Return the outputs and files older than seq `cut` that stay; values of outputs are made small."""
    outputs = [entry for entry in state.outputs.values() if entry.seq < cut][-bounds.results :]
    files = [entry for entry in state.files if entry.seq < cut][-bounds.results :]
    for entry in outputs:
        entry.value = elide(entry.value, entry.seq, bounds.result_bytes)
        entry.schema = elide(entry.schema, entry.seq, bounds.result_bytes)
    return [*outputs, *files]


def _is_elided(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"elided_bytes", "seq"}


def _size(part: object) -> int:
    return len(_encoder.encode(part))


def _entries(state: Folded) -> Iterator[Entry]:
    yield from state.steps
    yield from state.tool_calls
    yield from state.messages
    yield from state.usage
    yield from state.outputs.values()
    yield from state.checkpoints
    yield from state.files
    yield from state.questions.values()
    yield from state.history


def _pin(state: Folded, bounds: Bounds) -> Iterator[Entry]:
    yield from state.checkpoints[-1:]
    yield from state.places.open_questions.values()
    yield from sorted(state.places.running.values(), key=lambda entry: entry.seq)[: bounds.running]
    written = (m for m in reversed(state.messages) if not (m.completed or m.superseded) and m.attempt == state.attempt)
    for _, message in zip(range(bounds.messages), written, strict=False):
        yield message


def _drop(state: Folded, cut: int, pinned: dict[int, Entry]) -> None:
    def stays(entry: Entry) -> bool:
        return entry.seq >= cut or id(entry) in pinned

    for entries in (
        state.steps,
        state.tool_calls,
        state.messages,
        state.usage,
        state.checkpoints,
        state.files,
        state.history,
    ):
        kept: list[Any] = [entry for entry in entries if stays(entry)]
        entries[:] = kept
    for named in (state.outputs, state.questions):
        for key in [key for key, entry in named.items() if not stays(entry)]:
            del named[key]
    kept_messages = {message.seq for message in state.messages}
    for seq in [seq for seq in state.cuts if seq not in kept_messages]:
        del state.cuts[seq]
    del state.places
