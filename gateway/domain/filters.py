"""What a reader wants to see of a log; a filter hides events and never renumbers them."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from gateway.errors import BadRequest

MAX_FILTER_CHARS: Final = 4096

_PATTERN = re.compile(r"\*|[a-z0-9_-]+(\.[a-z0-9_-]+)*(\.\*)?")


class TypeFilter(msgspec.Struct, frozen=True):
    """Which types of event a reader wants: exact names, and names by what they begin with."""

    exact: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> TypeFilter:
        """Return the filter that `message.delta,tool.*` spells; `*` alone passes everything.

        Raises:
            BadRequest: a pattern is empty or malformed, or the text too long.
        """
        if len(text) > MAX_FILTER_CHARS:
            raise BadRequest(f"types: longer than {MAX_FILTER_CHARS} characters")
        patterns = {part.strip() for part in text.split(",")}
        for pattern in patterns:
            if not _PATTERN.fullmatch(pattern):
                raise BadRequest(
                    f"types: {pattern[:64]!r} is not a type of event such as tool.call or tool.*",
                    types=text[:64],
                )
        prefixes = tuple(sorted(pattern[:-1] for pattern in patterns if pattern.endswith("*")))
        return cls(frozenset(pattern for pattern in patterns if not pattern.endswith("*")), prefixes)

    def passes(self, event_type: str) -> bool:
        """Tell whether events of this type are wanted."""
        return event_type in self.exact or event_type.startswith(self.prefixes)
