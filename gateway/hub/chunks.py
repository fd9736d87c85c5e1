"""Encoded pieces of a ring, made once for all readers that stand at the same place and want the same form."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence

import msgspec

from gateway.hub.outlet import Message
from gateway.store.log import Entry

MESSAGE_BYTES = 256


class Chunk(msgspec.Struct, frozen=True):
    """The messages of some entries, and the position after them."""

    messages: Sequence[Message]
    seq: int
    tag: int | None


class Chunks:
    """The latest chunks, bounded in bytes: readers come back from many places, with many filters."""

    def __init__(self, payload_bytes: int) -> None:
        self._most_bytes = payload_bytes
        self.size_bytes = 0
        self._kept: OrderedDict[tuple[Hashable, int], tuple[Chunk, int]] = OrderedDict()

    def find(self, key: Hashable, after_seq: int) -> Chunk | None:
        """Return the chunk that follows `after_seq` in this form, if it is kept."""
        kept = self._kept.get((key, after_seq))
        return None if kept is None else kept[0]

    def keep(self, key: Hashable, after_seq: int, chunk: Chunk, entries: Sequence[Entry]) -> None:
        """Keep a chunk that stands for `entries`; older ones make room."""
        size = MESSAGE_BYTES + sum(len(entry.line) for entry in entries)
        self._kept[(key, after_seq)] = (chunk, size)
        self.size_bytes += size
        while self.size_bytes > self._most_bytes and len(self._kept) > 1:
            _, (_, dropped) = self._kept.popitem(last=False)
            self.size_bytes -= dropped

    def clear(self) -> None:
        """Forget all chunks: what follows a place has changed."""
        if self.size_bytes:
            self._kept.clear()
            self.size_bytes = 0
