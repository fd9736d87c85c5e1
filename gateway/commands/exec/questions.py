"""How a plain program asks: the prompt it prints becomes a question of the run."""

from __future__ import annotations

import asyncio
import re
from typing import Any, Protocol
from uuid import uuid4

import msgspec

from gateway.client import Appended, ClientError, ConnectionLost, Unavailable
from gateway.commands.exec.beginning import is_paused
from gateway.commands.exec.child import Child
from gateway.commands.exec.journal import Journal
from gateway.commands.exec.lines import LineSplitter

AGAIN_S = 0.25


class AppendEvents(Protocol):
    """Appends events to the run, in one piece, at once."""

    async def __call__(self, events: list[dict[str, Any]], *, idempotency_key: str) -> Appended:
        """Return the gateway's reply; raises ClientError."""
        ...


class Asker:
    """Turns a last line of output that matches a pattern into a question."""

    def __init__(self, pattern: re.Pattern[str], journal: Journal, child: Child, append: AppendEvents) -> None:
        self._pattern = pattern
        self._journal = journal
        self._child = child
        self._append = append
        self._asked = 0

    async def look(self, splitter: LineSplitter, stream: str) -> None:
        """Ask what the output of a program that has fallen silent ends with, if it is a question."""
        prompt = splitter.last
        if not self._pattern.search(prompt):
            return
        for line in splitter.take_rest():
            await self._journal.record_line(line, stream)
        self._asked += 1
        await self._ask({"request_id": f"ask-{self._asked}", "prompt": prompt.strip()})

    async def _ask(self, question: dict[str, Any]) -> None:
        # Not by way of the journal: a question is refused while the run is paused, and that must not
        # end the recording.
        event = {"type": "run.waiting_for_input", "data": question}
        key = uuid4().hex
        while not self._journal.lost and not self._child.exited and self._child.stopped is None:
            await self._journal.deliver()
            await self._child.wait_going()
            try:
                await self._append([event], idempotency_key=key)
            except (ConnectionLost, Unavailable):
                continue
            except ClientError as error:
                if not is_paused(error):
                    return
                await asyncio.sleep(AGAIN_S)
            else:
                return


def answer_text(content: Any) -> str:
    """Return an answer as a program reads it: text as it is, any other value as JSON."""
    return content if isinstance(content, str) else msgspec.json.encode(content).decode()
