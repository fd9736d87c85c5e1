"""Schemas of questions: JSON Schema as others understand it, and never a trap for whoever checks."""

from __future__ import annotations

import json
import time
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.patterns import BadPattern, check_pattern, search
from gateway.domain.schema_check import TooManySteps, find_misfit
from gateway.domain.schemas import PATTERNS, SCHEMA_BYTES, TYPES, vet_schema
from gateway.errors import InvalidBody, TooLarge

WORST_S = 1.0
"""Far over the 50 ms that a check takes at worst, so that a busy machine fails no test."""

KEYS = st.sampled_from(["a", "b", "ab", ""])
SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0, 2.5, 10**30, "", "a", "aab", "é"])
VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=4) | st.dictionaries(KEYS, v, max_size=3), max_leaves=8)
COUNTS = st.integers(0, 3)
PATTERN = st.sampled_from(["a", "^a+$", "^(a|b)*$", "b$", r"\u00e9", "[a-z]{2,}", ""])


def extend(part: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return schemas of a few keywords that have `part` within."""
    named, many = st.dictionaries(KEYS, part, max_size=3), st.lists(part, min_size=1, max_size=3)
    types = st.sampled_from(sorted(TYPES))
    keywords: dict[str, st.SearchStrategy[Any]] = {
        "type": types | st.lists(types, min_size=1, unique=True),
        "enum": st.lists(VALUES, max_size=3),
        "const": VALUES,
        "minimum": st.integers(-2, 2),
        "maximum": st.sampled_from([0, 1.5]),
        "exclusiveMinimum": st.integers(-2, 2),
        "exclusiveMaximum": st.integers(-2, 2),
        "multipleOf": st.sampled_from([1, 2, 0.5]),
        "minLength": COUNTS,
        "maxLength": COUNTS,
        "pattern": PATTERN,
        "minItems": COUNTS,
        "maxItems": COUNTS,
        "uniqueItems": st.booleans(),
        "prefixItems": many,
        "items": part,
        "contains": part,
        "minContains": COUNTS,
        "maxContains": COUNTS,
        "minProperties": COUNTS,
        "maxProperties": COUNTS,
        "required": st.lists(KEYS, max_size=2, unique=True),
        "properties": named,
        "patternProperties": st.dictionaries(PATTERN, part, max_size=2),
        "additionalProperties": part,
        "propertyNames": part,
        "dependentRequired": st.dictionaries(KEYS, st.lists(KEYS, max_size=2, unique=True), max_size=2),
        "dependentSchemas": named,
        "allOf": many,
        "anyOf": many,
        "oneOf": many,
        "not": part,
        "if": part,
        "then": part,
        "else": part,
        "$ref": st.sampled_from(["#", "#/$defs/a", "#/$defs/b"]),
        "title": st.just("t"),
        "format": st.just("email"),
        "x-unknown": VALUES,
    }
    one = st.one_of([st.tuples(st.just(name), values) for name, values in keywords.items()])
    return st.lists(one, max_size=4).map(dict)


PARTS = st.recursive(st.booleans() | extend(st.booleans()), extend, max_leaves=6)
SCHEMAS = st.builds(
    lambda part, a, b: {**part, "$defs": {"a": a, "b": b}} if isinstance(part, dict) else part, PARTS, PARTS, PARTS
)


def within(schema: Any, value: Any) -> bool | None:
    """Return whether a value fits, None if the schema is refused or checking takes too long; nothing else may be."""
    try:
        vet_schema(schema, "data.schema")
        return find_misfit(schema, value) is None
    except (InvalidBody, TooLarge, TooManySteps):
        return None


@settings(max_examples=500)
@given(SCHEMAS, VALUES)
def test_a_value_fits_as_others_see_it(schema: Any, value: Any) -> None:
    """Whatever is checked is judged as the reference implementation judges it."""
    fits = within(schema, value)
    if fits is None:
        return
    try:
        others = jsonschema.Draft202012Validator(schema).is_valid(value)
    except RecursionError:
        # It looks at references first, and so goes round where another keyword would have ended it.
        return
    assert fits == others


@given(st.recursive(VALUES, lambda v: st.dictionaries(st.sampled_from(["type", "items", "$ref", "pattern"]), v)))
def test_what_is_vetted_is_a_schema(schema: Any) -> None:
    """Whatever passes as a schema is one to others too."""
    try:
        vet_schema(schema, "data.schema")
    except (InvalidBody, TooLarge):
        return
    jsonschema.Draft202012Validator.check_schema(schema)


def doubled(depth: int, keyword: str) -> Any:
    """Return a schema that looks at a value two to the power of `depth` times."""
    levels = {f"d{n}": {keyword: [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(depth)}
    return {"$defs": {**levels, f"d{depth}": {"type": "string"}}, "$ref": "#/$defs/d0"}


def nested(depth: int, make: Any) -> Any:
    """Return `make` of itself, so many times."""
    value: Any = {}
    for _ in range(depth):
        value = make(value)
    return value


MANY = [{"a": n, "b": [n, str(n)]} for n in range(1_000)]
TRAPS: list[tuple[Any, Any]] = [
    ({"pattern": "^(a+)+$"}, "a" * 32_000 + "!"),
    ({"pattern": "(?:(?:a?){100}){10}"}, "a" * 32_000),
    ({"allOf": [{"pattern": f"(?:(?:a?){{100}}){{9}}{n}$"} for n in range(PATTERNS)]}, "a" * 32_000),
    (
        {"patternProperties": {f"(x+x+)+{n}$": True for n in range(PATTERNS)}},
        {"x" * 300 + str(n): n for n in range(90)},
    ),
    ({"additionalProperties": False, "patternProperties": {"(?:a?){900}$": True}}, {"a" * n: n for n in range(250)}),
    (doubled(60, "allOf"), "x"),
    (doubled(60, "anyOf"), 1),
    (doubled(60, "oneOf"), "x"),
    ({"$ref": "#"}, 1),
    ({"items": {"$ref": "#"}}, nested(100, lambda v: [v])),
    ({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}, 1),
    ({"multipleOf": 0.1}, 10**400),
    ({"multipleOf": 1e-300}, 10**400),
    ({"multipleOf": 5e-324}, 1.7e308),
    ({"minimum": 10**400, "maximum": 1.5}, -(10**400)),
    ({"uniqueItems": True}, MANY),
    ({"uniqueItems": True}, [*range(5_000)]),
    ({"uniqueItems": True}, [n * (2**61 - 1) for n in range(1, 1_600)]),
    ({"uniqueItems": True}, [nested(90, lambda v: [v])] * 100),
    ({"enum": [[n] for n in range(2_000)]}, [1]),
    ({"items": {"enum": [*range(3_000)]}}, [*range(-6_000, 0)]),
    ({"items": {"anyOf": [{"const": n} for n in range(800)]}}, [-1] * 10_000),
    ({"contains": {"type": "string"}, "items": {"type": "object", "required": ["a", "b"]}}, MANY),
    ({"properties": {f"p{n}": True for n in range(1_100)}}, {f"p{n}": 1 for n in range(3_000)}),
    ({"items": {"properties": {f"p{n}": True for n in range(1_100)}}}, [{}] * 10_000),
    ({"required": [f"p{n}" for n in range(1_900)]}, {}),
    (nested(90, lambda v: {"not": v}), 1),
    (nested(90, lambda v: {"properties": {"a": v}}), nested(90, lambda v: {"a": v})),
    ({"$ref": "#/$defs/" + "a" * 8_000, "$defs": {"a" * 8_000: True}}, 1),
    ({"pattern": r"\p{L}{200}"}, "x"),
]


@pytest.mark.parametrize(("schema", "value"), TRAPS, ids=range(len(TRAPS)))
def test_no_schema_is_a_trap(schema: Any, value: Any) -> None:
    """What takes others seconds, or fails in them, is judged or refused at once."""
    assert len(json.dumps(schema)) <= SCHEMA_BYTES + 8_000
    before_s = time.process_time()
    within(schema, value)
    assert time.process_time() - before_s < WORST_S


@given(SCHEMAS, VALUES, st.integers(0, 200))
def test_the_steps_end_every_check(schema: Any, value: Any, steps: int) -> None:
    """Fewer steps never change an answer, they only withhold it."""
    if (fits := within(schema, value)) is None:
        return
    try:
        assert (find_misfit(schema, value, steps=steps) is None) == fits
    except TooManySteps:
        return


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ([], ""),
        ("string", ""),
        ({"type": "nonsense"}, ".type"),
        ({"type": []}, ".type"),
        ({"type": ["string", "string"]}, ".type"),
        ({"properties": {"a": 1}}, ".properties.a"),
        ({"properties": []}, ".properties"),
        ({"items": [{}]}, ".items"),
        ({"allOf": []}, ".allOf"),
        ({"anyOf": [True, {"minimum": "1"}]}, ".anyOf[1].minimum"),
        ({"minLength": -1}, ".minLength"),
        ({"maxItems": True}, ".maxItems"),
        ({"multipleOf": 0}, ".multipleOf"),
        ({"required": "a"}, ".required"),
        ({"pattern": 5}, ".pattern"),
        ({"pattern": "("}, ""),
        ({"pattern": "(?=a)"}, ""),
        ({"patternProperties": {"(a)\\1": True}}, ""),
        ({"$ref": 5}, ".$ref"),
        ({"$ref": "#/nowhere"}, ".$ref"),
        ({"$ref": "#/const", "const": {"type": 5}}, ".$ref"),
        ({"$ref": "https://example.org/schema"}, ".$ref"),
        ({"unevaluatedProperties": False}, ".unevaluatedProperties"),
        ({"items": {"$id": "https://example.org/schema"}}, ".items.$id"),
        ({"$dynamicRef": "#a"}, ".$dynamicRef"),
    ],
    ids=str,
)
def test_what_is_no_schema_is_refused_by_its_place(schema: Any, path: str) -> None:
    """Whoever asks learns which part of it is wrong."""
    with pytest.raises(InvalidBody) as refused:
        vet_schema(schema, "data.schema")
    assert refused.value.facts["path"] == "data.schema" + path


@pytest.mark.parametrize(
    "schema",
    [
        {"$schema": "http://json-schema.org/draft-07/schema#", "$id": "https://example.org/x", "type": "string"},
        {"definitions": {"a": True}, "$ref": "#/definitions/a"},
        {"properties": {"$id": True, "unevaluatedItems": True, "$ref": {"type": "string"}}},
        {"$defs": {"a/b~c": True}, "$ref": "#/$defs/a~1b~0c"},
        {"default": {"type": 5}, "examples": [{"$ref": 5}], "x-more": {"pattern": "("}},
    ],
    ids=str,
)
def test_what_generators_write_is_taken(schema: Any) -> None:
    """Annotations, names that look like keywords and the words of older drafts are no obstacle."""
    vet_schema(schema, "data.schema")


def test_a_schema_is_bounded() -> None:
    """In bytes, and in patterns."""
    with pytest.raises(TooLarge):
        vet_schema({"enum": ["x" * SCHEMA_BYTES]}, "data.schema")
    with pytest.raises(TooLarge):
        vet_schema({"anyOf": [{"pattern": str(n)} for n in range(PATTERNS + 1)]}, "data.schema")


def test_a_pattern_is_an_expression_of_ecma() -> None:
    """Characters by their number, ends of the text and not of a line."""
    assert search(r"^\u00e9+$", "éé")
    assert not search("^a$", "a\n")
    assert search(r"\\u00e9", r"\u00e9")
    with pytest.raises(BadPattern):
        check_pattern("(?!a)")


@pytest.mark.parametrize(
    ("schema", "value", "path"),
    [
        ({"properties": {"a": {"items": {"type": "string"}}}}, {"a": ["x", 1]}, ".a[1]"),
        ({"required": ["a"]}, {}, ""),
        ({"anyOf": [{"type": "string"}, {"properties": {"a": {"minimum": 3}}}]}, {"a": 1}, ""),
        ({"additionalProperties": False}, {"b": 1}, ""),
        ({"prefixItems": [True, {"const": 1}]}, [0, 0], "[1]"),
    ],
    ids=str,
)
def test_a_misfit_says_where_it_is(schema: Any, value: Any, path: str) -> None:
    """So that whoever answers can mend it."""
    misfit = find_misfit(schema, value)
    assert misfit is not None
    assert misfit.path == path
