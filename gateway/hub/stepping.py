"""Coroutines that are stepped outside of a task, and finished inside of one where they wait for something."""

from __future__ import annotations

import types
from collections.abc import Generator
from typing import Any


@types.coroutine
def resume(coro: Any, waits_for: Any) -> Generator[Any, Any, None]:
    """Finish, inside a task, a coroutine that was stepped once outside of one and waits for `waits_for`."""
    while True:
        try:
            value = yield waits_for
        except BaseException as error:
            step, argument = coro.throw, error
        else:
            step, argument = coro.send, value
        try:
            waits_for = step(argument)
        except StopIteration:
            return
