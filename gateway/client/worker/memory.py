"""What an attempt did before it was let go at a question, for the handler that is executed again."""

from __future__ import annotations

import re
import threading
from hashlib import blake2b
from typing import Any

from gateway.client.models import Answer, Claim

_REQUEST_ID = re.compile(r"ask-(\d+)-(\d+)-([0-9a-f]{12})")


class Memory:
    """Answers that are given again, and the numbers by which steps, calls and questions are named.

    While answers are left the handler goes where it has been: what it says is in the log already.
    Names are the same each time the attempt is executed; they begin with the head of the log at its first claim.
    """

    def __init__(self, claim: Claim) -> None:
        self._checkpoint = claim.checkpoint
        self._counting = threading.Lock()
        self._numbers: dict[str, int] = {}
        recorded = [(match, answer) for answer in claim.answers if (match := _REQUEST_ID.fullmatch(answer.request_id))]
        recorded.sort(key=lambda pair: int(pair[0][2]))
        self._answers = [(match[3], answer) for match, answer in recorded] if claim.continues else []
        self._origin = int(recorded[0][0][1]) if self._answers else claim.run.head_seq
        if self._answers:
            self._numbers["ask"] = int(recorded[-1][0][2])

    @property
    def is_replaying(self) -> bool:
        """Whether the handler has not come yet to where it was let go."""
        return bool(self._answers)

    def go_on_from_checkpoint(self) -> Any:
        """Return the last checkpoint's state, None without one; what was answered before it is not asked again."""
        checkpoint = self._checkpoint
        if checkpoint is None:
            return None
        self._answers = [(prompt, answer) for prompt, answer in self._answers if answer.seq > checkpoint.seq]
        if checkpoint.numbers.get("origin") == self._origin:
            # What comes after it goes on with its numbers, as it did the first time.
            self._numbers |= {name: n for name, n in checkpoint.numbers.items() if name in ("step", "call", "file")}
        return checkpoint.state

    def recall(self, prompt: str) -> Answer | None:
        """Return the answer that this question was given; one that was never asked ends the replay."""
        digest = _digest(prompt)
        for index, (asked, answer) in enumerate(self._answers):
            if asked == digest:
                del self._answers[index]
                return answer
        self._answers = []
        return None

    def numbers(self) -> dict[str, int]:
        """Return what a checkpoint keeps of the numbers."""
        return {"origin": self._origin, **self._numbers}

    def name(self, kind: str) -> str:
        """Return an id for the next step or call."""
        return f"{self._origin}.{self._count(kind)}"

    def name_question(self, prompt: str) -> str:
        """Return an id for a question, by which its answer is recognised."""
        return f"ask-{self._origin}-{self._count('ask')}-{_digest(prompt)}"

    def _count(self, kind: str) -> int:
        # A handler in a thread may have threads of its own.
        with self._counting:
            self._numbers[kind] = self._numbers.get(kind, 0) + 1
            return self._numbers[kind]


def _digest(prompt: str) -> str:
    return blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
