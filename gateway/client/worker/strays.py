"""Runs of agents that this worker does not know: given back, the more seldom the more often they come."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable

from gateway.client.client import Client
from gateway.client.errors import ClientError
from gateway.client.models import Claim

logger = logging.getLogger(__name__)

FIRST_S = 0.5
LONGEST_S = 10.0
HELD = 100
REMEMBERED = 10_000


class Strays:
    """Gives back what is not for this worker.

    A run that comes for the first time goes back at once: another worker may know it. If it comes again, it is held
    for a while first, so that a run that nobody knows does not go round and round.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._seen: OrderedDict[str, int] = OrderedDict()
        self._held: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Whether so many are held that no more should be claimed."""
        return len(self._held) >= HELD

    def give_back(self, claim: Claim, on_done: Callable[[], None]) -> None:
        """Give a run back in its time; `on_done` is called then."""
        task = asyncio.create_task(self._give_back(claim))
        self._held.add(task)

        def done(ended: asyncio.Task[None]) -> None:
            self._held.discard(ended)
            on_done()

        task.add_done_callback(done)

    async def _give_back(self, claim: Claim) -> None:
        times = self._seen.pop(claim.run.id, 0)
        self._seen[claim.run.id] = times + 1
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        if times == 0:
            logger.warning("run %s is of the agent %s, which is not here", claim.run.id, claim.run.agent_id)
        else:
            wait_s = min(FIRST_S * 2.0 ** min(times - 1, 10), LONGEST_S, claim.lease.lease_s / 2)
            try:
                async with asyncio.timeout(wait_s):
                    await self._closing.wait()
            except TimeoutError:
                pass
        await self.release(claim, f"the agent {claim.run.agent_id} is not known here")

    async def release(self, claim: Claim, reason: str) -> None:
        """Give a run back now; where that fails, its lease ends by itself."""
        try:
            await self._client.work.release(claim.run.id, claim.lease.token, reason=reason)
        except ClientError as error:
            logger.warning("run %s could not be given back: %s", claim.run.id, error)

    async def close(self) -> None:
        """Give back at once what is still held."""
        self._closing.set()
        if self._held:
            await asyncio.wait(self._held)
