"""What a check found: how bad it is, what it is in words, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

import msgspec

Level: TypeAlias = Literal["good", "note", "warning", "problem"]
"""A problem breaks a promise of the gateway; a warning may one day; a note is for whoever wants to know."""


class Finding(msgspec.Struct, frozen=True):
    """One answer of one check.

    Args:
        cure: What to do; empty where there is nothing to be done.
    """

    area: str
    check: str
    level: Level
    said: str
    cure: str = ""


class Ward:
    """The findings of one area, in the order in which they were made."""

    def __init__(self, area: str) -> None:
        self._area = area
        self.findings: list[Finding] = []

    def add(self, check: str, level: Level, said: str, cure: str = "") -> None:
        """Note what a check found."""
        self.findings.append(Finding(self._area, check, level, said, cure))


def has_problem(findings: Iterable[Finding]) -> bool:
    """Tell whether anything must be mended."""
    return any(finding.level == "problem" for finding in findings)
