"""Writers and readers of one run, all at once, for as long as a scenario needs them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import httpx

from tests.scenarios.claims import check_all
from tests.support.processes import GatewayProcess
from tests.support.readers import ClientReader, Reader, SseReader, WebSocketReader
from tests.support.running import wait_until
from tests.support.writers import Writer, create_run

SILENCE_S = 5.0
MOST_BATCH = 30
LONGEST_S = 1500.0
GROWS_S = 30.0


class Crowd:
    """Writers that append until they are told to stop, and readers of what they write."""

    def __init__(self, run_id: str, writers: Sequence[Writer], readers: Sequence[Reader]) -> None:
        self.run_id = run_id
        self.writers = writers
        self.readers = readers
        self.events = 0
        self._stopping = False

    @property
    def acknowledged(self) -> int:
        """How many events all writers together know to be stored."""
        return sum(len(writer.acknowledged) for writer in self.writers)

    @property
    def bare(self) -> list[SseReader | WebSocketReader]:
        """The readers that show every connection they make."""
        return [reader for reader in self.readers if isinstance(reader, SseReader | WebSocketReader)]

    @property
    def repeats(self) -> int:
        """How many appends were sent again."""
        return sum(writer.repeats for writer in self.writers)

    @property
    def duplicates(self) -> int:
        """How many appends, sent again, turned out to be stored already."""
        return sum(writer.duplicates for writer in self.writers)

    async def grows(self, events: int) -> None:
        """Wait until so many more events are known to be stored."""
        wanted = self.acknowledged + events
        await wait_until(lambda: self.acknowledged >= wanted, timeout_s=GROWS_S)

    async def run(self) -> None:
        """Write and read until `stop`, then end the run; returns when every reader has come to its end."""
        async with asyncio.timeout(LONGEST_S), asyncio.TaskGroup() as tasks:
            for reader in self.readers:
                tasks.create_task(reader.run())
            async with asyncio.TaskGroup() as writing:
                for index, writer in enumerate(self.writers):
                    writing.create_task(self._write(writer, random.Random(index)))
            await self.writers[0].complete()

    def stop(self) -> None:
        """Have every writer stop after its present append."""
        self._stopping = True

    async def _write(self, writer: Writer, choice: random.Random) -> None:
        while not self._stopping:
            await writer.append(choice.randint(1, MOST_BATCH))


@asynccontextmanager
async def gather(
    gateway: GatewayProcess, *, writers: int = 4, readers: int = 1, keyed: bool = False, silence_s: float = SILENCE_S
) -> AsyncIterator[Crowd]:
    """Have a crowd at work during the block, then check everything that it wrote and read.

    Args:
        writers: Each has a connection of its own.
        readers: So many of each kind.
        silence_s: How long anybody waits on a connection that says nothing.
    """
    async with AsyncExitStack() as stack:
        clients: list[httpx.AsyncClient] = [
            await stack.enter_async_context(gateway.client(timeout=silence_s)) for _ in range(writers)
        ]
        run_id = await create_run(clients[0])
        makers = (SseReader, WebSocketReader, ClientReader)
        crowd = Crowd(
            run_id,
            [Writer(client, run_id, f"w{index}", keyed=keyed) for index, client in enumerate(clients)],
            [make(gateway.url, gateway.key, run_id, silence_s=silence_s) for make in makers for _ in range(readers)],
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(crowd.run())
            yield crowd
            crowd.stop()
        transcripts = [reader.transcript for reader in crowd.readers]
        crowd.events = await check_all(clients[0], run_id, crowd.writers, transcripts)
        assert all(transcript.told("stream.reset") == [] for transcript in transcripts)
        print(f"{crowd.events} events, {crowd.repeats} appends repeated, {crowd.duplicates} of them stored already")
