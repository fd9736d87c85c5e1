"""How the demo agent's work becomes events: steps, tool calls with measured durations, streamed text."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from gateway.client import Writer
from gateway.commands.demo.orders import Orders

T = TypeVar("T")

WORDS = 3
MESSAGE_ID = "findings"


class Recorder:
    """Writes one run's events, and holds the work between two actions while the run is paused.

    Args:
        pace_s: A pause before each action, so that a person can follow; no duration that is recorded
            for a tool includes it.
    """

    def __init__(self, writer: Writer, orders: Orders, *, pace_s: float) -> None:
        self._writer = writer
        self._orders = orders
        self._pace_s = pace_s
        self._step_id: str | None = None
        self._steps = 0
        self._calls = 0
        self._said: list[str] = []

    @property
    def said(self) -> str:
        """All text so far."""
        return "".join(self._said)

    async def wait_turn(self) -> None:
        """Return when it is time for the next action."""
        await asyncio.sleep(self._pace_s)
        await self._orders.wait_turn()

    async def write(self, type: str, data: Mapping[str, Any]) -> None:
        """Record one event, within the present step if there is one."""
        await self._writer.append(type, data, step_id=self._step_id)

    @asynccontextmanager
    async def step(self, name: str) -> AsyncIterator[None]:
        """Record what the block does as a step, which fails when the block does."""
        await self.wait_turn()
        self._steps += 1
        step_id = self._step_id = f"step-{self._steps}"
        began_s = time.perf_counter()
        await self.write("step.started", {"step_id": step_id, "name": name})
        try:
            yield
        except Exception as error:
            fault = {"code": "step_failed", "message": str(error) or type(error).__name__}
            await self.write("step.failed", {"step_id": step_id, "error": fault, "duration_ms": _ms_since(began_s)})
            raise
        await self.write("step.completed", {"step_id": step_id, "duration_ms": _ms_since(began_s)})
        self._step_id = None

    async def use(self, name: str, inputs: Mapping[str, Any], tool: Callable[[], T], show: Callable[[T], Any]) -> T:
        """Record a tool at work and return what it gives; `show` makes the recorded output of that."""
        await self.wait_turn()
        self._calls += 1
        call_id = f"call-{self._calls}"
        await self.write("tool.call", {"call_id": call_id, "name": name, "input": inputs})
        began_s = time.perf_counter()
        try:
            given = await asyncio.to_thread(tool)
        except Exception as error:
            outcome: dict[str, Any] = {"status": "error", "output": {"error": f"{type(error).__name__}: {error}"}}
            await self.write("tool.result", {"call_id": call_id, "duration_ms": _ms_since(began_s), **outcome})
            raise
        took_ms = _ms_since(began_s)
        outcome = {"status": "ok", "output": show(given)}
        await self.write("tool.result", {"call_id": call_id, "duration_ms": took_ms, **outcome})
        return given

    async def say(self, text: str) -> None:
        """Stream a piece of the run's text, a few words at a time."""
        words = text.split(" ")
        for start in range(0, len(words), WORDS):
            piece = " ".join(words[start : start + WORDS])
            piece += " " if start + WORDS < len(words) else ""
            await asyncio.sleep(self._pace_s / 4)
            await self._orders.wait_turn()
            self._said.append(piece)
            await self.write("message.delta", {"message_id": MESSAGE_ID, "role": "assistant", "content": piece})

    async def finish_saying(self) -> None:
        """Record the whole text as complete."""
        await self.write("message.completed", {"message_id": MESSAGE_ID, "role": "assistant", "content": self.said})

    async def flush(self) -> None:
        """Wait until everything written is stored."""
        await self._writer.flush()


def _ms_since(began_s: float) -> float:
    return round((time.perf_counter() - began_s) * 1000, 2)
