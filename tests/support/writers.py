"""Writers that send the same bytes again until they are acknowledged, and remember what was."""

from __future__ import annotations

import asyncio
import itertools
from enum import StrEnum
from typing import Any, NamedTuple

import httpx
import msgspec

REPEAT_S = 0.02
PATIENCE_S = 30.0


class Refused(Exception):
    """The gateway refused an append for good; `problem` is its answer."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(problem)
        self.problem = problem


class Outcome(StrEnum):
    """What is known of an append."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    NOT_WRITTEN = "not_written"
    UNKNOWN = "unknown"


class Answer(NamedTuple):
    """What one request to append led to; `body` is the answer, or the problem, as far as there is one."""

    outcome: Outcome
    body: dict[str, Any]


async def post_events(client: httpx.AsyncClient, path: str, content: bytes, headers: dict[str, str]) -> Answer:
    """Send one request to append, and say what is known of it then."""
    try:
        answer = await client.post(path, content=content, headers=headers)
    except httpx.TransportError:
        return Answer(Outcome.UNKNOWN, {})
    if answer.status_code == 200:
        return Answer(Outcome.ACKNOWLEDGED, answer.json())
    if answer.status_code == 503:
        problem = answer.json()
        assert problem.get("outcome") in ("not_written", "unknown") or problem["code"] == "draining", problem
        assert int(answer.headers["retry-after"]) >= 0
        return Answer(Outcome(problem.get("outcome", "not_written")), problem)
    return Answer(Outcome.REFUSED, answer.json())


class Writer:
    """One writer of one run; every event carries a mark that no other event has.

    Args:
        keyed: Repeats are recognised by an `Idempotency-Key`, else by `writer_seq`.
        padding_bytes: Added to every event's message.
    """

    def __init__(
        self, client: httpx.AsyncClient, run_id: str, name: str, *, keyed: bool = False, padding_bytes: int = 0
    ) -> None:
        self.acknowledged: dict[int, str] = {}
        self.run_id = run_id
        self.name = name
        self.number = 0
        self.repeats = 0
        self.duplicates = 0
        self._client = client
        self._path = f"/v1/runs/{run_id}/events"
        self._keyed = keyed
        self._padding = "x" * padding_bytes
        self._marks = itertools.count(1)

    async def append(self, count: int) -> None:
        """Append so many events in one request.

        Raises:
            Refused: with anything but success or 503.
            TimeoutError: nothing but failures for 30 s.
        """
        marks = [f"{self.name}-{next(self._marks)}" for _ in range(count)]
        await self.append_marks(marks)

    async def append_marks(self, marks: list[str]) -> None:
        """Append an event for each mark in one request."""
        reply = await self.send([log_event(f"{mark} {self._padding}") for mark in marks])
        assert reply["last_seq"] - reply["first_seq"] == len(marks) - 1, reply
        for seq, mark in enumerate(marks, reply["first_seq"]):
            assert seq not in self.acknowledged, f"{seq} was given to {self.acknowledged[seq]} and {mark}"
            self.acknowledged[seq] = mark

    async def send(self, events: list[dict[str, Any]]) -> dict[str, Any]:
        """Append events, again until it is answered, and return the answer."""
        self.number += 1
        headers = {"content-type": "application/json"}
        body: dict[str, Any] = {"events": events}
        if self._keyed:
            headers["idempotency-key"] = f"{self.name}-{self.number}"
        else:
            body |= {"writer": self.name, "writer_seq": self.number}
        content = msgspec.json.encode(body)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                answer = await post_events(self._client, self._path, content, headers)
                if answer.outcome is Outcome.ACKNOWLEDGED:
                    self.duplicates += answer.body["duplicate"]
                    return answer.body
                if answer.outcome is Outcome.REFUSED:
                    raise Refused(answer.body)
                self.repeats += 1
                await asyncio.sleep(REPEAT_S)

    async def complete(self) -> None:
        """End the run."""
        await self.send([{"type": "run.completed", "data": {"output": None}}])


def log_event(message: str) -> dict[str, Any]:
    """Return an event whose mark is the message's first word."""
    return {"type": "log", "data": {"level": "info", "message": message}}


async def create_run(client: httpx.AsyncClient, **body: Any) -> str:
    """Create a direct run and return its id."""
    answer = await client.post("/v1/runs", json={"agent_id": "tester", "mode": "direct", **body})
    assert answer.status_code == 201, answer.text
    run_id: str = answer.json()["id"]
    return run_id
