"""How a handler ended, in events."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from gateway.client.writer import EVENT_BYTES

Ending = tuple[str, dict[str, Any]]
"""The type and the data of the event that ends an attempt."""

MESSAGE_CHARS = 4_000
TRACE_CHARS = 16_000
CODE_CHARS = 256


class Fatal(Exception):
    """A failure that another attempt would meet as well: the run fails, whatever retries are left.

    Any exception with an attribute `retry = False` does the same.
    """

    retry = False

    def __init__(self, message: str, *, code: str = "fatal") -> None:
        super().__init__(message)
        self.code = code


class NotAwaited(Fatal):
    """The handler called the run without `await`: nothing came of it."""

    def __init__(self, names: Iterable[str]) -> None:
        told = ", ".join(f"run.{name}()" for name in names)
        super().__init__(f"{told} was called without await: nothing came of it.", code="not_awaited")


def completed(output: Any) -> Ending:
    """Return the end of a handler that returned `output`, which fails the run if it cannot be told."""
    data = {"output": output}
    try:
        size = len(msgspec.json.encode(data))
    except (TypeError, ValueError, RecursionError) as error:
        return failed(Fatal(f"The handler returned what JSON cannot say: {error}", code="invalid_output"))
    if size > EVENT_BYTES:
        told = f"The handler returned {size} bytes of JSON; at most {EVENT_BYTES} are allowed."
        return failed(Fatal(told, code="output_too_large"))
    return "run.completed", data


def failed(error: BaseException) -> Ending:
    """Return the end of a handler that raised `error`."""
    trace = "".join(traceback.format_exception(error))
    fault = {**fault_of(error), "details": {"traceback": trace[-TRACE_CHARS:]}}
    return "run.failed", {"error": fault} if _may_retry(error) else {"error": fault, "retry": False}


def fault_of(error: BaseException) -> dict[str, Any]:
    """Return what went wrong: the error's own `code` where it has one, else its class; of a group what is in it."""
    first, *others = _leaves(error)
    if others:
        told = "; ".join(f"{type(leaf).__name__}: {leaf}" for leaf in (first, *others))
        return {"code": type(error).__name__, "message": f"{error}: {told}"[:MESSAGE_CHARS]}
    if isinstance(first, asyncio.CancelledError):
        return {"code": "cancelled", "message": str(first) or "It was cancelled."}
    if isinstance(first, SystemExit):
        return {"code": "SystemExit", "message": f"The handler called sys.exit({first.code!r})."[:MESSAGE_CHARS]}
    code = getattr(first, "code", None)
    name = type(first).__name__
    return {
        "code": code if isinstance(code, str) and 0 < len(code) <= CODE_CHARS else name,
        "message": (str(first) or name)[:MESSAGE_CHARS],
    }


def _may_retry(error: BaseException) -> bool:
    return all(getattr(leaf, "retry", True) is not False for leaf in _leaves(error))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors of a group, also of groups within it; an error that is none is alone."""
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    for inner in error.exceptions:
        yield from _leaves(inner)
