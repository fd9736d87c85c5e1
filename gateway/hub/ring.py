"""The newest entries of one log, bounded in bytes and entries, always contiguous up to the head."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice

from gateway.store.log import Entry

ENTRY_BYTES = 160
"""What an entry takes in memory beside its line."""


class Ring:
    """Entries `first..head`; when it is empty, `first` is `head + 1`."""

    def __init__(self, *, entries: int, payload_bytes: int) -> None:
        self._entries: deque[Entry] = deque()
        self._most_entries = entries
        self._most_bytes = payload_bytes
        self._bytes = 0
        self.head_seq = 0
        self.head_tag = 0

    @property
    def size_bytes(self) -> int:
        """What the entries take in memory."""
        return self._bytes + ENTRY_BYTES * len(self._entries)

    @property
    def first_seq(self) -> int:
        """The oldest seq held."""
        return self.head_seq - len(self._entries) + 1

    def start_at(self, head_seq: int, head_tag: int) -> None:
        """Forget everything and stand at this head."""
        self._entries.clear()
        self._bytes = 0
        self.head_seq, self.head_tag = head_seq, head_tag

    def clear(self) -> None:
        """Forget every entry, and stand where it stood."""
        self.start_at(self.head_seq, self.head_tag)

    def extend(self, entries: Sequence[Entry]) -> None:
        """Add entries that follow the head."""
        held = self._entries
        for entry in entries:
            if entry.seq != self.head_seq + 1:
                raise ValueError(f"entry {entry.seq} does not follow {self.head_seq}")
            held.append(entry)
            self._bytes += len(entry.line)
            self.head_seq, self.head_tag = entry.seq, entry.tag
        # The newest entry always stays: a live reader needs it whatever its size.
        while (len(held) > self._most_entries or self._bytes > self._most_bytes) and len(held) > 1:
            self._bytes -= len(held.popleft().line)

    def tag_at(self, seq: int) -> int | None:
        """Return the tag of `seq`, None when it is not held."""
        if seq == self.head_seq and seq > 0:
            return self.head_tag
        index = seq - self.first_seq
        return self._entries[index].tag if 0 <= index < len(self._entries) else None

    def continues(self, after_seq: int) -> bool:
        """Whether something follows `after_seq`, and all of that is held."""
        return self.head_seq > after_seq >= self.head_seq - len(self._entries)

    def after(self, after_seq: int, payload_bytes: int) -> list[Entry]:
        """Return entries after `after_seq`, at least one if there is one, up to about `payload_bytes`."""
        if after_seq == self.head_seq - 1 and self._entries:
            return [self._entries[-1]]
        chosen: list[Entry] = []
        start = max(after_seq + 1 - self.first_seq, 0)
        for entry in islice(self._entries, start, None):
            chosen.append(entry)
            payload_bytes -= len(entry.line)
            if payload_bytes <= 0:
                break
        return chosen

    def tags(self) -> dict[int, int]:
        """Return the tag of every seq held, the head's included."""
        known = {entry.seq: entry.tag for entry in self._entries}
        if self.head_seq:
            known[self.head_seq] = self.head_tag
        return known

    def cut_to(self, seq: int) -> None:
        """Forget everything after `seq`, which is held or the head."""
        while self._entries and self._entries[-1].seq > seq:
            self._bytes -= len(self._entries.pop().line)
        if self._entries:
            self.head_seq, self.head_tag = self._entries[-1].seq, self._entries[-1].tag


def newest_run(entries: Sequence[Entry]) -> Sequence[Entry]:
    """Return the last of `entries` between which none is missing."""
    start = len(entries) - 1
    while start > 0 and entries[start - 1].seq == entries[start].seq - 1:
        start -= 1
    return entries[max(start, 0) :]


def oldest_run(entries: Sequence[Entry]) -> Sequence[Entry]:
    """Return the first of `entries` between which none is missing."""
    end = 1
    while end < len(entries) and entries[end].seq == entries[end - 1].seq + 1:
        end += 1
    return entries[:end]
