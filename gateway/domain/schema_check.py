"""Whether a value fits a vetted JSON Schema, in a bounded number of steps.

A step is a keyword, a member or an element looked at; it takes a microsecond or two.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from fractions import Fraction
from typing import Any, Final

import msgspec

from gateway.domain.patterns import search, search_cost
from gateway.domain.schemas import find_referred

STEPS: Final = 20_000
DEPTH: Final = 100
INSTRUCTIONS: Final = 128
"""Instructions of a pattern's search that take about as long as a step."""


_PLAIN: Final = 2**53


class Misfit(msgspec.Struct, frozen=True):
    """What of a value does not fit: `.a[2]` and why."""

    path: str
    problem: str


class TooManySteps(Exception):
    """Checking takes too long, or goes too deep."""


class Check:
    """Checks values by one schema that `vet_schema` let pass, all of them together in `steps`."""

    def __init__(self, schema: Any, *, steps: int = STEPS) -> None:
        self._root = schema
        self._steps = steps
        self._depth = 0
        self._referred: dict[str, Any] = {}
        self._enumerated: dict[int, frozenset[Hashable]] = {}

    def find_misfit(self, value: Any) -> Misfit | None:
        """Return the first thing that does not fit, None where all does.

        Raises:
            TooManySteps: it cannot be told within the steps.
        """
        try:
            return self.apply(self._root, value, "")
        except RecursionError:
            raise TooManySteps from None

    def spend(self, steps: int) -> None:
        """Take account of work that is about to be done."""
        self._steps -= steps
        if self._steps < 0:
            raise TooManySteps

    def apply(self, schema: Any, value: Any, path: str) -> Misfit | None:
        """Return what of `value`, which is at `path`, does not fit a part of the schema."""
        self.spend(1)
        if isinstance(schema, bool):
            return None if schema else Misfit(path, "nothing is allowed here")
        if self._depth >= DEPTH:
            raise TooManySteps
        self._depth += 1
        try:
            return self._apply_keywords(schema, value, path)
        finally:
            self._depth -= 1

    def _apply_keywords(self, schema: dict[str, Any], value: Any, path: str) -> Misfit | None:
        self.spend(len(schema))
        for keyword, ruled in schema.items():
            rule = _RULES.get(keyword)
            if rule is not None and (kind := _OF_TYPE.get(keyword)) is not None and not _is_type(value, kind):
                continue
            misfit = None if rule is None else rule(self, schema, ruled, value, path)
            if misfit is not None:
                return misfit
        return None

    def follow(self, reference: str, value: Any, path: str) -> Misfit | None:
        """Return what does not fit the part of the schema that a reference names."""
        if reference not in self._referred:
            self.spend(1 + len(reference))
            self._referred[reference] = find_referred(self._root, reference)
        return self.apply(self._referred[reference], value, path)

    def is_among(self, value: Any, allowed: list[Any]) -> bool:
        """Return whether `value` equals one of a keyword's list."""
        if id(allowed) not in self._enumerated:
            self._enumerated[id(allowed)] = frozenset(map(self.identify, allowed))
        return self.identify(value) in self._enumerated[id(allowed)]

    def matches(self, pattern: str, text: str) -> bool:
        """Return whether a part of `text` matches."""
        self.spend(1 + search_cost(pattern, text) // INSTRUCTIONS)
        return search(pattern, text)

    def identify(self, value: Any) -> Hashable:
        """Return what is equal for values that are equal as JSON: 1 and 1.0 are, 1 and true are not."""
        self.spend(1)
        if isinstance(value, dict):
            return "object", frozenset((name, self.identify(item)) for name, item in value.items())
        if isinstance(value, list):
            return "array", tuple(self.identify(item) for item in value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and abs(value) > _PLAIN:
            # Hashes of large numbers can be made to collide; those of texts cannot.
            return "integer", hex(value)
        return isinstance(value, bool), value


Rule = Callable[[Check, dict[str, Any], Any, Any, str], Misfit | None]


def _is_type(value: Any, kind: str) -> bool:
    match kind:
        case "object":
            return isinstance(value, dict)
        case "array":
            return isinstance(value, list)
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case "integer" if isinstance(value, float):
            return value.is_integer()
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, int | float) and not isinstance(value, bool)


def _require(holds: Callable[[Any, Any], bool], problem: str) -> Rule:
    """Return the rule of a keyword that compares the value with a bound."""

    def rule(check: Check, schema: dict[str, Any], bound: Any, value: Any, path: str) -> Misfit | None:
        return None if holds(value, bound) else Misfit(path, problem.format(bound))

    return rule


def _type(check: Check, schema: dict[str, Any], kinds: Any, value: Any, path: str) -> Misfit | None:
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if any(_is_type(value, kind) for kind in kinds):
        return None
    return Misfit(path, f"expected {' or '.join(kinds)}")


def _enum(check: Check, schema: dict[str, Any], allowed: list[Any], value: Any, path: str) -> Misfit | None:
    if check.is_among(value, allowed):
        return None
    return Misfit(path, f"expected one of {_show(allowed)}")


def _const(check: Check, schema: dict[str, Any], only: Any, value: Any, path: str) -> Misfit | None:
    return None if check.identify(only) == check.identify(value) else Misfit(path, f"expected {_show(only)}")


def _is_multiple(value: float, unit: float) -> bool:
    # As decimals, as they were written: 0.3 is a multiple of 0.1.
    return _exact(value) % _exact(unit) == 0


def _exact(value: float) -> Fraction:
    return Fraction(repr(value)) if isinstance(value, float) else Fraction(value)


def _pattern(check: Check, schema: dict[str, Any], pattern: str, value: str, path: str) -> Misfit | None:
    return None if check.matches(pattern, value) else Misfit(path, f"does not match {pattern[:100]!r}")


def _unique(check: Check, schema: dict[str, Any], wanted: bool, value: list[Any], path: str) -> Misfit | None:
    if not wanted or len({check.identify(item) for item in value}) == len(value):
        return None
    return Misfit(path, "its elements differ not all from one another")


def _prefix(check: Check, schema: dict[str, Any], parts: list[Any], value: list[Any], path: str) -> Misfit | None:
    return _first(check.apply(part, item, f"{path}[{i}]") for i, (part, item) in enumerate(zip(parts, value)))  # noqa: B905


def _items(check: Check, schema: dict[str, Any], part: Any, value: list[Any], path: str) -> Misfit | None:
    first = len(schema.get("prefixItems", ()))
    return _first(check.apply(part, value[i], f"{path}[{i}]") for i in range(first, len(value)))


def _contains(check: Check, schema: dict[str, Any], part: Any, value: list[Any], path: str) -> Misfit | None:
    found = sum(check.apply(part, item, path) is None for item in value)
    least, most = schema.get("minContains", 1), schema.get("maxContains", len(value))
    if least <= found <= most:
        return None
    return Misfit(path, f"{found} elements are as some must be; expected {least} to {most}")


def _properties(check: Check, schema: dict[str, Any], parts: dict[str, Any], value: Any, path: str) -> Misfit | None:
    check.spend(len(parts))
    return _first(check.apply(part, value[name], _member(path, name)) for name, part in parts.items() if name in value)


def _matching(check: Check, schema: dict[str, Any], parts: dict[str, Any], value: Any, path: str) -> Misfit | None:
    return _first(
        check.apply(part, item, _member(path, name))
        for pattern, part in parts.items()
        for name, item in value.items()
        if check.matches(pattern, name)
    )


def _others(check: Check, schema: dict[str, Any], part: Any, value: dict[str, Any], path: str) -> Misfit | None:
    check.spend(len(value))
    named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    others = (name for name in value if name not in named and not any(check.matches(p, name) for p in patterns))
    return _first(check.apply(part, value[name], _member(path, name)) for name in others)


def _names(check: Check, schema: dict[str, Any], part: Any, value: dict[str, Any], path: str) -> Misfit | None:
    return _first(check.apply(part, name, _member(path, name)) for name in value)


def _required(check: Check, schema: dict[str, Any], names: list[str], value: Any, path: str) -> Misfit | None:
    check.spend(len(names))
    return _first(Misfit(_member(path, name), "required") for name in names if name not in value)


def _depending(check: Check, schema: dict[str, Any], needed: dict[str, Any], value: Any, path: str) -> Misfit | None:
    check.spend(len(needed))
    return _first(_required(check, schema, names, value, path) for name, names in needed.items() if name in value)


def _depending_on(check: Check, schema: dict[str, Any], parts: dict[str, Any], value: Any, path: str) -> Misfit | None:
    check.spend(len(parts))
    return _first(check.apply(part, value, path) for name, part in parts.items() if name in value)


def _all(check: Check, schema: dict[str, Any], parts: list[Any], value: Any, path: str) -> Misfit | None:
    return _first(check.apply(part, value, path) for part in parts)


def _any(check: Check, schema: dict[str, Any], parts: list[Any], value: Any, path: str) -> Misfit | None:
    misfits = []
    for part in parts:
        misfit = check.apply(part, value, path)
        if misfit is None:
            return None
        misfits.append(misfit)
    # Whoever came furthest is likely to be the one that was meant.
    furthest = max(misfits, key=lambda misfit: len(misfit.path))
    return misfits[0] if len(misfits) == 1 else Misfit(furthest.path, f"fits none of several; {furthest.problem}")


def _one(check: Check, schema: dict[str, Any], parts: list[Any], value: Any, path: str) -> Misfit | None:
    fits = sum(check.apply(part, value, path) is None for part in parts)
    return None if fits == 1 else Misfit(path, f"fits {fits} of several, where it must fit one")


def _not(check: Check, schema: dict[str, Any], part: Any, value: Any, path: str) -> Misfit | None:
    return Misfit(path, "is what it must not be") if check.apply(part, value, path) is None else None


def _if(check: Check, schema: dict[str, Any], part: Any, value: Any, path: str) -> Misfit | None:
    follows = "then" if check.apply(part, value, path) is None else "else"
    return check.apply(schema[follows], value, path) if follows in schema else None


def _ref(check: Check, schema: dict[str, Any], reference: str, value: Any, path: str) -> Misfit | None:
    return check.follow(reference, value, path)


def _first(misfits: Any) -> Misfit | None:
    return next((misfit for misfit in misfits if misfit is not None), None)


def _member(path: str, name: str) -> str:
    return f"{path[-200:]}.{name[:100]}"


def _show(value: Any) -> str:
    return msgspec.json.encode(value).decode()[:200]


_RULES: Final[dict[str, Rule]] = {
    "$ref": _ref,
    "type": _type,
    "enum": _enum,
    "const": _const,
    "minimum": _require(lambda value, bound: value >= bound, "expected at least {}"),
    "maximum": _require(lambda value, bound: value <= bound, "expected at most {}"),
    "exclusiveMinimum": _require(lambda value, bound: value > bound, "expected more than {}"),
    "exclusiveMaximum": _require(lambda value, bound: value < bound, "expected less than {}"),
    "multipleOf": _require(_is_multiple, "expected a multiple of {}"),
    "minLength": _require(lambda value, bound: len(value) >= bound, "expected at least {} characters"),
    "maxLength": _require(lambda value, bound: len(value) <= bound, "expected at most {} characters"),
    "pattern": _pattern,
    "minItems": _require(lambda value, bound: len(value) >= bound, "expected at least {} elements"),
    "maxItems": _require(lambda value, bound: len(value) <= bound, "expected at most {} elements"),
    "uniqueItems": _unique,
    "prefixItems": _prefix,
    "items": _items,
    "contains": _contains,
    "minProperties": _require(lambda value, bound: len(value) >= bound, "expected at least {} members"),
    "maxProperties": _require(lambda value, bound: len(value) <= bound, "expected at most {} members"),
    "required": _required,
    "properties": _properties,
    "patternProperties": _matching,
    "additionalProperties": _others,
    "propertyNames": _names,
    "dependentRequired": _depending,
    "dependentSchemas": _depending_on,
    "allOf": _all,
    "anyOf": _any,
    "oneOf": _one,
    "not": _not,
    "if": _if,
}

# The keywords that say nothing of values of another type.
_OF_TYPE: Final[dict[str, str]] = {
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), "number"),
    **dict.fromkeys(("minLength", "maxLength", "pattern"), "string"),
    **dict.fromkeys(("minItems", "maxItems", "uniqueItems", "prefixItems", "items", "contains"), "array"),
    **dict.fromkeys(("minProperties", "maxProperties", "required", "properties", "patternProperties"), "object"),
    **dict.fromkeys(("additionalProperties", "propertyNames", "dependentRequired", "dependentSchemas"), "object"),
}
