"""A dialect's status words: one for each status, and for each word the statuses that show as it."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.domain.lifecycle import ALL, Status


class StatusWords:
    """A vocabulary of statuses, total in both directions.

    Args:
        words: The word of every status.
    """

    def __init__(self, words: Mapping[Status, str]) -> None:
        missing = set(ALL) - words.keys()
        if missing:
            raise ValueError(f"no word for {', '.join(sorted(missing))}")
        self._words = {status: words[status] for status in ALL}
        self.known = tuple(dict.fromkeys(self._words.values()))

    def of(self, status: Status) -> str:
        """Return the word of a status."""
        return self._words[status]

    def select(self, *words: str) -> frozenset[Status]:
        """Return every status that shows as one of `words`; none for no words."""
        return frozenset(status for status, word in self._words.items() if word in words)
