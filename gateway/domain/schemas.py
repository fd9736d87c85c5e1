"""JSON Schemas written by strangers, of draft 2020-12: vetted where they come in, so that checking a value is safe.

What is left out cannot be bounded or needs other documents: `unevaluatedItems`, `unevaluatedProperties`, dynamic
references, `$id` within a schema, references to anything but a schema within it. `format` only describes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from gateway.domain.patterns import BadPattern, check_pattern
from gateway.errors import InvalidBody, TooLarge

SCHEMA_BYTES: Final = 16 * 1024
PATTERNS: Final = 16
TYPES: Final = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})

_ONE: Final = ("additionalProperties", "propertyNames", "items", "contains", "not", "if", "then", "else")
_LISTS: Final = ("allOf", "anyOf", "oneOf", "prefixItems")
_NAMED: Final = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")
_LEFT_OUT: Final = ("unevaluatedItems", "unevaluatedProperties", "$dynamicRef", "$dynamicAnchor", "$recursiveRef")


def vet_schema(schema: Any, where: str) -> None:
    """Refuse what is no JSON Schema, or one that the gateway does not check values by.

    Args:
        where: The schema's place in the body, for the refusal.

    Raises:
        InvalidBody: `facts["path"]` says where it is wrong.
        TooLarge: over 16 KiB, or too many patterns.
    """
    if len(msgspec.json.encode(schema)) > SCHEMA_BYTES:
        raise TooLarge(f"{where}: over {SCHEMA_BYTES} bytes", limit_bytes=SCHEMA_BYTES)
    places: set[int] = set()
    patterns: set[str] = set()
    waiting: list[tuple[Any, str]] = [(schema, where)]
    while waiting:
        part, path = waiting.pop()
        if isinstance(part, bool):
            continue
        if not isinstance(part, dict):
            raise _refuse(path, "expected a JSON Schema: an object, true or false")
        places.add(id(part))
        _vet_keywords(part, path, nested=part is not schema)
        patterns |= {part["pattern"]} if "pattern" in part else set()
        patterns |= part.get("patternProperties", {}).keys()
        if len(patterns) > PATTERNS:
            raise TooLarge(f"{where}: over {PATTERNS} patterns", limit_patterns=PATTERNS)
        waiting += _children(part, path)
    _vet_patterns(patterns, where)
    _vet_references(schema, places, where)


def find_referred(schema: Any, reference: str) -> Any:
    """Return the part of a schema that a `#/…` reference names.

    Raises:
        LookupError: there is none.
    """
    part = schema
    for step in unquote(reference[2:]).split("/") if len(reference) > 1 else ():
        step = step.replace("~1", "/").replace("~0", "~")
        part = part[int(step)] if isinstance(part, list) and step.isdecimal() else part[step]
    return part


def _children(schema: dict[str, Any], path: str) -> Iterator[tuple[Any, str]]:
    for keyword in _ONE:
        if keyword in schema:
            yield schema[keyword], f"{path}.{keyword}"
    for keyword in _LISTS:
        for index, part in enumerate(schema.get(keyword, ())):
            yield part, f"{path}.{keyword}[{index}]"
    for keyword in _NAMED:
        for name, part in schema.get(keyword, {}).items():
            yield part, f"{path}.{keyword}.{name}"


def _vet_keywords(schema: dict[str, Any], path: str, *, nested: bool) -> None:
    for keyword in _LEFT_OUT:
        if keyword in schema:
            raise _refuse(f"{path}.{keyword}", "this keyword is not supported")
    if nested and "$id" in schema:
        raise _refuse(f"{path}.$id", "a schema within a schema has no id here")
    for keyword, value in schema.items():
        rule = _SHAPES.get(keyword)
        if rule is not None and not rule[1](value):
            raise _refuse(f"{path}.{keyword}", f"expected {rule[0]}")


def _vet_patterns(patterns: set[str], where: str) -> None:
    for pattern in sorted(patterns):
        try:
            check_pattern(pattern)
        except BadPattern as error:
            raise _refuse(where, f"the pattern {pattern[:100]!r} cannot be matched in linear time: {error}") from None


def _vet_references(schema: Any, places: set[int], where: str) -> None:
    waiting = [(schema, where)]
    while waiting:
        part, path = waiting.pop()
        if isinstance(part, dict):
            if "$ref" in part and not _is_found(schema, part["$ref"], places):
                raise _refuse(f"{path}.$ref", "expected a reference to a schema within this one, such as #/$defs/name")
            waiting += _children(part, path)


def _is_found(schema: Any, reference: str, places: set[int]) -> bool:
    try:
        target = find_referred(schema, reference)
    except (LookupError, TypeError):
        return False
    return isinstance(target, bool) or id(target) in places


def _refuse(path: str, problem: str) -> InvalidBody:
    return InvalidBody(f"{path}: not a valid JSON Schema: {problem}"[:500], path=path[:200])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_type(value: Any) -> bool:
    if isinstance(value, str):
        return value in TYPES
    return _are_names(value) and bool(value) and TYPES.issuperset(value)


def _are_names(value: Any) -> bool:
    names = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return names and len(set(value)) == len(value)


def _is_reference(value: Any) -> bool:
    return isinstance(value, str) and (value == "#" or value.startswith("#/"))


_Shape = tuple[str, Callable[[Any], bool]]
_NUMBER: Final[_Shape] = ("a number", _is_number)
_COUNT: Final[_Shape] = ("a whole number from 0", _is_count)
_SCHEMAS: Final[_Shape] = ("a list of schemas", lambda value: isinstance(value, list) and bool(value))
_BY_NAME: Final[_Shape] = ("an object of schemas", lambda value: isinstance(value, dict))

_SHAPES: Final[dict[str, _Shape]] = {
    "$ref": ("a reference within the schema: # or #/…", _is_reference),
    "type": ("one or several of " + ", ".join(sorted(TYPES)), _is_type),
    "enum": ("a list", lambda value: isinstance(value, list)),
    "multipleOf": ("a number above 0", lambda value: _is_number(value) and value > 0),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _NUMBER),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), _COUNT),
    **dict.fromkeys(("minProperties", "maxProperties", "minContains", "maxContains"), _COUNT),
    "uniqueItems": ("true or false", lambda value: isinstance(value, bool)),
    "pattern": ("a regular expression", lambda value: isinstance(value, str)),
    "required": ("a list of different names", _are_names),
    "dependentRequired": (
        "an object of lists of names",
        lambda value: isinstance(value, dict) and all(map(_are_names, value.values())),
    ),
    **dict.fromkeys(_LISTS, _SCHEMAS),
    **dict.fromkeys(_NAMED, _BY_NAME),
    **dict.fromkeys(("title", "description", "format"), ("a string", lambda value: isinstance(value, str))),
}
