"""A change to a run in the making: events, the state they lead to, and the marks they leave."""

from __future__ import annotations

from typing import Any

from gateway.domain.events import NewEvent
from gateway.domain.evolve import evolve
from gateway.domain.lifecycle import Action, Status, require
from gateway.domain.run import Run, RunState


class Draft:
    """Collects the events of one change and keeps the state after the last one.

    Nothing is written before the store accepts the whole draft under the revision it was made from.
    `lease` is the token of a lease that the change gives; `forget_writers` lets writers count from 1 again.

    Args:
        jitter: From 0 to 1, drawn once: what spreads things that would else happen together.
    """

    def __init__(self, state: RunState | None, at_ms: int, *, jitter: float = 0.0) -> None:
        self._state = state
        self.at_ms = at_ms
        self.jitter = jitter
        self.lease: str | None = None
        self.forget_writers = False
        self.events: list[NewEvent] = []
        self.marks: list[tuple[str, int]] = []
        self.request_ids: list[str] = []

    @classmethod
    def of(cls, run: Run, at_ms: int, *, jitter: float = 0.0) -> Draft:
        """Start a change of `run` as it was read."""
        return cls(run.state, at_ms, jitter=jitter)

    @property
    def state(self) -> RunState:
        """The state after the events so far."""
        if self._state is None:
            raise LookupError("a draft of a new run has no state before its first event")
        return self._state

    @property
    def status(self) -> Status:
        """The status after the events so far."""
        return self.state.status

    def require(self, action: Action) -> None:
        """Refuse `action` unless the status after the events so far permits it."""
        require(action, self.status)

    def add(self, kind: str, data: dict[str, Any]) -> None:
        """Append an event of the gateway's own; keys whose value is None are left out."""
        self.push(NewEvent(kind, {key: value for key, value in data.items() if value is not None}))

    def push(self, event: NewEvent) -> None:
        """Append an event as it is."""
        data = event.data if isinstance(event.data, dict) else {}
        self._state, marks = evolve(self._state, event.type, data, self.at_ms)
        self.marks += [(mark, len(self.events)) for mark in marks]
        self.events.append(event)
