"""Messages: joined from their deltas, replaced by their whole text when they are complete.

A delta without an id continues the newest message of its step while that is open, in the same attempt and
role; so two steps that speak at once do not mix. Of a long text only the beginning is kept.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from gateway.domain import catalogue
from gateway.domain.events import Event
from gateway.domain.fold_state import Cut, Folded, Message

MESSAGE_CHARS: Final = 256 * 1024
CUTS: Final = 64
"""Boundaries of one message that are remembered, the last ones."""


def join_delta(state: Folded, event: Event, data: catalogue.Message) -> None:
    """Add a piece to the message that it belongs to."""
    message = _find(state, event, data)
    if message is None and data.message_id is None:
        message = _continue(state, event, data)
    message = message or _add(state, event, data)
    message.role = message.role or data.role
    _note_cut(state, message)
    if message.elided_bytes or len(message.content) + len(data.content) > MESSAGE_CHARS:
        message.elided_bytes += len(data.content.encode("utf-8", "surrogatepass"))
        return
    # Emptying the field first leaves one reference to the text, which CPython then extends in place: a
    # million deltas stay linear, and the text is a plain string for whoever reads the state in between.
    content, message.content = message.content, ""
    content += data.content
    message.content = content


def complete_message(state: Folded, event: Event, data: catalogue.Message) -> None:
    """Close a message with its whole text; its id may come only now."""
    message = _find(state, event, data) or _continue(state, event, data) or _add(state, event, data)
    message.role = message.role or data.role
    _note_cut(state, message)
    _check_cuts(state, message, data.content)
    message.content, message.elided_bytes = data.content, 0
    message.completed, message.ended_at = True, event.created_at


def cut_messages(state: Folded, first: int) -> None:
    """Take out of messages that began before seq `first` what was said from there on: it is said again."""
    for seq, cuts in state.cuts.items():
        index = next((i for i, cut in enumerate(cuts) if cut.boundary_seq >= first - 1), None)
        if seq >= first or index is None:
            continue
        message = state.messages[bisect_left(state.messages, seq, key=lambda message: message.seq)]
        cut = cuts[index]
        del cuts[index:]
        if cut.units is None:
            message.superseded = True
            continue
        message.content, message.elided_bytes = _first_units(message.content, cut.units), cut.elided_bytes
        message.completed, message.ended_at = False, None


def _note_cut(state: Folded, message: Message) -> None:
    """Note what a message has that now goes on beyond a boundary."""
    if message.seq > state.boundary_seq:
        return
    cuts = state.cuts.setdefault(message.seq, [])
    if not cuts or cuts[-1].boundary_seq < state.boundary_seq:
        units = len(message.content.encode("utf-16-le", "surrogatepass")) // 2
        cuts.append(Cut(state.boundary_seq, units, message.elided_bytes))
        del cuts[:-CUTS]


def _check_cuts(state: Folded, message: Message, whole: str) -> None:
    """Give up cuts of a message whose whole text does not go on from what it had."""
    for cut in state.cuts.get(message.seq, ()):
        if cut.units is not None and not whole.startswith(_first_units(message.content, cut.units)):
            cut.units = None


def _first_units(text: str, units: int) -> str:
    return text.encode("utf-16-le", "surrogatepass")[: 2 * units].decode("utf-16-le", "surrogatepass")


def _find(state: Folded, event: Event, data: catalogue.Message) -> Message | None:
    if data.message_id is None:
        return None
    message = state.places.messages.get(data.message_id)
    return None if message is None or message.superseded else message


def _continue(state: Folded, event: Event, data: catalogue.Message) -> Message | None:
    """Return the open message that an event without an id, or with a first one, goes on with."""
    message = state.places.newest_message.get(event.step_id)
    if message is None or message.completed or message.superseded or message.attempt != event.attempt:
        return None
    if data.role is not None and message.role not in (None, data.role):
        return None
    if data.message_id is None:
        return message
    if message.message_id is not None or data.message_id in state.places.messages:
        return None
    message.message_id = data.message_id
    state.places.messages[data.message_id] = message
    return message


def _add(state: Folded, event: Event, data: catalogue.Message) -> Message:
    message = Message(
        seq=event.seq,
        attempt=event.attempt,
        created_at=event.created_at,
        message_id=data.message_id,
        step_id=event.step_id,
    )
    state.messages.append(message)
    state.places.newest_message[event.step_id] = message
    if data.message_id is not None:
        state.places.messages[data.message_id] = message
    return message
