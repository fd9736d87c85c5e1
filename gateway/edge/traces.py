"""The trace that a request belongs to, as W3C Trace Context tells it: https://www.w3.org/TR/trace-context/."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from starlette.types import Scope

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE: Final = "0" * 32
_NO_SPAN: Final = "0" * 16


class Trace(NamedTuple):
    """Where a request stands in its trace: hexadecimal ids, and whether the trace is kept."""

    trace_id: str
    span_id: str
    flags: str

    @property
    def is_kept(self) -> bool:
        """Whether its sender keeps it."""
        return bool(int(self.flags, 16) & 1)

    def __str__(self) -> str:
        """Return it as a `traceparent` header."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


def parse_trace(header: str) -> Trace | None:
    """Return what a `traceparent` says; None when it is not one, which by its rules is no error."""
    found = _TRACEPARENT.fullmatch(header.strip())
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5]):
        return None
    if found[2] == _NO_TRACE or found[3] == _NO_SPAN:
        return None
    return Trace(found[2], found[3], found[4])


def trace_of(scope: Scope) -> Trace | None:
    """Return the trace of a request, None when it told none."""
    trace: Trace | None = scope.get("state", {}).get("trace")
    return trace
