"""Instants: milliseconds inside, RFC 3339 UTC with milliseconds outside."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Final

import msgspec

from gateway.errors import BadRequest

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]


def format_time(ms: int) -> str:
    """Return Unix time `ms`, in milliseconds, as RFC 3339 UTC: `2026-11-22T08:00:00.123Z`."""
    second, rest = divmod(ms, 1000)
    return f"{_format_second(second)}.{rest:03d}Z"


def format_time_us(us: int) -> str:
    """Return Unix time `us`, in microseconds, as RFC 3339 UTC: `2026-11-22T08:00:00.123456Z`."""
    second, rest = divmod(us, 1_000_000)
    return f"{_format_second(second)}.{rest:06d}Z"


def parse_time(text: str) -> int:
    """Return the Unix time in milliseconds that an RFC 3339 text with an offset or `Z` means.

    Raises:
        BadRequest: not such a text, or its UTC year is not within 1 to 9999.
    """
    return parse_time_us(text) // 1000


def parse_time_us(text: str) -> int:
    """Return the Unix time in microseconds; see `parse_time`."""
    try:
        moment = msgspec.convert(text, _Moment).astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        raise BadRequest(
            f"{text[:64]!r} is not a time: expected RFC 3339 such as 2026-11-22T08:00:00.123Z", time=text[:64]
        ) from None
    return (moment - _EPOCH) // timedelta(microseconds=1)


@lru_cache(maxsize=256)
def _format_second(second: int) -> str:
    return (_EPOCH + timedelta(seconds=second)).isoformat()[:19]
