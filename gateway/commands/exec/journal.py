"""What is written of the command, as long as there is somebody to write it to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.client import ClientError, EventTooLarge, Writer
from gateway.commands.exec.lines import Line

_LEVELS = {"stdout": "info", "stderr": "error"}


class Journal:
    """The run's events in the order they are recorded.

    While the gateway is away `record` waits once the writer's queue is full.
    When the run takes no more events `on_lost` is told once, and from then on nothing is written.
    """

    def __init__(self, writer: Writer, on_lost: Callable[[ClientError], None]) -> None:
        self._writer = writer
        self._on_lost = on_lost
        self._lost = False

    @property
    def lost(self) -> bool:
        """Whether the run takes no more events."""
        return self._lost

    async def record(self, type: str, data: dict[str, Any]) -> None:
        """Queue one event."""
        if self._lost:
            return
        try:
            await self._writer.append(type, data)
        except EventTooLarge:
            raise
        except ClientError as error:
            self._lose(error)

    async def record_line(self, line: Line, stream: str) -> None:
        """Queue one line of output as a `log` event."""
        place = {"stream": stream, "continued": True} if line.continued else {"stream": stream}
        await self.record("log", {"level": _LEVELS[stream], "message": line.text, "data": place})

    async def deliver(self) -> None:
        """Wait until everything recorded is stored."""
        if self._lost:
            return
        try:
            await self._writer.flush()
        except ClientError as error:
            self._lose(error)

    def _lose(self, error: ClientError) -> None:
        if not self._lost:
            self._lost = True
            self._on_lost(error)
