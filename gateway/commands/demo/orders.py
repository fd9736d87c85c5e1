"""What others ask of a run, as its worker learns it: from the run's own log."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

from gateway.client import Client, Event, StreamItem

CONTROL_TYPES = ("run.cancel_requested", "run.paused", "run.resumed", "run.input_received", "run.restarted")


class CancelAsked(Exception):
    """Somebody wants the run to stop; the message is why."""


class RunOver(Exception):
    """The run has ended, or goes on in another attempt: nothing more may be written for this one."""


class Orders:
    """Whether to go on, and what was answered."""

    def __init__(self) -> None:
        self._going = asyncio.Event()
        self._going.set()
        self._answered = asyncio.Condition()
        self._answers: dict[str, dict[str, Any]] = {}
        self.heeded = False
        """Whether a person, or a program of theirs, has steered this run or answered."""

    async def follow(self, client: Client, run_id: str, *, after: int) -> None:
        """Take orders from the log for as long as the run goes on.

        Raises:
            CancelAsked, RunOver: the work has to end.
            ClientError: the log cannot be followed any more.
        """
        items = client.runs.events(run_id, after=after, types=CONTROL_TYPES, patience_s=None)
        async with aclosing(items):
            async for item in items:
                await self._take(item)
        raise RunOver

    async def _take(self, item: StreamItem) -> None:
        if not isinstance(item, Event):
            return
        actor = item.data.get("actor") or {}
        self.heeded = self.heeded or actor.get("kind") != "system"
        match item.type:
            case "run.cancel_requested":
                raise CancelAsked(item.data.get("reason") or "cancel requested")
            case "run.restarted":
                raise RunOver
            case "run.paused":
                self._going.clear()
            case "run.resumed":
                self._going.set()
            case "run.input_received":
                async with self._answered:
                    self._answers[item.data["request_id"]] = item.data
                    self._answered.notify_all()

    async def wait_turn(self) -> None:
        """Return when the run is not paused."""
        await self._going.wait()

    async def answer(self, request_id: str) -> dict[str, Any]:
        """Return the answer to a question, once it has one; its deadline is the gateway's to keep.

        `content` is what was answered, `reason` is `deadline` where nobody did and the default counts.
        """
        async with self._answered:
            await self._answered.wait_for(lambda: request_id in self._answers)
            return self._answers[request_id]
