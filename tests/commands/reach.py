"""Commands as a shell runs them, pointed at a gateway."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Protocol

from gateway.client import Client, Event

DEADLINE_S = 30.0


class Reachable(Protocol):
    """A running gateway."""

    @property
    def url(self) -> str:
        """Its address."""
        ...

    @property
    def key(self) -> str:
        """A key of it."""
        ...


def environment(gateway: Reachable) -> dict[str, str]:
    """Return the environment of a command that is to find `gateway`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    return {**clean, "GATEWAY_URL": gateway.url, "GATEWAY_KEY": gateway.key}


class Exec:
    """A `gateway exec` under way, its run, and a reader of its log."""

    def __init__(self, process: Process, client: Client, run_id: str) -> None:
        self.process = process
        self.run_id = run_id
        self._client = client

    async def see(self, type: str, message: str | None = None) -> Event:
        """Return the first event of a type, and with a message where one is given, once it is there."""
        async with aclosing(self._client.runs.events(self.run_id)) as items:
            async for item in items:
                matches = isinstance(item, Event) and item.type == type
                if matches and message in (None, item.data.get("message")):  # type: ignore[union-attr]
                    assert isinstance(item, Event)
                    return item
        raise AssertionError(f"the run ended without {type} {message or ''}")

    async def finish(self) -> int:
        """Return its exit code, once it has ended by itself."""
        await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode

    async def events(self) -> list[Event]:
        """Return the whole log."""
        return [item async for item in self._client.runs.log(self.run_id) if isinstance(item, Event)]

    async def output(self, stream: str = "stdout") -> list[str]:
        """Return the lines that the command wrote to one of its streams."""
        logs = [event.data for event in await self.events() if event.type == "log"]
        return [data["message"] for data in logs if data["data"]["stream"] == stream]


@asynccontextmanager
async def gateway_exec(gateway: Reachable, client: Client, *arguments: str) -> AsyncIterator[Exec]:
    """Start `gateway exec` with these arguments; it does not outlive the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "exec", *arguments),
        env=environment(gateway),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(DEADLINE_S):
            said = (await process.stderr.readline()).decode().split()
            assert said[:2] == ["gateway:", "run"], said
            yield Exec(process, client, said[2])
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
