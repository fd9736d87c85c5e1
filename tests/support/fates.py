"""How a relayed connection breaks: when, and in which of the ways in which networks break."""

from __future__ import annotations

import random
from collections import Counter
from enum import StrEnum
from typing import Protocol

import msgspec


class Cut(StrEnum):
    """How a connection breaks: by RST, by FIN in the middle of an answer, or silently."""

    RESET = "reset"
    FIN = "fin"
    BLACK_HOLE = "black_hole"


class Fate(msgspec.Struct, frozen=True):
    """When a connection breaks, whichever comes first: after so many bytes to the client, so many seconds,
    or so many bytes from the client, in the middle of a request."""

    how: Cut
    after_bytes: int | None = None
    after_s: float | None = None
    after_sent_bytes: int | None = None


class Cutting(Protocol):
    """What breaks connections, and counts them."""

    cuts: Counter[Cut]


class Dooms:
    """Fates from a seed, until as many cuts as wanted have been made; after that connections live.

    Args:
        black_holes: How many of a hundred cuts are black holes; the others are RST and FIN in equal parts.
    """

    def __init__(self, seed: int, *, cuts: int, most_bytes: int, most_s: float, black_holes: int = 10) -> None:
        self._random = random.Random(seed)
        self._cuts = cuts
        self._most_bytes = most_bytes
        self._most_s = most_s
        self._black_holes = black_holes

    def __call__(self, proxy: Cutting) -> Fate | None:
        """Return the next connection's fate."""
        if proxy.cuts.total() >= self._cuts:
            return None
        silent = self._random.randrange(100) < self._black_holes
        how = Cut.BLACK_HOLE if silent else self._random.choice((Cut.RESET, Cut.FIN))
        return Fate(how, self._random.randrange(self._most_bytes), self._random.uniform(0, self._most_s))
