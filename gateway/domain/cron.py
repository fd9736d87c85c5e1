"""When a cron expression ticks in a time zone, as instants that only grow.

Clock changes are met as Debian's cron meets them. An expression that names hours ticks once a day whatever the clock
does: a time that is skipped comes at the end of the gap, one that comes twice ticks the first time. One whose hours
begin with a star ticks by the time that passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from gateway.errors import InvalidBody

ALIASES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
FIELDS: Final = 5
CRON_CHARS: Final = 256
_HOUR_MS: Final = 3_600_000
# How far to look back for the last tick: near first, since an expression that ticks often has one there.
_LOOKS_BACK_MS: Final = (_HOUR_MS, 24 * _HOUR_MS, 32 * 24 * _HOUR_MS, 400 * 24 * _HOUR_MS)


class Timetable:
    """The ticks of an expression in a time zone."""

    def __init__(self, fields: str, zone: ZoneInfo) -> None:
        self._fields = fields
        self._zone = zone

    def next_after_ms(self, at_ms: int) -> int | None:
        """Return the first tick after a moment, in Unix ms; None when there is none for fifty years."""
        return next(self._after(at_ms), None)

    def latest_ms(self, after_ms: int, until_ms: int) -> int | None:
        """Return the last tick after a moment and not after another, in Unix ms; None when there is none."""
        for look_ms in (*_LOOKS_BACK_MS, until_ms):
            begin_ms = max(after_ms, until_ms - look_ms)
            latest = None
            for tick_ms in self._after(begin_ms):
                if tick_ms > until_ms:
                    break
                latest = tick_ms
            if latest is not None or begin_ms == after_ms:
                return latest
        return None

    def _after(self, at_ms: int) -> Iterator[int]:
        """Give the ticks after a moment; what the clock shows twice is one tick, as is what a gap moves together."""
        last_ms = at_ms
        for moment in CronSim(self._fields, datetime.fromtimestamp(at_ms // 1000, self._zone)):
            tick_ms = int(moment.astimezone(UTC).timestamp()) * 1000
            if tick_ms > last_ms:
                last_ms = tick_ms
                yield tick_ms


def parse_timetable(cron: str, timezone: str) -> Timetable:
    """Return the ticks that an expression and a time zone mean.

    Raises:
        InvalidBody: one of them means none; `facts["path"]` says which.
    """
    zone = _zone(timezone)
    fields = ALIASES.get(cron.strip().lower(), cron) if cron.strip().startswith("@") else cron
    if fields.startswith("@"):
        raise _bad_cron(cron, f"the aliases are {', '.join(ALIASES)}")
    if len(cron) > CRON_CHARS or len(fields.split()) != FIELDS:
        raise _bad_cron(cron, "expected five fields: minute, hour, day of the month, month, day of the week")
    timetable = Timetable(" ".join(fields.split()), zone)
    try:
        ticks = timetable.next_after_ms(0) is not None
    except CronSimError as error:
        raise _bad_cron(cron, str(error).lower()) from None
    except (ValueError, AssertionError):
        raise _bad_cron(cron, "a field cannot be read") from None
    if not ticks:
        raise _bad_cron(cron, "it never ticks")
    return timetable


def _bad_cron(cron: str, why: str) -> InvalidBody:
    return InvalidBody(f"cron: {cron[:CRON_CHARS]!r} is not a schedule: {why}.", path="$.cron")


def _zone(name: str) -> ZoneInfo:
    if name not in _zones():
        raise InvalidBody(f"timezone: {name[:64]!r} is no IANA time zone such as Europe/Berlin.", path="$.timezone")
    return ZoneInfo(name)


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())
