"""Times without promotions, in UTC: `Fri 16:00-Mon 08:00`, or `22:00-06:00` for each day."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_WEEK = 7 * _DAY
_EPOCH_WEEKDAY = 3
"""1970-01-01 was a Thursday."""

_MOMENT = r"(?:([a-z]{3}) )?([01]\d|2[0-3]):([0-5]\d)"
_WINDOW = re.compile(f"{_MOMENT} ?- ?{_MOMENT}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Freeze:
    """From `begin` to `end`, seconds into a period of a week or a day; it may wrap around."""

    text: str
    begin: int
    end: int
    period: int

    def __str__(self) -> str:
        return f"{self.text} UTC"

    def covers(self, now: float) -> bool:
        """`now` in Unix seconds."""
        at = (now + _EPOCH_WEEKDAY * _DAY) % self.period
        return self.begin <= at < self.end if self.begin < self.end else at >= self.begin or at < self.end


def parse_freeze(text: str) -> Freeze:
    """Raise ValueError, with an example, for what is no window."""
    found = _WINDOW.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no time of the week; write 'Fri 16:00-Mon 08:00', or '22:00-06:00' for each day")
    first, hour, minute, last, end_hour, end_minute = found.groups()
    if (first is None) != (last is None):
        raise ValueError(f"{text!r} names a day on one side only; write 'Fri 16:00-Mon 08:00', or '22:00-06:00'")
    begin = _day(first) + int(hour) * _HOUR + int(minute) * _MINUTE
    end = _day(last) + int(end_hour) * _HOUR + int(end_minute) * _MINUTE
    if begin == end:
        raise ValueError(f"{text!r} ends when it begins; write 'Fri 16:00-Mon 08:00', or '22:00-06:00' for each day")
    return Freeze(text.strip(), begin, end, _DAY if first is None else _WEEK)


def in_freeze(freezes: Sequence[Freeze], now: float) -> Freeze | None:
    """The first one that covers `now` (Unix seconds)."""
    return next((freeze for freeze in freezes if freeze.covers(now)), None)


def _day(name: str | None) -> int:
    if name is None:
        return 0
    if name.lower() not in _DAYS:
        raise ValueError(f"{name!r} is no day; write Mon, Tue, Wed, Thu, Fri, Sat or Sun")
    return _DAYS.index(name.lower()) * _DAY
