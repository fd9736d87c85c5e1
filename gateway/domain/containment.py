"""Whether one JSON value contains another, in a bounded number of steps."""

from __future__ import annotations

from typing import Any, Final

from gateway.errors import BadRequest

STEPS: Final = 200_000
LIST_ELEMENTS: Final = 32


class OutOfSteps(Exception):
    """The steps were spent before the answer was found."""


class Containment:
    """Asks of many values whether they contain `part`, within `steps` comparisons for all of them together.

    Objects contain by key, lists by some element, the rest by being equal and of one JSON type: 1 is 1.0, not true.

    Raises:
        BadRequest: a list of `part` has more elements than may be looked for.
    """

    def __init__(self, part: Any, *, steps: int = STEPS) -> None:
        _check(part)
        self._part = part
        self._left = steps

    def holds(self, value: Any) -> bool:
        """Return whether `value` contains the part.

        Raises:
            OutOfSteps: it cannot be told any more.
        """
        return self._contains(value, self._part)

    def _contains(self, value: Any, part: Any) -> bool:
        self._left -= 1
        if self._left < 0:
            raise OutOfSteps
        if isinstance(part, dict):
            return isinstance(value, dict) and all(k in value and self._contains(value[k], v) for k, v in part.items())
        if isinstance(part, list):
            return isinstance(value, list) and all(any(self._contains(v, p) for v in value) for p in part)
        return _kind(value) is _kind(part) and bool(value == part)


def _kind(value: Any) -> type:
    """Return what tells JSON's types apart: it has one kind of number, however that is written."""
    return float if type(value) is int else type(value)


def _check(part: Any) -> None:
    waiting = [part]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list) and len(item) > LIST_ELEMENTS:
            raise BadRequest(
                f"payload: a list has {len(item)} elements; at most {LIST_ELEMENTS} are looked for.",
                parameter="payload",
            )
        waiting += item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
