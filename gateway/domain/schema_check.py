"""Whether a value fits a vetted JSON Schema: jsonschema's rules, under a budget of steps, with linear patterns.

A step is a keyword, a member or an element looked at. jsonschema itself has no bounds: references can double at every
level, and Python's regular expressions can backtrack for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from fractions import Fraction
from typing import Any, Final

import jsonschema
import msgspec
import referencing
from jsonschema.exceptions import ValidationError

from gateway.domain.patterns import search, search_cost

STEPS: Final = 20_000
INSTRUCTIONS: Final = 128
"""Instructions of a pattern's search that take about as long as a step."""
REFERENCE_STEPS: Final = 10

Rule = Callable[[Any, Any, Any, Any], Iterator[ValidationError]]

DEPTH: Final = 100
"""Rules within rules; well before Python's own limit, which the library's parts do not all take well."""

_steps_left: ContextVar[list[int]] = ContextVar("steps_left")
_depth: ContextVar[list[int]] = ContextVar("depth")


class Misfit(msgspec.Struct, frozen=True):
    """What of a value does not fit: `.a[2]` and why."""

    path: str
    problem: str


class TooManySteps(Exception):
    """Checking takes too long, goes too deep, or numbers are too large for it."""


def find_misfit(schema: Any, value: Any, *, steps: int = STEPS) -> Misfit | None:
    """Return the first thing of `value` that does not fit a schema that `vet_schema` let pass; None where all does.

    Raises:
        TooManySteps: it cannot be told within the steps.
    """
    steps_token, depth_token = _steps_left.set([steps]), _depth.set([0])
    # An explicit registry: the default one would fetch what lies elsewhere.
    registry: referencing.Registry[Any] = referencing.Registry()
    try:
        error = next(_Validator(schema, registry=registry).iter_errors(value), None)
    except (RecursionError, ArithmeticError):
        raise TooManySteps from None
    finally:
        _steps_left.reset(steps_token)
        _depth.reset(depth_token)
    if error is None:
        return None
    steps_there = (f"[{part}]" if isinstance(part, int) else f".{str(part)[:100]}" for part in error.absolute_path)
    return Misfit("".join(steps_there)[-200:], error.message[:300])


def _spend(steps: int) -> None:
    left = _steps_left.get()
    left[0] -= steps
    if left[0] < 0:
        raise TooManySteps


def _size(value: Any) -> int:
    return len(value) if isinstance(value, list | dict) else 0


def _counted(keyword: str, rule: Rule) -> Rule:
    """Return the rule of a keyword that takes account of what it is about to look at."""
    fixed = REFERENCE_STEPS if keyword == "$ref" else 1

    def run(validator: Any, ruled: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
        _spend(fixed + _size(ruled) + _size(value))
        depth = _depth.get()
        if depth[0] >= DEPTH:
            raise TooManySteps
        depth[0] += 1
        try:
            yield from rule(validator, ruled, value, schema) or ()
        finally:
            depth[0] -= 1

    return run


def _matches(pattern: str, text: str) -> bool:
    _spend(1 + search_cost(pattern, text) // INSTRUCTIONS)
    return search(pattern, text)


def _pattern(validator: Any, pattern: str, value: Any, schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(value, "string") and not _matches(pattern, value):
        yield ValidationError(f"does not match {pattern[:100]!r}")


def _pattern_properties(validator: Any, parts: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(value, "object"):
        for pattern, part in parts.items():
            for name, member in value.items():
                if _matches(pattern, name):
                    yield from validator.descend(member, part, path=name, schema_path=pattern)


def _additional_properties(validator: Any, part: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(value, "object"):
        named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        for name, member in value.items():
            if name not in named and not any(_matches(pattern, name) for pattern in patterns):
                yield from validator.descend(member, part, path=name)


def _multiple_of(validator: Any, unit: float, value: Any, schema: Any) -> Iterator[ValidationError]:
    # As decimals, as they were written: 0.3 is a multiple of 0.1, and no number is too large.
    if validator.is_type(value, "number") and Fraction(repr(value)) % Fraction(repr(unit)):
        yield ValidationError(f"is not a multiple of {unit}")


def _unique_items(validator: Any, wanted: bool, value: Any, schema: Any) -> Iterator[ValidationError]:
    if wanted and validator.is_type(value, "array"):
        texts = {msgspec.json.encode(_as_compared(item), order="deterministic") for item in value}
        if len(texts) != len(value):
            yield ValidationError("its elements differ not all from one another")


def _as_compared(value: Any) -> Any:
    """Return a value whose text is equal where the values are: 1 and 1.0 are, 1 and true are not."""
    _spend(1)
    if isinstance(value, dict):
        return {name: _as_compared(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_as_compared(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


_OWN: Final[dict[str, Rule]] = {
    "pattern": _pattern,
    "multipleOf": _multiple_of,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "uniqueItems": _unique_items,
}
_Validator: Final = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator,
    {
        keyword: _counted(keyword, rule)
        for keyword, rule in {**jsonschema.Draft202012Validator.VALIDATORS, **_OWN}.items()
    },
)
