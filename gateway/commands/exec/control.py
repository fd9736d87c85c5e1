"""What others ask of the run, done to the command."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from gateway.client import Client, ClientError, Event, StreamItem
from gateway.commands.exec.child import Child
from gateway.commands.exec.outcome import GRACE_S, grace_s
from gateway.commands.exec.questions import answer_text

CONTROL_TYPES = (
    "run.cancel_requested",
    "run.paused",
    "run.resumed",
    "run.input_received",
    "run.restarted",
)
RUN_OVER = "the run was ended elsewhere"


def read_orders(client: Client, run_id: str, *, after: int) -> AsyncGenerator[StreamItem, None]:
    """Return what others ask of the run, live, for as long as it goes on."""
    # Without a bound: while the command runs, whoever wants to stop it may come back.
    return client.runs.events(run_id, after=after, types=CONTROL_TYPES, patience_s=None)


async def follow_control(orders: AsyncGenerator[StreamItem, None], child: Child, say: Callable[[str], None]) -> None:
    """Act on the run's own log until the run has ended, and then stop a command that has not.

    A log that cannot be followed any more is said; the command goes on without control.
    """
    try:
        async with aclosing(orders):
            async for item in orders:
                if isinstance(item, Event):
                    obey(item, child, say)
    except ClientError as error:
        say(f"the run can no longer be steered: {error}")
    else:
        stop_over(child, say)


def stop_over(child: Child, say: Callable[[str], None]) -> None:
    """Stop a command whose run is over, or goes on in another attempt."""
    if child.stopped is None and not child.exited:
        say("the run was ended elsewhere; stopping the command")
        child.stop(RUN_OVER, grace_s=GRACE_S)


def obey(event: Event, child: Child, say: Callable[[str], None]) -> None:
    """Do to the command what one event of its run asks for."""
    match event.type:
        case "run.cancel_requested":
            child.stop(_reason(event), grace_s=grace_s(event))
        case "run.paused":
            child.pause()
        case "run.resumed":
            child.resume()
        case "run.input_received":
            child.type(answer_text(event.data.get("content")))
        case "run.restarted":
            stop_over(child, say)


def _reason(event: Event) -> str:
    reason = event.data.get("reason")
    return reason if isinstance(reason, str) and reason else "cancel requested"
