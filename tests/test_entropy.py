"""Random bytes that are asked of the system for many at once."""

from __future__ import annotations

import os

import pytest

from gateway.entropy import RESERVE_BYTES, take_random


@pytest.mark.parametrize("count", [0, 1, 16, RESERVE_BYTES - 1, RESERVE_BYTES, 3 * RESERVE_BYTES + 1])
def test_as_many_come_as_are_asked_for(count: int) -> None:
    """However much is in reserve, and however much is not."""
    assert [len(take_random(count)) for _ in range(5)] == [count] * 5


def test_nobody_gets_what_another_got() -> None:
    """Not within a reserve, nor across the end of one."""
    assert len({take_random(24) for _ in range(10 * RESERVE_BYTES)}) == 10 * RESERVE_BYTES


def test_a_forked_process_shares_nothing_with_its_parent() -> None:
    """Both would take the same bytes out of a reserve that they have in common."""
    take_random(1)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, take_random(32))
        os._exit(0)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        os.close(writing)
        assert pipe.read() != take_random(32)
