"""How a handler ended, in events."""

from __future__ import annotations

import asyncio
import traceback
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
    """Return what went wrong: the error's own `code` where it has one, else its class."""
    if isinstance(error, asyncio.CancelledError):
        return {"code": "cancelled", "message": str(error) or "It was cancelled."}
    code = getattr(error, "code", None)
    name = type(error).__name__
    return {
        "code": code if isinstance(code, str) and 0 < len(code) <= CODE_CHARS else name,
        "message": (str(error) or name)[:MESSAGE_CHARS],
    }


def _may_retry(error: BaseException) -> bool:
    return getattr(error, "retry", True) is not False
