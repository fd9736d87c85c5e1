"""One command, one run: from its start to its terminal event."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

import msgspec

from gateway.client import Appended, Client, ClientError, Fenced, InvalidState, Run
from gateway.client.fields import RunFields
from gateway.commands.exec.beginning import begin
from gateway.commands.exec.child import Child, start_child
from gateway.commands.exec.control import RUN_OVER, follow_control, read_orders, stop_over
from gateway.commands.exec.interrupts import INTERRUPTED, Interrupts
from gateway.commands.exec.journal import Journal
from gateway.commands.exec.outcome import (
    EXIT_RECORDER,
    Ending,
    conclude,
    conclude_broken,
    conclude_unstarted,
    exit_code_of,
)
from gateway.commands.exec.output import Echo, Tap, relay
from gateway.commands.exec.questions import Asker
from gateway.commands.welcome import find_own_command

HEARTBEAT_S = 60
"""After so long without a sign of life the gateway ends the run."""
IDLE_BEAT_S = 20
TITLE_CHARS = 200
SLOW_S = 2.0
CANCEL_S = 5.0


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to run and how to record it. `patience_s` is how long output waits for a gateway that is away."""

    argv: list[str]
    url: str
    agent_id: str = "exec"
    title: str | None = None
    tags: dict[str, str] = {}
    thread_id: str | None = None
    ask: re.Pattern[str] | None = None
    patience_s: float = 3600.0
    quiet: bool = False


async def run_command(client: Client, order: Order, say: Callable[[str], None]) -> int:
    """Run `order.argv` as a run and return the exit code for the shell.

    The run gets its terminal event however the command ends; where this program itself is killed,
    the gateway ends it for want of heartbeats.

    Raises:
        ClientError: the run could not be created; nothing was started.
    """
    interrupts = Interrupts(say)
    work = asyncio.create_task(_create_and_record(client, order, interrupts, say))
    with interrupts.handled(work.cancel):
        await asyncio.wait([work])
    if not work.cancelled():
        return work.result()
    child = interrupts.child
    return EXIT_RECORDER if child is None else exit_code_of(await child.wait())


async def _create_and_record(client: Client, order: Order, interrupts: Interrupts, say: Callable[[str], None]) -> int:
    run = await _create(client, order)
    if not order.quiet:
        say(f"run {run.id} (watch it: {find_own_command()} tail {run.id})")
    begun = await _begin(client, run.id, order)
    recording = Recording(client, run.id, begun.last_seq or 0, order, interrupts, say)
    exit_code = EXIT_RECORDER
    writer = client.runs.writer(run.id, heartbeat_s=IDLE_BEAT_S, repeat_s=order.patience_s)
    # What the run refused has been said by then, and is no reason to hide the command's exit code.
    with suppress(ClientError):
        async with writer as opened:
            exit_code = await recording.run(Journal(opened, recording.lose))
    return exit_code


async def _create(client: Client, order: Order) -> Run:
    command = shlex.join(order.argv)
    fields = RunFields(
        input={"command": order.argv},
        title=order.title or command[:TITLE_CHARS],
        tags=order.tags,
        heartbeat_s=HEARTBEAT_S,
    )
    if order.thread_id is not None:
        fields["thread_id"] = order.thread_id
    return await client.runs.create(order.agent_id, **fields)


async def _begin(client: Client, run_id: str, order: Order) -> Appended:
    try:
        return await begin(client, run_id, order.argv)
    except asyncio.CancelledError:
        # Nothing was started, so nobody would ever end this run.
        with suppress(ClientError, TimeoutError):
            async with asyncio.timeout(CANCEL_S):
                await client.runs.cancel(run_id, reason=INTERRUPTED)
        raise


class Recording:
    """A command under way, and what its run hears of it."""

    def __init__(
        self,
        client: Client,
        run_id: str,
        begun_seq: int,
        order: Order,
        interrupts: Interrupts,
        say: Callable[[str], None],
    ) -> None:
        self._client = client
        self._run_id = run_id
        self._begun_seq = begun_seq
        self._order = order
        self._interrupts = interrupts
        self._say = say
        self._child: Child | None = None

    async def run(self, journal: Journal) -> int:
        """Start the command, see it through, and return the shell's exit code."""
        try:
            child = await start_child(self._order.argv, self._environment())
        except OSError as error:
            ending, exit_code = conclude_unstarted(self._order.argv[0], error)
            self._say(ending.data["error"]["message"])
            await self._end(journal, ending)
            return exit_code
        self._child = self._interrupts.child = child
        try:
            return await self._see_through(journal, child)
        except Exception as error:
            child.kill()
            await self._end(journal, conclude_broken(error))
            raise
        finally:
            child.release()

    def lose(self, error: ClientError) -> None:
        """Go on without the run: it takes no more events."""
        if isinstance(error, InvalidState | Fenced):
            if self._child is not None:
                stop_over(self._child, self._say)
        else:
            self._say(f"no longer recorded: {error}")

    async def _see_through(self, journal: Journal, child: Child) -> int:
        if self._order.ask is None:
            child.close_input()
        async with asyncio.TaskGroup() as tasks:
            orders = read_orders(self._client, self._run_id, after=self._begun_seq)
            control = tasks.create_task(follow_control(orders, child, self._say))
            await self._carry_output(journal, child)
            returncode = await child.wait()
            await child.wait_stopped()
            control.cancel()
        if child.stopped != RUN_OVER:
            ending = conclude(returncode, stopped=child.stopped, duration_ms=child.duration_ms)
            await self._end(journal, ending)
        return exit_code_of(returncode)

    async def _carry_output(self, journal: Journal, child: Child) -> None:
        """Carry both streams until they end, which they do soon after the command."""
        asker = None
        if self._order.ask is not None:
            asker = Asker(self._order.ask, journal, child, partial(self._client.runs.append, self._run_id))
        shown = not self._order.quiet
        async with asyncio.TaskGroup() as streams:
            for name, source, target in (
                ("stdout", child.stdout, sys.stdout.buffer),
                ("stderr", child.stderr, sys.stderr.buffer),
            ):
                echo = Echo(target if shown else None)
                tap = Tap(source, child)
                streams.create_task(relay(tap, name, journal=journal, echo=echo, asker=asker))

    async def _end(self, journal: Journal, ending: Ending) -> None:
        patience = asyncio.get_running_loop().call_later(
            SLOW_S, self._say, "waiting for the gateway to take the rest (Ctrl-C gives up)"
        )
        try:
            await journal.record(ending.type, ending.data)
            await journal.deliver()
        finally:
            patience.cancel()

    def _environment(self) -> Mapping[str, str]:
        # Python would otherwise hold its output back in a pipe until a block of it is full.
        return {
            "PYTHONUNBUFFERED": "1",
            **os.environ,
            "GATEWAY_RUN_ID": self._run_id,
            "GATEWAY_URL": self._order.url,
        }
