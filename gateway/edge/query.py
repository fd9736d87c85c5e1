"""Typed query parameters; a bad one is refused by name, with its value and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec

from gateway.edge.body import decode_json
from gateway.errors import BadRequest, GatewayError

Query = Mapping[str, Sequence[str]]

T = TypeVar("T")

PARAMETERS: Final = 200
VALUE_CHARS: Final = 4_096
TOLD_CHARS: Final = 100
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,19}")
_NUMBER: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,20})?")
_DATE: Final = re.compile(r"[0-9]{4}-")
_TIME: Final = "an RFC 3339 time such as 2026-11-22T08:00:00Z"
_FLAGS: Final[Mapping[str, bool]] = {"true": True, "1": True, "false": False, "0": False}
_LOST_PLUS: Final = re.compile(r" (?=[0-9]{2}:[0-9]{2}$)")


def parse_query(query_string: bytes) -> Query:
    """Return every value of every parameter, in order.

    Raises:
        BadRequest: not UTF-8 once unescaped, or more than 200 parameters.
    """
    if not query_string:
        return {}
    try:
        pairs = parse_qsl(
            query_string.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=PARAMETERS
        )
    except UnicodeDecodeError:
        raise BadRequest("The query string is not valid UTF-8.") from None
    except ValueError:
        raise BadRequest(f"The query string has more than {PARAMETERS} parameters.") from None
    query: dict[str, list[str]] = {}
    for name, value in pairs:
        query.setdefault(name, []).append(value)
    return query


def refuse_unknown(query: Query, known: Collection[str]) -> None:
    """Refuse a parameter that is not among `known`: a mistyped filter must not widen a list."""
    for name in query:
        if name not in known:
            allowed = sorted(known)
            raise BadRequest(f"There is no parameter {name[:TOLD_CHARS]!r} here.", allowed=allowed)


def decode_query(query: Query, kind: type[T]) -> T:
    """Return the parameters as a struct: its fields name them, its types say what each may be.

    A field of a list type takes a parameter that is repeated, or whose values are joined by commas. A struct that
    forbids unknown fields refuses parameters that it does not name; another one ignores them.

    Raises:
        BadRequest: `facts["parameter"]` names the parameter that is wrong.
    """
    shaped: Any = kind
    shape = _shape(shaped)
    if shape.forbid_unknown_fields:
        refuse_unknown(query, [field.encode_name for field in shape.fields])
    values = {field.encode_name: _read_field(query, field) for field in shape.fields if field.encode_name in query}
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _explain(str(error), values, shape) from None


def _read_field(query: Query, field: msgspec.inspect.Field) -> str | list[str]:
    name, kinds = field.encode_name, _kinds(field.type)
    if kinds & {msgspec.inspect.ListType, msgspec.inspect.VarTupleType}:
        return read_many(query, name)
    value = read_text(query, name) or ""
    if not _can_spell(value, kinds):
        raise _refuse(name, value, _allowed(field.type) or "a value")
    return restore_plus(value) if msgspec.inspect.DateTimeType in kinds else value


def restore_plus(moment: str) -> str:
    """Return a time with the plus of its offset, which arrives as a space where nobody escaped it."""
    return _LOST_PLUS.sub("+", moment)


def _can_spell(value: str, kinds: set[type[msgspec.inspect.Type]]) -> bool:
    """Whether the conversion would not take `value` for a number, a time or nothing that no other reader sees in it."""
    if msgspec.inspect.IntType in kinds:
        return _INTEGER.fullmatch(value) is not None
    if msgspec.inspect.FloatType in kinds:
        return _NUMBER.fullmatch(value) is not None
    if msgspec.inspect.DateTimeType in kinds:
        return _DATE.match(value) is not None
    return msgspec.inspect.StrType in kinds or value.lower() != "null"


def _allowed(kind: msgspec.inspect.Type) -> str | None:
    """Return what a parameter of this type may be; None where only the conversion knows."""
    if isinstance(kind, msgspec.inspect.Metadata):
        return _allowed(kind.type)
    if isinstance(kind, msgspec.inspect.UnionType):
        told = [_allowed(one) for one in kind.types if not isinstance(one, msgspec.inspect.NoneType)]
        return told[0] if len(told) == 1 else None
    if isinstance(kind, msgspec.inspect.ListType | msgspec.inspect.VarTupleType):
        told_item = _allowed(kind.item_type)
        return told_item and told_item.replace("one of", "any of")
    if isinstance(kind, msgspec.inspect.LiteralType):
        return f"one of {', '.join(map(str, kind.values))}"
    if isinstance(kind, msgspec.inspect.IntType):
        return "an integer" + _range(kind.ge, kind.le)
    if isinstance(kind, msgspec.inspect.FloatType):
        return "a number" + _range(kind.ge, kind.le)
    if isinstance(kind, msgspec.inspect.StrType) and kind.pattern is None:
        return f"text of {kind.min_length or 0} to {kind.max_length or VALUE_CHARS} characters"
    if isinstance(kind, msgspec.inspect.BoolType):
        return "true or false"
    if isinstance(kind, msgspec.inspect.DateTimeType):
        return _TIME + (", with its offset or Z" if kind.tz else "")
    return None


def _range(low: float | None, high: float | None) -> str:
    bounds = ("" if low is None else f" from {low}") + ("" if high is None else f" to {high}")
    return f"{bounds} on" if high is None and low is not None else bounds


def _kinds(kind: msgspec.inspect.Type) -> set[type[msgspec.inspect.Type]]:
    """Return what a parameter may be, whatever else is said of it."""
    if isinstance(kind, msgspec.inspect.Metadata):
        return _kinds(kind.type)
    if isinstance(kind, msgspec.inspect.UnionType):
        return set().union(*map(_kinds, kind.types))
    return {type(kind)}


def _explain(message: str, values: Mapping[str, Any], shape: msgspec.inspect.StructType) -> BadRequest:
    problem, _, where = message.partition(" - at `$.")
    name = re.split(r"[.\[`]", where)[0]
    if not name:
        missing = problem.removeprefix("Object missing required field ").strip("`")
        return BadRequest(f"The parameter {missing} is required.", parameter=missing)
    told = ",".join(values[name]) if isinstance(values[name], list) else values[name]
    (kind,) = [field.type for field in shape.fields if field.encode_name == name]
    problem = problem.partition(", got ")[0].removeprefix("Expected ").replace("`", "").replace(" | null", "")
    return _refuse(name, told, _allowed(kind) or problem)


@cache
def _shape(kind: Any) -> msgspec.inspect.StructType:
    shape = msgspec.inspect.type_info(kind)
    assert isinstance(shape, msgspec.inspect.StructType), "a query is decoded into a struct"
    return shape


def read_text(query: Query, name: str, *, max_chars: int = VALUE_CHARS) -> str | None:
    """Return the one value of `name`, or None where it was not given."""
    values = query.get(name, ())
    if len(values) > 1:
        raise BadRequest(f"{name} is given {len(values)} times; it takes one value.", parameter=name)
    if values and len(values[0]) > max_chars:
        raise _refuse(name, values[0], f"at most {max_chars} characters")
    return values[0] if values else None


def read_choice(query: Query, name: str, allowed: Sequence[str]) -> str | None:
    """Return the value of `name`, one of `allowed`, or None where it was not given."""
    value = read_text(query, name)
    if value is not None and value not in allowed:
        raise _refuse(name, value, "one of " + ", ".join(allowed))
    return value


def read_int(query: Query, name: str, *, low: int, high: int) -> int | None:
    """Return the integer `name`, from `low` to `high`, or None where it was not given."""
    value = read_text(query, name)
    if value is None:
        return None
    if not _INTEGER.fullmatch(value) or not low <= int(value) <= high:
        raise _refuse(name, value, f"an integer from {low} to {high}")
    return int(value)


def read_seconds(query: Query, name: str, *, low: float, high: float) -> float | None:
    """Return the duration `name` in seconds, fractions allowed, or None where it was not given."""
    value = read_text(query, name)
    if value is None:
        return None
    if not _NUMBER.fullmatch(value) or not low <= float(value) <= high:
        raise _refuse(name, value, f"a number of seconds from {low:g} to {high:g}")
    return float(value)


def read_flag(query: Query, name: str, *, default: bool = False) -> bool:
    """Return whether `name` is `true` or `1`; given without a value it is true."""
    value = read_text(query, name)
    if value is None:
        return default
    if value and value.lower() not in _FLAGS:
        raise _refuse(name, value, "true or false")
    return _FLAGS[value.lower()] if value else True


def read_time_ms(query: Query, name: str) -> int | None:
    """Return the RFC 3339 time `name` as Unix milliseconds, or None where it was not given."""
    value = read_text(query, name)
    if value is None:
        return None
    try:
        at = msgspec.convert(restore_plus(value), datetime)
    except msgspec.ValidationError:
        raise _refuse(name, value, _TIME) from None
    if at.tzinfo is None or at < _EPOCH:
        raise _refuse(name, value, "an RFC 3339 time from 1970 on, with its offset or Z")
    return (at - _EPOCH) // timedelta(milliseconds=1)


def read_many(query: Query, name: str, *, most: int = 100, max_chars: int = VALUE_CHARS) -> list[str]:
    """Return the values of `name`, repeated or joined by commas; empty where it was not given."""
    values = [part for value in query.get(name, ()) for part in value.split(",") if part]
    if len(values) > most:
        raise BadRequest(f"{name} has {len(values)} values; it takes at most {most}.", parameter=name)
    for value in values:
        if len(value) > max_chars:
            raise _refuse(name, value, f"at most {max_chars} characters")
    return values


def read_choices(query: Query, name: str, allowed: Collection[str]) -> list[str]:
    """Return the values of `name`, each one of `allowed`, repeated or joined by commas."""
    values = read_many(query, name)
    for value in values:
        if value not in allowed:
            raise _refuse(name, value, "any of " + ", ".join(allowed))
    return values


def read_pairs(query: Query, name: str, *, most: int = 20) -> dict[str, str]:
    """Return the `key:value` pairs of the repeated parameter `name`; the value may hold colons."""
    pairs: dict[str, str] = {}
    for text in query.get(name, ()):
        key, colon, value = text.partition(":")
        if not key or not colon or len(text) > VALUE_CHARS:
            raise _refuse(name, text, f"key:value, at most {VALUE_CHARS} characters")
        if pairs.setdefault(key, value) != value:
            raise _refuse(name, text, "one value for each key")
    if len(pairs) > most:
        raise BadRequest(f"{name} has {len(pairs)} pairs; it takes at most {most}.", parameter=name)
    return pairs


def read_object(query: Query, name: str) -> dict[str, Any] | None:
    """Return the JSON object `name`, or None where it was not given."""
    value = read_text(query, name)
    if value is None:
        return None
    try:
        return decode_json(value.encode() or b" ", dict[str, Any])
    except GatewayError as error:
        raise _refuse(name, value, f"a JSON object ({error.detail})") from None


def _refuse(name: str, value: str, allowed: str) -> BadRequest:
    told = value if len(value) <= TOLD_CHARS else value[:TOLD_CHARS] + "…"
    return BadRequest(f"{name} is {told!r}; allowed is {allowed}.", parameter=name, value=told, allowed=allowed)
