"""What a store's refusals mean."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from gateway.store.refusals import Redirected, translate


@pytest.mark.parametrize(
    ("told", "address"),
    [
        ("10.0.0.1:7000", "10.0.0.1:7000"),
        ("node.example:7000", "node.example:7000"),
        (":7000", ":7000"),
        ("::1:7000", "[::1]:7000"),
        ("2001:db8::7:7000", "[2001:db8::7]:7000"),
    ],
)
@pytest.mark.parametrize("word", ["MOVED", "ASK"])
def test_another_node_is_named_as_the_layout_names_it(word: str, told: str, address: str) -> None:
    """Servers write an IPv6 address without brackets here, and a host that is theirs not at all."""
    moved = translate(ResponseError(f"{word} 866 {told}"))
    assert isinstance(moved, Redirected)
    assert (moved.slot, moved.address, moved.asks) == (866, address, word == "ASK")
    assert moved.facts["outcome"] == "not_written"
