"""Writers and readers of every kind at work on one run of any gateway, and the history that they leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

import httpx
import msgspec

from tests.faults.address import Address
from tests.faults.history import Append, History, Reading
from tests.faults.members import Member
from tests.faults.writers import FaultWriter, Way
from tests.support.readers import ClientReader, Reader, SseReader, WebSocketReader
from tests.support.running import wait_until
from tests.support.transcripts import Transcript, read_log
from tests.support.writers import create_run

PATIENCE_S = 60.0
AGAIN_S = 0.2
KINDS = (SseReader, WebSocketReader, ClientReader)
ALL_WAYS = (Way.NUMBERED, Way.KEYED, Way.ONCE, Way.SOCKET)

Found = TypeVar("Found")


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How a crew works.

    Args:
        ways: One writer for each.
        readers_of_kind: So many of each kind of reader.
        rest_s: Each writer's pause between two appends.
        silence_s: How long anybody waits on a connection that says nothing; longer than the gateway's keep-alive.
        reader_silence_s: The same for readers, if it differs.
        lossy: Whether the store will be made to forget what it acknowledged.
        scale: How many times as much is written between two blows.
    """

    ways: tuple[Way, ...] = ALL_WAYS
    readers_of_kind: int = 1
    rest_s: float = 0.01
    silence_s: float = 2.0
    reader_silence_s: float | None = None
    lossy: bool = False
    scale: int = 1


class Crew:
    """Who works on one run, in this process and, as `members`, in others."""

    def __init__(self, run_id: str, writers: Sequence[FaultWriter], reading: asyncio.TaskGroup, scale: int = 1) -> None:
        self.run_id = run_id
        self.writers = writers
        self.readers: list[Reader] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._reading = reading
        self._scale = scale
        self.members: list[Member] = []
        self.stopping = asyncio.Event()
        self.history: History | None = None

    def add_reader(self, reader: Reader) -> None:
        """Have one more reader read the run to its end."""
        self.readers.append(reader)
        self.tasks.append(self._reading.create_task(reader.run()))

    @property
    def events(self) -> int:
        """How many events were acknowledged to the writers of this process."""
        return sum(writer.acknowledged_events for writer in self.writers)

    @property
    def failed_tries(self) -> int:
        """How many appends were not acknowledged at once."""
        return sum(writer.failed_tries for writer in self.writers)

    async def grows(self, events: int) -> None:
        """Wait until so many more events, times the crew's scale, are acknowledged."""
        wanted = self.events + events * self._scale
        await wait_until(lambda: self.events >= wanted, timeout_s=PATIENCE_S)

    async def suffers(self, tries: int = 1) -> None:
        """Wait until so many more appends have failed."""
        wanted = self.failed_tries + tries
        await wait_until(lambda: self.failed_tries >= wanted, timeout_s=PATIENCE_S)

    def clean_up(self) -> None:
        """Kill what members are left."""
        for member in self.members:
            member.clean_up()

    async def catches_up(self) -> None:
        """Wait until every reader has what was acknowledged when this was asked."""
        last = [append.first_seq for writer in self.writers for append in writer.appends[-1:] if append.first_seq]
        for reader in self.readers:
            await reader.transcript.reaches(max(last, default=0), timeout_s=PATIENCE_S)


@asynccontextmanager
async def gather_crew(direct: Address, through_url: str, pace: Pace) -> AsyncIterator[Crew]:
    """Have a crew at work during the block; after it the run ends, and the crew has its history.

    Args:
        direct: Reaches the gateway whatever is done on the way.
        through_url: The way by which the crew works.
    """
    run_id = await insist(direct, create_run)
    async with AsyncExitStack() as stack:
        writers = []
        for index, way in enumerate(pace.ways):
            through = Address(through_url, direct.key)
            writer = FaultWriter(through, run_id, f"w{index}", way, timeout_s=pace.silence_s, rest_s=pace.rest_s)
            writers.append(writer)
        reading = await stack.enter_async_context(asyncio.TaskGroup())
        crew = Crew(run_id, writers, reading, pace.scale)
        stack.callback(crew.clean_up)
        for kind in KINDS * pace.readers_of_kind:
            transcript = Transcript(strict=False)
            silence_s = pace.reader_silence_s or pace.silence_s
            crew.add_reader(kind(through_url, direct.key, run_id, silence_s=silence_s, transcript=transcript))
        async with asyncio.TaskGroup() as writing:
            for writer in writers:
                writing.create_task(writer.run(crew.stopping))
            try:
                yield crew
            finally:
                crew.stopping.set()
        await end_work(crew, direct)
    log = await insist(direct, lambda client: read_log(client, run_id))
    crew.history = write_history(crew, log, lossy=pace.lossy)


async def end_work(crew: Crew, direct: Address) -> None:
    """End the run once every writer has finished, and wait until every reader has read to its end."""
    await asyncio.gather(*(member.stop() for member in crew.members if member.writes))
    await end_run(direct, crew.run_id)
    await asyncio.wait(crew.tasks, timeout=PATIENCE_S)
    for task in crew.tasks:
        task.cancel()
    await asyncio.gather(*(member.ends(PATIENCE_S) for member in crew.members))


async def insist(address: Address, do: Callable[[httpx.AsyncClient], Awaitable[Found]]) -> Found:
    """Do something idempotent until the gateway answers it; its last answer is raised when time is up."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                async with address.client(PATIENCE_S) as client:
                    return await do(client)
            except (httpx.TransportError, AssertionError):
                await asyncio.sleep(AGAIN_S)


async def end_run(address: Address, run_id: str) -> None:
    """End a run, as soon as its gateway takes it."""

    async def end(client: httpx.AsyncClient) -> None:
        event = {"type": "run.completed", "data": {"output": None}}
        headers = {"idempotency-key": f"end-{run_id}"}
        answer = await client.post(f"/v1/runs/{run_id}/events", json=event, headers=headers)
        assert answer.status_code == 200, answer.text

    await insist(address, end)


def write_history(crew: Crew, log: list[tuple[int, str]], *, lossy: bool) -> History:
    """Return what a crew knows of its run."""
    appends: list[Append] = [append for writer in crew.writers for append in writer.appends]
    readings = [
        Reading(
            reader=f"{type(reader).__name__} {index}",
            heard=reader.transcript.heard,
            heard_at_s=list(reader.transcript.heard_at_s),
            ended=reader.transcript.ended,
        )
        for index, reader in enumerate(crew.readers)
    ]
    for member in crew.members:
        if member.writes:
            appends += member.appends()
        else:
            readings.append(member.reading())
    return History(appends=appends, readings=readings, log=log, lossy=lossy)
