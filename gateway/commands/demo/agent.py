"""The demo agent at work: runs of its own now and then, and whatever others ask of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.client import Client, ClientError, Forbidden, NotFound, Run, Unauthenticated
from gateway.commands.demo.library import open_library, pick_topic
from gateway.commands.demo.performing import Manner, Outcome, perform

AGENT = "demo"
AT_ONCE = 4
WAITING = 1_000
HEARTBEAT_S = 60
"""After so long without a sign of life the gateway ends a run of ours."""
TIMEOUT_S = 900
UNHEEDED = 5
CALM = 5
"""After `UNHEEDED` runs in a row that nobody answered, the next ones come that many times as seldom."""


async def create_run(client: Client) -> Run:
    """Create a run that asks where the library speaks of one of its topics."""
    topic = await asyncio.to_thread(lambda: pick_topic(open_library()))
    return await client.runs.create(
        AGENT,
        title=f"Where is “{topic}” spoken of?" if topic else "Search the library",
        input={"topic": topic} if topic else None,
        heartbeat_s=HEARTBEAT_S,
        timeout_s=TIMEOUT_S,
    )


class Agent:
    """Performs every queued run of the agent `demo`, at most `AT_ONCE` at a time."""

    def __init__(self, client: Client, manner: Manner, say: Callable[[str], None]) -> None:
        self._client = client
        self._manner = manner
        self._say = say
        self._queue: asyncio.Queue[str] = asyncio.Queue(WAITING)
        self._busy = 0
        self._unheeded = 0

    async def run(self, interval_s: float) -> None:
        """Create a run every `interval_s` seconds and perform it, and those of others, until cancelled."""
        first = await create_run(self._client)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen(first.created_at or ""))
            tasks.create_task(self._create(interval_s))
            for _ in range(AT_ONCE):
                tasks.create_task(self._work())

    async def _listen(self, since: str) -> None:
        """Hear of runs that are queued from `since` on; the feed itself goes back further."""
        async for change in self._client.feed(patience_s=None):
            mine = change.data.get("agent_id") == AGENT and change.data.get("status") == "queued"
            if mine and change.created_at >= since:
                await self._queue.put(change.run_id)

    async def _create(self, interval_s: float) -> None:
        while True:
            # Whatever was queued while nobody listened.
            async for run in self._client.runs.list(agent_id=AGENT, status="queued"):
                await self._queue.put(run.id)
            await asyncio.sleep(interval_s * (CALM if self._unheeded >= UNHEEDED else 1))
            if self._busy < AT_ONCE:
                await create_run(self._client)

    async def _work(self) -> None:
        while True:
            run_id = await self._queue.get()
            self._busy += 1
            try:
                self._note(await self._perform(run_id))
            except (Unauthenticated, Forbidden):
                raise
            except ClientError as error:
                self._say(f"run {run_id}: {error}")
            finally:
                self._busy -= 1

    async def _perform(self, run_id: str) -> Outcome | None:
        try:
            run = await self._client.runs.get(run_id)
        except NotFound:
            return None
        return await perform(self._client, run, self._manner) if run.status == "queued" else None

    def _note(self, outcome: Outcome | None) -> None:
        if outcome is not None:
            self._unheeded = 0 if outcome.heeded else self._unheeded + 1
