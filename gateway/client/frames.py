"""One frame of an event stream."""

from __future__ import annotations

import msgspec


class Frame(msgspec.Struct, frozen=True):
    """A frame as it came; `name` is `message` when it has no name of its own."""

    name: str
    id: str
    data: str
    retry_ms: int | None = None
