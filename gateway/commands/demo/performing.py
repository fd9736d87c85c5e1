"""One demo run from the first append to the last, as its log and those who steer it would have it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec

from gateway.client import Appended, Client, ClientError, Conflict, InvalidState, Run, Writer
from gateway.commands.demo.orders import CancelAsked, Orders, RunOver
from gateway.commands.demo.recorder import Recorder
from gateway.commands.demo.research import CannotResearch, Desk, research

BEAT_S = 20.0
STOP_S = 2.0
AGAIN_S = 0.25


class Manner(msgspec.Struct, frozen=True):
    """How runs are performed: where reports go, how long approval may take, how fast actions follow."""

    reports: Path
    approval_s: float
    pace_s: float


class Outcome(msgspec.Struct, frozen=True):
    """How a run ended, and whether anybody had steered it or answered."""

    status: str
    heeded: bool


async def perform(client: Client, run: Run, manner: Manner) -> Outcome | None:
    """Perform a queued run to its end; None where another agent took it, or it is queued no more.

    Raises:
        ClientError: the run could not be written or followed any more.
    """
    begun = await _take_hold(client, run)
    if begun is None:
        return None
    orders = Orders()
    status = "over"
    try:
        async with client.runs.writer(run.id, heartbeat_s=BEAT_S, attempt=run.attempt) as writer:
            ending, data = await _see_through(client, run, writer, orders, begun, manner)
            await writer.append(ending, data)
            status = ending.removeprefix("run.")
    except (RunOver, Conflict):
        # Ended elsewhere, or begun again: its log is no longer ours to write.
        pass
    return Outcome(status, orders.heeded)


async def _take_hold(client: Client, run: Run) -> Appended | None:
    """Start a run by its first append, which only one agent can make."""
    event = {"type": "log", "data": {"level": "info", "message": "The demo agent takes this run."}}
    try:
        return await client.runs.append(run.id, [event], expected_seq=run.head_seq, attempt=run.attempt)
    except Conflict:
        return None


async def _see_through(
    client: Client, run: Run, writer: Writer, orders: Orders, begun: Appended, manner: Manner
) -> tuple[str, dict[str, Any]]:
    """Do the work under its orders and return the event that ends the run."""
    recorder = Recorder(writer, orders, pace_s=manner.pace_s)

    async def ask(question: dict[str, Any]) -> dict[str, Any]:
        return await _ask(client, run, recorder, orders, question)

    desk = Desk(run.id, recorder, ask, manner.reports, manner.approval_s)
    work = asyncio.create_task(research(desk, run.input))
    control = asyncio.create_task(orders.follow(client, run.id, after=begun.last_seq or 0))
    try:
        await asyncio.wait([work, control], return_when=asyncio.FIRST_COMPLETED)
        return _conclude(work if work.done() else control)
    except CancelAsked as cancel:
        return "run.cancelled", {"reason": str(cancel)}
    except asyncio.CancelledError:
        await _give_up(writer, work)
        raise
    finally:
        for task in (work, control):
            task.cancel()
        await asyncio.wait([work, control])


def _conclude(done: asyncio.Task[Any]) -> tuple[str, dict[str, Any]]:
    try:
        return "run.completed", {"output": done.result()}
    except CannotResearch as error:
        return "run.failed", {"error": {"code": error.code, "message": str(error)}}
    except (CancelAsked, RunOver, ClientError):
        raise
    except Exception as error:
        return "run.failed", {"error": {"code": "demo_error", "message": f"{type(error).__name__}: {error}"}}


async def _give_up(writer: Writer, work: asyncio.Task[Any]) -> None:
    """Say that this agent stops, if the gateway still listens."""
    work.cancel()
    await asyncio.wait([work])
    try:
        async with asyncio.timeout(STOP_S):
            await writer.append("run.cancelled", {"reason": "the demo agent was stopped"})
            await writer.flush()
    except (ClientError, TimeoutError):
        pass


async def _ask(
    client: Client, run: Run, recorder: Recorder, orders: Orders, question: dict[str, Any]
) -> dict[str, Any]:
    # Not by way of the writer: a question is refused while the run is paused, and that is no end.
    event = {"type": "run.waiting_for_input", "data": question}
    key = uuid4().hex
    while True:
        await recorder.wait_turn()
        await recorder.flush()
        try:
            await client.runs.append(run.id, [event], attempt=run.attempt, idempotency_key=key)
        except InvalidState as error:
            if error.facts.get("current_status") != "paused":
                raise
            await asyncio.sleep(AGAIN_S)
        else:
            return await orders.answer(question["request_id"])
