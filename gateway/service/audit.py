"""Who did what to what, a log line each, by the logger `gateway.audit`; of runs their own logs say it for good."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import update_wrapper
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from gateway.errors import GatewayError
from gateway.service.actors import Caller

S = TypeVar("S")
P = ParamSpec("P")
R = TypeVar("R")
Deed = Callable[Concatenate[S, Caller, str, P], Coroutine[Any, Any, R]]

_log: Final = logging.getLogger("gateway.audit")


@contextmanager
def audited(caller: Caller, action: str, subject: str) -> Iterator[None]:
    """Tell of one action once it is done or refused: `done`, or the code of the refusal.

    Args:
        action: `cancel`, `restart`, `create_key` …
        subject: The id of what it is done to.
    """
    outcome = "internal"
    try:
        yield
        outcome = "done"
    except GatewayError as error:
        outcome = error.code
        raise
    finally:
        grant = caller.grant
        facts = {
            "action": action,
            "subject": subject,
            "outcome": outcome,
            "tenant": grant.tenant,
            "actor": caller.actor.id,
            "key_id": grant.key_id,
            "triggered_by": caller.triggered_by,
        }
        told = {name: fact for name, fact in facts.items() if fact is not None}
        _log.info("%s %s: %s", action, subject, outcome, extra=told)


def audits(action: str) -> Callable[[Deed[S, P, R]], Deed[S, P, R]]:
    """Tell of every call of a method that takes a caller and the id of what it acts on; see `audited`."""

    def wrap(deed: Deed[S, P, R]) -> Deed[S, P, R]:
        async def told(self: S, caller: Caller, subject: str, /, *args: P.args, **kwargs: P.kwargs) -> R:
            with audited(caller, action, subject):
                return await deed(self, caller, subject, *args, **kwargs)

        update_wrapper(told, deed)
        return told

    return wrap
