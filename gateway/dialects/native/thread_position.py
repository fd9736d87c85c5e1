"""What a client has of a thread: its stream's `id:`.

`~run@ms,run:cursor,run:cursor…`. The runs that go on, and those that ended last, are listed with their cursors; of
the others all is said by the newest one, and by when the last of them ended. A run that is no newer and not listed
is complete for whoever holds the id, unless it ended later than that: then it went on meanwhile.
"""

from __future__ import annotations

import re

from gateway.domain.cursor import START, Cursor, parse
from gateway.domain.run import Run
from gateway.errors import BadRequest, GatewayError
from gateway.service.actors import parse_run_id

LISTED = 48
"""Runs that have ended and stay listed: a restart of one of them is followed without a reset."""

PARTS = 2_000

_DONE = re.compile(r"~([^@]*)@([0-9]{1,15})")


class ThreadPosition:
    """The place of a thread's reader in each of its runs."""

    def __init__(
        self, cursors: dict[str, Cursor], *, done_through: str = "", done_ms: int = 0, listed: int = LISTED
    ) -> None:
        self.cursors = cursors
        self._listed = listed
        self._done_through = done_through
        self._done_ms = done_ms
        self._ended: dict[str, int] = {}

    @classmethod
    def parse(cls, text: str) -> ThreadPosition:
        """Read an `id:`; no text at all is the beginning.

        Raises:
            BadRequest: it is none.
        """
        parts = text.split(",", PARTS) if text else []
        try:
            done = _DONE.fullmatch(parts[0]) if parts else None
            cursors = dict(_pair(part) for part in (parts[1:] if done else parts))
            return cls(cursors, done_through=parse_run_id(done[1]), done_ms=int(done[2])) if done else cls(cursors)
        except GatewayError:
            raise BadRequest(f"{text[:64]!r} is no position in a thread.", parameter="after") from None

    @property
    def text(self) -> str:
        """The `id:` of this position."""
        done = [f"~{self._done_through}@{self._done_ms}"] if self._done_through else []
        return ",".join([*done, *(f"{run_id}:{cursor.text}" for run_id, cursor in self.cursors.items())])

    def forget(self, run_id: str) -> None:
        """Leave out a run that does not exist any more."""
        self.cursors.pop(run_id, None)
        self._ended.pop(run_id, None)

    def follow(self, run_id: str) -> None:
        """Note that a run is followed from where it is listed, from its beginning if it is not."""
        self._ended.pop(run_id, None)
        self.cursors.setdefault(run_id, START)

    def end(self, run_id: str, ended_ms: int, oldest_waiting: str | None) -> None:
        """Note that a run was delivered to its end; the oldest such runs leave the list.

        Args:
            oldest_waiting: Of the runs that were not begun; nothing may be said of it and what is newer.
        """
        self._ended[run_id] = ended_ms
        while len(self._ended) > self._listed:
            oldest = min(self._ended)
            if oldest_waiting is not None and oldest > oldest_waiting:
                return
            self._done_through = max(self._done_through, oldest)
            self._done_ms = max(self._done_ms, self._ended.pop(oldest))
            self.cursors.pop(oldest, None)

    def passed(self, run_id: str) -> bool:
        """Whether a run is not listed because it was delivered to its end."""
        return run_id <= self._done_through and run_id not in self.cursors

    def has_all_of(self, run: Run) -> bool:
        """Whether a run has ended and nothing of it is missing."""
        if not run.state.terminal:
            return False
        if self.passed(run.id):
            return (run.state.ended_ms or 0) <= self._done_ms
        return self.cursors.get(run.id) == Cursor(run.head_seq, run.head_tag)


def _pair(part: str) -> tuple[str, Cursor]:
    run_id, _, cursor = part.partition(":")
    return parse_run_id(run_id), parse(cursor)
