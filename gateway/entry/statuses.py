"""A dialect's status words: one for each status, and for each word the statuses that show as it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway.domain.lifecycle import ALL, Status

STANDARD: Final = ("type", "title", "status", "detail", "code", "request_id")
"""The members that every problem document has; all others are facts of the one refusal."""


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

    def retell(self, problem: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return the sentence and the facts of a refusal, with its statuses in these words."""
        facts = {name: fact for name, fact in problem.items() if name not in STANDARD}
        if facts.get("current_status") not in list(Status):
            return problem["detail"], facts
        present = self.of(Status(facts["current_status"]))
        facts["current_status"] = present
        if not facts.keys() >= {"action", "permitted"}:
            return problem["detail"], facts
        # Where two statuses show as one word, what the other one permits is no advice.
        permitted = list(dict.fromkeys(self.of(Status(status)) for status in facts["permitted"]))
        facts["permitted"] = permitted = [word for word in permitted if word != present]
        refused = f"A run that is {present} cannot {facts['action'].replace('_', ' ')}"
        return f"{refused}; it must be one of: {', '.join(permitted)}." if permitted else f"{refused} now.", facts
