"""Webhooks: which events of a run are told to whom, how each is told, and when it is tried again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, Final

import msgspec

from gateway.domain.catalogue import find_shape
from gateway.domain.events import Event, format_time
from gateway.domain.filters import TypeFilter
from gateway.domain.lifecycle import ENDINGS
from gateway.domain.run import Run
from gateway.errors import BadRequest

DEFAULT_EVENTS: Final = (*ENDINGS, "run.waiting_for_input")
"""What is told where nothing is chosen: a run has ended, or it waits for an answer."""

ACTIVE, DISABLED = "active", "disabled"
"""States of a run's webhook; one is disabled when its receiver answers that it is gone."""

JITTER: Final = 0.2
RETRY_AFTER_MOST_MS: Final = 86_400_000
_WANTED_CHARS: Final = 512


class Hook(msgspec.Struct, frozen=True, kw_only=True):
    """Where an agent's runs are told of; its secret is kept elsewhere."""

    id: str
    url: str
    events: tuple[str, ...]


class FixedHook(Hook, frozen=True, kw_only=True):
    """A webhook as its run fixed it.

    `of_agent`: it came with the agent's definition. `generated`: its secret is the gateway's, not the caller's.
    """

    secret: str
    of_agent: bool = False
    generated: bool = False


def check_event_pattern(pattern: str) -> None:
    """Refuse what no event can match.

    Raises:
        BadRequest: it is malformed.
        UnknownEventType: it names a type that is in no catalogue.
    """
    if "," in pattern:
        raise BadRequest(f"{pattern[:64]!r} is not a type of event such as tool.call or tool.*")
    TypeFilter.parse(pattern)
    if not pattern.endswith("*"):
        find_shape(pattern)


def wanted_by(hooks: Iterable[Hook]) -> str:
    """Return patterns of all events that some of the webhooks want, joined by commas; empty for none."""
    patterns = dict.fromkeys(pattern for hook in hooks for pattern in hook.events)
    joined = ",".join(patterns)
    # It travels with every append.
    return joined if len(joined) <= _WANTED_CHARS else "*"


@lru_cache(maxsize=256)
def filter_of(wanted: str) -> TypeFilter:
    """Return the filter that joined patterns spell."""
    return TypeFilter.parse(wanted)


def message_body(run: Run, status: str, event: Event, line: bytes) -> bytes:
    """Return the body by which an event is told.

    Args:
        status: Of the run when the event was read.
        line: The event as the log holds it.
    """
    spec = run.spec
    about: dict[str, Any] = {
        "id": spec.id,
        "agent_id": spec.agent_id,
        "thread_id": spec.thread_id,
        "status": status,
        "attempt": event.attempt,
        "title": spec.title,
        "tags": spec.tags,
        "metadata": spec.metadata,
        "created_at": format_time(spec.created_us // 1000),
    }
    data = {"run": about, "event": msgspec.Raw(line)}
    return msgspec.json.encode({"type": event.type, "timestamp": event.created_at, "data": data})


def next_try_ms(delays_ms: Sequence[int], failures: int, jitter: float, retry_after_ms: int | None) -> int | None:
    """Return how long to rest after the `failures`-th failure, in ms; None when it was the last try.

    Args:
        jitter: From 0 to 1; spreads over a fifth of the delay what failed together.
        retry_after_ms: What the receiver asked for; it may make the rest longer, up to a day.
    """
    if failures > len(delays_ms):
        return None
    rest_ms = int(delays_ms[failures - 1] * (1 + JITTER * jitter))
    return max(rest_ms, min(retry_after_ms or 0, RETRY_AFTER_MOST_MS))


def read_retry_after(text: str | None, now_ms: int) -> int | None:
    """Return how long a `Retry-After` header asks to wait, in ms: seconds or a date; None where it says nothing."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(int(text[:9]) * 1000, RETRY_AFTER_MOST_MS)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0, int(moment.timestamp() * 1000) - now_ms)
