"""A process that claims runs and executes them."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from uuid import uuid4

from gateway.client.client import Client
from gateway.client.errors import ClientError, ConnectionLost, Forbidden, Unavailable
from gateway.client.models import Claim
from gateway.client.worker.agent import Agent
from gateway.client.worker.performing import Engagement
from gateway.client.worker.strays import Strays

logger = logging.getLogger(__name__)

CONCURRENCY = 10
MOST_RUNS = 450
"""Each has a stream of its own, and now and then a call: less than half of what a client may open at once."""
CLAIM_WAIT_S = 20.0
CLAIM_MOST = 100
DRAIN_S = 30.0
STOP_S = 15.0
"""What handlers may take to stop, and the gateway to hear of it, once the drain is over."""


class Worker:
    """Claims runs of its agents for as long as it has room, and executes them.

        Worker(Client.from_environment(), [agent]).main()

    The key needs the scopes `work` and `runs:read`; with `admin` the agents are registered as they say.
    Runs of other agents in the same queues are given back, for a worker that knows them; each the more seldom the
    more often it comes.

    Args:
        concurrency: how many runs are executed at once; more than `MOST_RUNS` take another process.
        queues: where it claims, in this order; else the queues of its agents.
        name: who it is, for people; else its machine and process.
        drain_s: how long running handlers may take to end once it stops; then their runs are given back.
    """

    def __init__(
        self,
        client: Client,
        agents: Iterable[Agent],
        *,
        concurrency: int = CONCURRENCY,
        queues: Sequence[str] | None = None,
        name: str | None = None,
        drain_s: float = DRAIN_S,
    ) -> None:
        if not 1 <= concurrency <= MOST_RUNS:
            raise ValueError(f"a worker executes from 1 to {MOST_RUNS} runs at once, not {concurrency}")
        self._client = client
        self._agents = _by_name(agents)
        self._concurrency = concurrency
        self._queues = None if queues is None else list(queues)
        self._drain_s = drain_s
        self.name = name or f"{socket.gethostname()}:{os.getpid()}"[:128]
        self.ready = asyncio.Event()
        """Set once its agents are registered: runs that are created from then on have their policy."""
        self._running: dict[asyncio.Task[None], Engagement] = {}
        self._stopping = asyncio.Event()
        self._room = asyncio.Event()
        self._strays = Strays(client)

    @property
    def running(self) -> int:
        """How many runs it executes now."""
        return len(self._running)

    def main(self) -> None:
        """Run until SIGTERM or SIGINT; the second of them ends the process at once.

        Raises:
            ApiError: the gateway refuses this worker.
        """
        asyncio.run(self._run_until_signalled())

    async def _run_until_signalled(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._heed, number)
        async with self._client:
            await self.run()

    def _heed(self, number: signal.Signals) -> None:
        if self._stopping.is_set():
            os._exit(128 + number)
        logger.info("stopping on %s", number.name)
        self.stop()

    def stop(self) -> None:
        """Claim nothing more, let what runs end within the drain's time, and return from `run`."""
        self._stopping.set()
        self._room.set()

    async def run(self) -> None:
        """Claim and execute until `stop`; cancelled, it gives back at once what it holds.

        Raises:
            ApiError: the gateway refuses this worker: its key, or an agent's policy.
        """
        drain_s = 0.0
        try:
            queues = await self._prepare()
            if queues is not None:
                self.ready.set()
                logger.info("worker %s claims from %s", self.name, ", ".join(queues))
                await self._claim_until_stopped(queues)
            drain_s = self._drain_s
        finally:
            await self._drain(drain_s)

    async def _prepare(self) -> list[str] | None:
        """Register the agents and return the queues; None when the worker is stopped before the gateway is there."""
        failures = 0
        while not self._stopping.is_set():
            try:
                # Asked first, so that a key that may not read is refused here and not run by run.
                known = {agent.id: agent.queue async for agent in self._client.agents.list()}
                for agent in self._agents.values():
                    known[agent.name] = agent.queue or known.get(agent.name, "default")
                    await self._register(agent)
            except (ConnectionLost, Unavailable) as error:
                failures = await self._rest(failures, error)
            else:
                mine = [known[name] for name in self._agents]
                return list(dict.fromkeys(self._queues if self._queues is not None else mine))
        return None

    async def _register(self, agent: Agent) -> None:
        if not agent.policy:
            return
        try:
            await self._client.agents.put(agent.name, **agent.policy)
        except Forbidden:
            logger.warning("the key may not register the agent %s; its policy stays as it is", agent.name)

    async def _claim_until_stopped(self, queues: Sequence[str]) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while not self._stopping.is_set():
            room = min(self._concurrency - len(self._running), CLAIM_MOST)
            if room <= 0 or self._strays.is_full:
                self._room.clear()
                await self._room.wait()
                continue
            began_s = loop.time()
            try:
                claims = await self._claim(queues, room)
            except (ConnectionLost, Unavailable) as error:
                failures = await self._rest(failures, error)
                continue
            for claim in claims:
                self._take(claim)
            if claims or loop.time() - began_s > CLAIM_WAIT_S / 2:
                failures = 0
            else:
                # Answered with nothing before its time: the gateway is about to stop.
                failures = await self._rest(failures)

    async def _claim(self, queues: Sequence[str], room: int) -> list[Claim]:
        """Return what is next; when the worker is stopped meanwhile, give back what was on its way."""
        key = uuid4().hex

        async def ask(wait_s: float) -> list[Claim]:
            return await self._client.work.claim(queues, max=room, wait_s=wait_s, worker=self.name, idempotency_key=key)

        asking = asyncio.create_task(ask(CLAIM_WAIT_S))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({asking, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                return asking.result()
        finally:
            stopping.cancel()
            asking.cancel()
            await asyncio.wait([asking, stopping])
        # An answer that was lost with its connection is given again under its key.
        with suppress(ClientError, TimeoutError):
            async with asyncio.timeout(STOP_S):
                for claim in await ask(0):
                    await self._strays.release(claim, "the worker stops")
        return []

    def _take(self, claim: Claim) -> None:
        agent = self._agents.get(claim.run.agent_id)
        if agent is None:
            self._strays.give_back(claim, self._room.set)
            return
        engagement = Engagement(self._client, agent, claim)
        task = asyncio.create_task(engagement.perform(), name=f"run {claim.run.id}")
        self._running[task] = engagement
        task.add_done_callback(self._note_end)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._room.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s ended in a fault of the worker", task.get_name(), exc_info=error)

    async def _rest(self, failures: int, error: ClientError | None = None) -> int:
        if error is not None:
            logger.warning("the gateway is away: %s", error)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._client.backoff.delay_s(failures)):
                await self._stopping.wait()
        return failures + 1

    async def _drain(self, drain_s: float) -> None:
        """Wait for the running handlers, then stop them and give their runs back."""
        await self._strays.close()
        if self._running:
            await asyncio.wait(self._running, timeout=drain_s)
        for engagement in self._running.values():
            engagement.let_go()
        if self._running:
            await asyncio.wait(self._running, timeout=STOP_S)
        for task in list(self._running):
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)


def _by_name(agents: Iterable[Agent]) -> dict[str, Agent]:
    found: dict[str, Agent] = {}
    for agent in agents:
        if agent.name in found:
            raise ValueError(f"two agents are named {agent.name}")
        agent.handler  # noqa: B018 - it says what is missing, before any run is claimed
        found[agent.name] = agent
    if not found:
        raise ValueError("a worker needs an agent")
    return found
