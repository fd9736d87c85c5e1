"""One claimed run from its start to whatever ends it here."""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import Any

from gateway.client.client import Client
from gateway.client.errors import ClientError, Conflict, Fenced, InvalidState
from gateway.client.models import Claim
from gateway.client.worker.agent import Agent
from gateway.client.worker.outcome import Ending, NotAwaited, completed, failed, fault_of
from gateway.client.worker.run import Run
from gateway.client.worker.session import Session, Stop
from gateway.client.worker.threads import SyncRun, run_in_thread
from gateway.client.writer import Writer

logger = logging.getLogger(__name__)

BEATS = 3
"""Signs of life within the time of a lease: two may be lost."""


class Engagement:
    """A claimed run and the agent that executes it."""

    def __init__(self, client: Client, agent: Agent, claim: Claim) -> None:
        self._client = client
        self._agent = agent
        self._claim = claim
        self._session: Session | None = None
        self._is_let_go = False

    def let_go(self) -> None:
        """Stop the handler and give the run back."""
        self._is_let_go = True
        if self._session is not None:
            self._session.stop(Stop.LET_GO, why="the worker stops")

    async def perform(self) -> None:
        """Execute the run; returns when it is this worker's no more, whatever happened."""
        run_id, lease = self._claim.run.id, self._claim.lease
        try:
            await self._client.work.heartbeat(run_id, lease.token, attempt=lease.attempt, start=True)
            async with self._client.runs.writer(
                run_id,
                lease=lease.token,
                attempt=lease.attempt,
                heartbeat_s=lease.lease_s / BEATS,
                repeat_s=None,
                on_pending=lambda pending: self._session.hear(pending) if self._session else None,
            ) as writer:
                session = self._session = Session(self._client, self._claim, writer)
                if self._is_let_go:
                    self.let_go()
                await self._see_through(session, writer)
        except ClientError as error:
            # Its lease is over, or ends by itself: somebody else goes on.
            logger.warning("run %s was lost: %s", run_id, error)

    async def _see_through(self, session: Session, writer: Writer) -> None:
        async with asyncio.TaskGroup() as group:
            control = [group.create_task(watch) for watch in (session.follow(), session.watch(), session.expire())]
            # Not of the group: one that does not stop would hold the others up.
            handler = session.handler = asyncio.create_task(self._execute(session))
            if session.stopped is not None:
                handler.cancel()
            try:
                await _attend(session, handler)
                session.is_ending = True
                await self._conclude(session, writer, handler)
            finally:
                session.is_over = True
                handler.cancel()
                for task in control:
                    task.cancel()

    async def _execute(self, session: Session) -> Ending:
        try:
            output = await self._call_handler(session)
        except (Exception, SystemExit) as error:
            # sys.exit() in a handler, as of a parser of arguments, is its end and not the worker's.
            ending = failed(error)
            logger.info("run %s failed in its handler", session.claim.run.id, exc_info=error)
        else:
            ending = completed(output)
        # A run that is paused does not end, either.
        await session.gate.wait()
        return ending

    async def _call_handler(self, session: Session) -> Any:
        run = Run(session)
        if self._agent.is_async:
            output = await self._agent.handler(run)
            # What was begun as a task just now begins first.
            await asyncio.sleep(0)
            if forgotten := +session.unbegun:
                raise NotAwaited(forgotten)
            return output
        return await run_in_thread(functools.partial(self._agent.handler, SyncRun(run, session)), session)

    async def _conclude(self, session: Session, writer: Writer, handler: asyncio.Task[Ending]) -> None:
        """Tell the gateway what became of the run."""
        claim, why = session.claim, session.why
        match session.stopped:
            case None:
                await self._end(writer, _ending_of(handler))
            case Stop.CANCELLED:
                why = await session.explain_cancel()
                await self._end(writer, ("run.cancelled", {} if why is None else {"reason": why}))
            case Stop.LET_GO:
                writer.abandon()
                lease = claim.lease
                await self._client.work.release(claim.run.id, lease.token, attempt=lease.attempt, reason=why)
            case Stop.REFUSED:
                writer.abandon()
                await self._fail(fault_of(writer.failure or RuntimeError(why)))
            case Stop.SUSPENDED | Stop.LOST:
                writer.abandon()
                logger.info("run %s is not this worker's any more: %s", claim.run.id, why or session.stopped.name)

    async def _end(self, writer: Writer, ending: Ending) -> None:
        try:
            await writer.append(*ending)
            await writer.flush()
        except (Fenced, InvalidState):
            writer.abandon()
            raise
        except ClientError as error:
            # What the handler wrote before was refused, and with it its end.
            writer.abandon()
            await self._fail(fault_of(error))

    async def _fail(self, fault: dict[str, Any]) -> None:
        lease = self._claim.lease
        event = {"type": "run.failed", "data": {"error": fault}}
        try:
            await self._client.runs.append(self._claim.run.id, [event], lease=lease.token, attempt=lease.attempt)
        except Conflict as error:
            logger.info("run %s could not be failed: %s", self._claim.run.id, error)


async def _attend(session: Session, handler: asyncio.Task[Ending]) -> None:
    """Wait until the handler has ended, or the time for its clean-up has."""
    loop = asyncio.get_running_loop()
    while not handler.done():
        left_s = None if session.deadline_s is None else session.deadline_s - loop.time()
        if left_s is not None and left_s <= 0:
            logger.error("the handler of run %s does not stop; it is left behind", session.claim.run.id)
            handler.add_done_callback(_note_late)
            return
        session.turned.clear()
        turn = asyncio.create_task(session.turned.wait())
        await asyncio.wait({handler, turn}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        turn.cancel()


def _note_late(handler: asyncio.Task[Ending]) -> None:
    if not handler.cancelled() and handler.exception() is not None:
        logger.error("a handler that was left behind failed", exc_info=handler.exception())


def _ending_of(handler: asyncio.Task[Ending]) -> Ending:
    if handler.cancelled():
        return failed(asyncio.CancelledError("The handler cancelled itself."))
    return handler.result()
