"""Containment: what it means, and that it never takes long to tell."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.containment import LIST_ELEMENTS, Containment, OutOfSteps
from gateway.errors import BadRequest

SCALARS = st.none() | st.booleans() | st.integers(-1, 2) | st.sampled_from([0.0, 1.0, "", "a"])
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
)


def contains(value: Any, part: Any) -> bool:
    if isinstance(part, dict):
        return isinstance(value, dict) and all(k in value and contains(value[k], part[k]) for k in part)
    if isinstance(part, list):
        return isinstance(value, list) and all(any(contains(v, p) for v in value) for p in part)
    return _spell(value) == _spell(part)


def _spell(value: Any) -> str:
    """Return a scalar as JSON, a whole number in one way only."""
    return json.dumps(float(value) if type(value) is int else value)


@given(JSON, JSON)
def test_it_is_by_member_element_and_type(value: Any, part: Any) -> None:
    """Objects contain by key, lists by some element, the rest by being equal and of one JSON type."""
    assert Containment(part).holds(value) == contains(value, part)


def test_a_number_is_one_however_it_is_written() -> None:
    """1 and 1.0 are equal, and neither is true; numbers beyond a double's precision stay apart."""
    assert Containment({"n": 1.0}).holds({"n": 1})
    assert Containment({"n": 1}).holds({"n": 1.0})
    assert not Containment({"n": 1}).holds({"n": True})
    assert not Containment({"n": False}).holds({"n": 0})
    assert not Containment({"n": 2**53}).holds({"n": 2**53 + 1})


@given(st.lists(JSON, max_size=10), JSON, st.integers(0, 60))
def test_the_steps_are_for_all_values_together(values: list[Any], part: Any, steps: int) -> None:
    """Until they are spent every answer is right; then there is none."""
    asked = Containment(part, steps=steps)
    try:
        for value in values:
            assert asked.holds(value) == contains(value, part)
    except OutOfSteps:
        return


def test_a_value_made_to_take_long_does_not() -> None:
    """Lists in lists multiply; the steps end it."""
    part = [[[-1] * LIST_ELEMENTS] * LIST_ELEMENTS] * LIST_ELEMENTS
    value = [[[1] * 80] * 80] * 80
    with pytest.raises(OutOfSteps):
        Containment(part).holds(value)


@pytest.mark.parametrize("part", [{"a": [0] * 33}, {"a": [{"b": [0] * 33}]}], ids=str)
def test_a_part_with_long_lists_is_refused(part: Any) -> None:
    """However deep they are."""
    with pytest.raises(BadRequest, match="33 elements"):
        Containment(part)
