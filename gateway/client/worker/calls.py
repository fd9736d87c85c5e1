"""Calls of a run that nobody awaits: Python only warns of them, and they must not pass for calls that were made."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from gateway.client.worker.session import Session


class _Held(Protocol):
    _session: Session


H = TypeVar("H", bound=_Held)
P = ParamSpec("P")
R = TypeVar("R")
Method = Callable[Concatenate[H, P], Coroutine[Any, Any, R]]


def awaited(method: Method[H, P, R]) -> Method[H, P, R]:
    """Have it known when a call of `method` is not awaited, at the latest when the handler returns."""
    name = method.__name__

    async def begin(held: H, args: Any, kwargs: Any) -> R:
        held._session.unbegun[name] -= 1
        return await method(held, *args, **kwargs)

    # Python's own warning then names the call.
    begin.__qualname__ = method.__qualname__

    @functools.wraps(method)
    def call(held: H, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        held._session.unbegun[name] += 1
        return begin(held, args, kwargs)

    return call
