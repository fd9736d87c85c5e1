"""Regular expressions written by strangers: matched in time linear in the text, or refused beforehand.

RE2 has neither backreferences nor look-around, which is what makes others exponential.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import re2

# RE2's own measure: with this, a program has some two thousand instructions at most.
_MEMORY_BYTES: Final = 64 * 1024
_UNICODE: Final = re.compile(r"((?:^|[^\\])(?:\\\\)*)\\u([0-9A-Fa-f]{4})")

_options: Final = re2.Options()
_options.max_mem = _MEMORY_BYTES
_options.log_errors = False
_options.never_capture = True


class BadPattern(Exception):
    """Not a regular expression, or not one that is matched in linear time; the message says why."""


def check_pattern(pattern: str) -> None:
    """Refuse what `search` could not take.

    Raises:
        BadPattern: why.
    """
    _compile(pattern)


def search(pattern: str, text: str) -> bool:
    """Return whether some part of `text` matches; `^` and `$` are the ends of the text."""
    return _compile(pattern).search(text) is not None


def search_cost(pattern: str, text: str) -> int:
    """Return how many instructions a search may run, at worst."""
    return int(_compile(pattern).programsize) * len(text)


@lru_cache(maxsize=128)
def _compile(pattern: str) -> re2._Regexp:
    try:
        # As ECMA-262, and so JSON Schema, spells a character by its number.
        return re2.compile(_UNICODE.sub(r"\1\\x{\2}", pattern), _options)
    except re2.error as error:
        raise BadPattern(_text(error)) from None


def _text(error: Exception) -> str:
    reason = error.args[0] if error.args else error
    return reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
