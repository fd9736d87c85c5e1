"""What a reader was given, event by event, and what the log itself says."""

from __future__ import annotations

import sys
import time
from array import array
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx
import msgspec

from tests.support.running import wait_until


class Seen(NamedTuple):
    """One event as a reader got it."""

    seq: int
    cursor: str
    mark: str


class Told(NamedTuple):
    """One control frame as a reader got it."""

    name: str
    facts: dict[str, Any]


class Transcript:
    """What a reader was given: the events it holds for true, what else the stream told it, and all of it as it came.

    Args:
        strict: Whether a frame that must not come fails at once; if not, it is only kept, for a checker to judge.
        note: Called with each frame and its time.
    """

    def __init__(self, *, strict: bool = True, note: Callable[[Seen | Told, float], None] | None = None) -> None:
        self.seen: list[Seen] = []
        self.heard: list[Seen | Told] = []
        self.heard_at_s = array("d")
        self.opened = 0
        self.frames: list[Told] = []
        self.ended = False
        self._strict = strict
        self._note = note

    @property
    def cursor(self) -> str | None:
        """Where the reader stands; after a reset the number alone."""
        return self.seen[-1].cursor if self.seen else None

    @property
    def seqs(self) -> list[int]:
        """The seqs of the events."""
        return [seen.seq for seen in self.seen]

    def told(self, name: str) -> list[dict[str, Any]]:
        """Return the facts of every control frame of one name."""
        return [told.facts for told in self.frames if told.name == name]

    def take(self, name: str, cursor: str, data: bytes | str) -> None:
        """Take a frame; an event must be the next one, and a control frame one that is known."""
        if name == "":
            self.take_event(cursor, msgspec.json.decode(data))
            return
        facts: dict[str, Any] = msgspec.json.decode(data)
        self.frames.append(Told(name, facts))
        self._hear(self.frames[-1])
        match name:
            case "stream.open":
                self.opened += 1
            case "stream.reset":
                self.cut_to(facts["valid_through"])
            case "stream.end":
                self.ended = True
            case "stream.closed":
                pass
            case _:
                assert not self._strict, f"{name} {facts} was not to be expected"

    def take_event(self, cursor: str, event: dict[str, Any]) -> None:
        """Take an event."""
        seq = event["seq"]
        last = self.seen[-1].seq if self.seen else 0
        assert not self._strict or seq == last + 1, f"event {seq} came after {last}"
        assert not self._strict or cursor.startswith(f"{seq}-"), f"event {seq} has the cursor {cursor!r}"
        # Shared between transcripts: there may be many, and long ones.
        self.seen.append(Seen(seq, sys.intern(cursor), sys.intern(mark_of(event))))
        self._hear(self.seen[-1])

    def _hear(self, item: Seen | Told) -> None:
        self.heard.append(item)
        self.heard_at_s.append(time.monotonic())
        if self._note is not None:
            self._note(item, self.heard_at_s[-1])

    def cut_to(self, seq: int) -> None:
        """Forget what was void after `seq`."""
        del self.seen[seq:]

    def read_no_further(self, seq: int) -> None:
        """Be as if nothing had come after event `seq`."""
        self.cut_to(seq)
        kept = next((at for at, item in enumerate(self.heard) if isinstance(item, Seen) and item.seq > seq), None)
        del self.heard[kept:], self.heard_at_s[kept:]

    async def reaches(self, seq: int, *, timeout_s: float = 30.0) -> None:
        """Wait until the reader has come so far."""
        await wait_until(lambda: bool(self.seen) and self.seen[-1].seq >= seq, timeout_s=timeout_s)


def mark_of(event: dict[str, Any]) -> str:
    """Return what tells an event from the others: the first word of its message, else its type."""
    return str(event["data"].get("message", event["type"])).partition(" ")[0]


async def read_log(client: httpx.AsyncClient, run_id: str) -> list[tuple[int, str]]:
    """Return the seq and the mark of every event of a log, read page by page."""
    log: list[tuple[int, str]] = []
    after, more = "0", True
    while more:
        answer = await client.get(f"/v1/runs/{run_id}/events", params={"after": after, "limit": 1000})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        log += [(event["seq"], mark_of(event)) for event in page["data"]]
        after, more = page["next_after"], page["has_more"]
    return log
