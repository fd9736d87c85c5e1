"""Messages: joined from their deltas, replaced by their whole text when they are complete.

A delta without an id continues the newest message of its step while that is open, in the same attempt and
role; so two steps that speak at once do not mix. Of a long text only the beginning is kept.
"""

from __future__ import annotations

from typing import Final

from gateway.domain import catalogue
from gateway.domain.events import Event
from gateway.domain.fold_state import Folded, Message

MESSAGE_CHARS: Final = 256 * 1024


def join_delta(state: Folded, event: Event, data: catalogue.Message) -> None:
    """Add a piece to the message that it belongs to."""
    message = _find(state, event, data)
    if message is None and data.message_id is None:
        message = _continue(state, event, data)
    message = message or _add(state, event, data)
    message.role = message.role or data.role
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
    message.content, message.elided_bytes = data.content, 0
    message.completed, message.ended_at = True, event.created_at


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
