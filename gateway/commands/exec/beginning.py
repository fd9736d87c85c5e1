"""Taking hold of a run before its command is started."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from uuid import uuid4

from gateway.client import Appended, Client, InvalidState

AGAIN_S = 0.5
MESSAGE_CHARS = 4096


async def begin(client: Client, run_id: str, argv: Sequence[str]) -> Appended:
    """Append the run's first event, the command line; a run that is paused begins once it is resumed.

    Raises:
        InvalidState: the run was ended before it began.
        ClientError: it could not be begun.
    """
    message = f"$ {shlex.join(argv)}"[:MESSAGE_CHARS]
    event = {"type": "log", "data": {"level": "debug", "message": message, "data": {"stream": "exec"}}}
    key = uuid4().hex
    while True:
        try:
            return await client.runs.append(run_id, [event], idempotency_key=key)
        except InvalidState as error:
            if not is_paused(error):
                raise
        await asyncio.sleep(AGAIN_S)


def is_paused(error: Exception) -> bool:
    """Whether something was refused only because the run is paused: it may be tried again."""
    return isinstance(error, InvalidState) and error.facts.get("current_status") == "paused"
